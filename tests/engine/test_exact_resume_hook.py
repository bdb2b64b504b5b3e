"""A training run that was killed ends as one that was not, bit by bit."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from projects.clip_vg.engine import exact_resume_hook
from projects.clip_vg.engine.exact_resume_hook import (
    ExactResumeHook,
    seed_worker_by_epoch,
    train_batch_size,
    train_sampler,
)

from ..helpers.configs import runner_config


class Killed(Exception):
    pass


class KillHook(Hook):
    """Stops at one of the moments that a kill may hit."""

    priority = 'LOWEST'

    def __init__(self, moment, epoch):
        self.moment, self.epoch = moment, epoch

    def _at(self, runner, moment, epoch):
        if (moment, epoch) == (self.moment, self.epoch):
            raise Killed

    def after_train_iter(self, runner, batch_idx, **_):
        if batch_idx == 1:
            self._at(runner, 'within', runner.epoch)

    def after_train_epoch(self, runner):
        self._at(runner, 'before validation', runner.epoch)

    def after_val_epoch(self, runner, metrics=None):
        self._at(runner, 'after validation', runner.epoch - 1)


def train(cfg, hook=None):
    runner = Runner.from_cfg(cfg)
    if hook is not None:
        runner.register_hook(hook)
    runner.train()
    return runner


def best(runner):
    info = runner.message_hub.runtime_info
    weights = torch.load(info['best_ckpt'], weights_only=False)['state_dict']
    return info['best_score'], weights


@pytest.mark.parametrize(
    'moment, epoch',
    [
        ('within', 1),
        ('before validation', 0),
        ('before validation', 1),
        ('after validation', 0),
    ],
)
def test_resumed_equals_uninterrupted(shapes, sources, tmp_path, moment, epoch):
    whole = train(runner_config(shapes, sources, tmp_path / 'whole'))
    cfg = runner_config(shapes, sources, tmp_path / 'killed')
    with pytest.raises(Killed):
        train(cfg, KillHook(moment, epoch))
    cfg.resume = True
    cfg.experiment_name += ' again'
    resumed = train(cfg)
    for one, other in zip(
        whole.model.parameters(), resumed.model.parameters(), strict=True
    ):
        assert torch.equal(one, other)
    score, weights = best(whole)
    again, same = best(resumed)
    assert score == again
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_the_selection_is_in_the_checkpoint(shapes, sources, tmp_path):
    cfg = runner_config(shapes, sources, tmp_path)
    cfg.train_dataloader.sampler.subset = dict(size=40, seed=1)
    runner = train(cfg)
    chosen = runner.train_dataloader.sampler.selection
    cfg = runner_config(shapes, sources, tmp_path, resume=True)
    cfg.train_cfg.max_epochs = 3
    cfg.experiment_name += ' again'
    resumed = train(cfg)
    assert len(chosen) == 40
    np.testing.assert_array_equal(resumed.train_dataloader.sampler.selection, chosen)


def test_a_selection_smaller_than_a_batch_is_an_error(shapes, sources, tmp_path):
    cfg = runner_config(shapes, sources, tmp_path)
    cfg.train_dataloader.sampler.subset = dict(size=7)
    with pytest.raises(ValueError, match=r'7 of \d+ labels passed.*at least 8'):
        train(cfg)


class Sampler:
    """One that has a state and an epoch."""

    epoch = state = None

    def set_epoch(self, epoch):
        self.epoch = epoch

    def state_dict(self):
        return dict(state=self.state)

    def load_state_dict(self, state):
        self.state = state['state']


def runner_of(loop=EpochBasedTrainLoop, sampler=None, **attributes):
    """What the hook sees of a runner whose validations are counted."""
    loop = loop.__new__(loop)
    loop._runner = None
    loop.dataloader = SimpleNamespace(
        sampler=sampler or Sampler(), batch_sampler=None, batch_size=8
    )
    loop.val_begin, loop.val_interval = 1, 1
    validated = []
    runner = SimpleNamespace(
        train_loop=loop,
        val_loop=SimpleNamespace(run=lambda: validated.append(1)),
        message_hub=SimpleNamespace(runtime_info={}),
        seed=0,
        epoch=0,
        _resume=True,
    )
    vars(runner).update(attributes)
    return runner, validated


def drawn(monkeypatch, rank=0, **attributes):
    """The first numbers of an epoch, of all three generators."""
    monkeypatch.setattr(exact_resume_hook, 'get_rank', lambda: rank)
    runner, _ = runner_of(**attributes)
    ExactResumeHook().before_train_epoch(runner)
    assert runner.train_loop.dataloader.sampler.epoch == runner.epoch
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_each_epoch_rank_and_seed_draws_numbers_of_its_own(monkeypatch):
    changes = [{}, dict(epoch=1), dict(epoch=2), dict(rank=1), dict(seed=1)]
    numbers = [drawn(monkeypatch, **change) for change in changes]
    for generator in zip(*numbers, strict=True):
        assert len(set(generator)) == len(changes)
    assert [drawn(monkeypatch, **change) for change in changes] == numbers
    assert drawn(monkeypatch, seed=None) == numbers[0]


@pytest.mark.parametrize(
    'epoch, begin, interval, validated, due',
    [
        (3, 1, 1, 2, True),
        (3, 1, 1, None, True),
        (3, 1, 1, 3, False),
        (3, 4, 1, None, False),
        (3, 3, 1, None, True),
        (3, 1, 2, None, False),
        (4, 1, 2, 2, True),
    ],
)
@pytest.mark.parametrize('moment', ['before_train_epoch', 'after_train'])
def test_a_resumed_run_validates_once_what_was_due(
    moment, epoch, begin, interval, validated, due
):
    runner, runs = runner_of(epoch=epoch)
    runner.train_loop.val_begin, runner.train_loop.val_interval = begin, interval
    if validated is not None:
        runner.message_hub.runtime_info['validated_epoch'] = validated
    hook = ExactResumeHook()
    hook.after_load_checkpoint(runner, {})
    getattr(hook, moment)(runner)
    assert len(runs) == due
    getattr(hook, moment)(runner)
    assert len(runs) == due


@pytest.mark.parametrize(
    'changes',
    [dict(_resume=False), dict(val_loop=None), dict(loop=IterBasedTrainLoop)],
    ids=str,
)
def test_nothing_is_made_up_for_where_nothing_was_due(changes):
    runner, runs = runner_of(**dict(dict(epoch=3), **changes))
    hook = ExactResumeHook()
    hook.after_load_checkpoint(runner, {})
    hook.after_train(runner)
    assert not runs


def test_what_was_validated_is_noted():
    noted = {}
    runner, _ = runner_of(epoch=5)
    runner.message_hub.update_info = noted.__setitem__
    ExactResumeHook().after_val_epoch(runner, {})
    assert noted == dict(validated_epoch=5)


def test_the_sampler_goes_on_only_where_a_run_is_resumed():
    hook, saved = ExactResumeHook(), {}
    before, _ = runner_of()
    before.train_loop.dataloader.sampler.state = 'selected'
    hook.before_save_checkpoint(before, saved)
    for resumed, checkpoint, expected in (
        (True, saved, 'selected'),
        (False, saved, None),  # load_from: another training run
        (True, {}, None),  # from MMEngine's own hook
    ):
        runner, _ = runner_of(_resume=resumed)
        hook.after_load_checkpoint(runner, checkpoint)
        assert runner.train_loop.dataloader.sampler.state == expected
    plain, _ = runner_of(sampler=torch.utils.data.SequentialSampler([1]))
    hook.after_load_checkpoint(plain, saved)  # a sampler without a state
    checkpoint = {}
    hook.before_save_checkpoint(plain, checkpoint)
    assert checkpoint == {}


def test_sampler_and_batch_size_below_a_batch_sampler(monkeypatch):
    monkeypatch.setattr(exact_resume_hook, 'get_world_size', lambda: 4)
    runner, _ = runner_of()
    loader = runner.train_loop.dataloader
    assert train_sampler(runner) is loader.sampler
    assert train_batch_size(runner) == 8 * 4
    inner = Sampler()
    loader.batch_sampler = SimpleNamespace(sampler=inner, batch_size=3)
    loader.batch_size = None  # as PyTorch has it with a batch sampler
    assert train_sampler(runner) is inner
    assert train_batch_size(runner) == 3 * 4


def test_a_worker_is_seeded_by_its_epoch():
    def numbers(seed):
        torch.manual_seed(seed)
        seed_worker_by_epoch(0)
        return random.random(), np.random.rand()

    one, other = numbers(2**40 + 1), numbers(2**40 + 2)
    assert one[0] != other[0]
    assert one[1] != other[1]
    assert numbers(2**40 + 1) == one
