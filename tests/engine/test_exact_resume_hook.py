"""A training that was killed ends as one that was not, bit by bit."""

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

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
