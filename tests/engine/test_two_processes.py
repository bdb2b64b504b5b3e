"""The curriculum in two processes: as in one, with workers that stay."""

import multiprocessing
import os

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from projects.clip_vg.compat import setup_cpu_distributed
from projects.clip_vg.engine import PseudoLabelReliabilityHook
from projects.clip_vg_core.utils.safe_torch import load_torch

from ..helpers.configs import runner_config

LABELS_OF_AN_EPOCH = 48


class Record(Hook):
    """Notes the labels of each step, the scores and the selections."""

    priority = 'LOWEST'

    def __init__(self):
        self.drawn, self.scores, self.selections = {}, [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        names = [s.sample_id for s in data_batch['data_samples']]
        self.drawn.setdefault(f'epoch {runner.epoch}', []).append(names)

    def after_train_epoch(self, runner):
        (hook,) = (h for h in runner.hooks if isinstance(h, PseudoLabelReliabilityHook))
        self.scores.append(hook.mean.copy())
        self.selections.append(runner.train_dataloader.sampler.selection)


def config(shapes, sources, work_dir, batch_size):
    """Two epochs of 6 steps, the second of them on what is selected."""
    cfg = runner_config(shapes, sources, work_dir)
    cfg.model.fusion.dropout = 0.0
    cfg.train_cfg.val_interval = 10
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=10)
    loader = cfg.train_dataloader
    loader.update(batch_size=batch_size, num_workers=1, persistent_workers=True)
    loader.sampler = dict(
        type='CurriculumSampler', seed=3, epoch_length=LABELS_OF_AN_EPOCH
    )
    # The middle, so that no label is near the threshold by rounding alone.
    cfg.custom_hooks = [
        dict(type='PseudoLabelReliabilityHook', threshold='otsu', batch_size=4)
    ]
    return cfg


def train(cfg):
    runner = Runner.from_cfg(cfg)
    record = Record()
    runner.register_hook(record)
    runner.train()
    names = runner.train_dataloader.dataset.table.sample_ids
    return record, [names[label] for label in record.selections[0]]


def _train_as(rank, cfg, folder):
    """One of two processes: train, and write down what it saw."""
    torch.set_num_threads(1)  # OpenMP's threads are not there after a fork
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2')
    torch.distributed.init_process_group(
        'gloo', f'file://{folder}/rendezvous', rank=rank, world_size=2
    )
    cfg.launcher = 'pytorch'
    setup_cpu_distributed(cfg)
    record, selected = train(cfg)
    torch.save((record.drawn, record.scores, selected), folder / f'{rank}.pt')
    torch.distributed.destroy_process_group()


@pytest.fixture(scope='module')
def ranks(shapes, sources, tmp_path_factory):
    """What both processes saw."""
    folder = tmp_path_factory.mktemp('ranks')
    cfg = config(shapes, sources, folder / 'run', batch_size=4)
    context = multiprocessing.get_context('fork')
    processes = [
        context.Process(target=_train_as, args=(rank, cfg, folder)) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    return [load_torch(folder / f'{i}.pt') for i in (0, 1)]


def test_both_have_the_scores_and_the_selection_of_one_process(
    ranks, shapes, sources, tmp_path
):
    """Of the same batches: half of each in either process."""
    record, selected = train(config(shapes, sources, tmp_path, batch_size=8))
    assert 0 < len(selected) < LABELS_OF_AN_EPOCH
    for _, scores, own in ranks:
        assert own == selected
        np.testing.assert_allclose(scores[0], record.scores[0], atol=1e-4)
    for epoch, steps in record.drawn.items():
        halves = zip(*(drawn[epoch] for drawn, _, _ in ranks), strict=True)
        assert [set(a) | set(b) for a, b in halves] == [set(step) for step in steps]


def test_workers_that_stay_load_what_is_selected(ranks):
    (first, _, selected), (second, _, _) = ranks
    before, after = (
        {name for part in (first, second) for step in part[epoch] for name in step}
        for epoch in ('epoch 0', 'epoch 1')
    )
    assert len(before) == LABELS_OF_AN_EPOCH
    assert after == set(selected) != before
