"""Epochs that can be repeated exactly: the sampler's state, and one seed each."""

import random
from typing import Any

import numpy as np
import torch
from mmdet.registry import HOOKS
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import DistSamplerSeedHook
from mmengine.registry import FUNCTIONS
from mmengine.runner import Runner

__all__ = ['SamplerStateHook', 'seed_worker_by_epoch', 'train_sampler']


def train_sampler(runner: Runner) -> Any:
    """The sampler of the training labels."""
    return runner.train_loop.dataloader.sampler


@FUNCTIONS.register_module()
def seed_worker_by_epoch(worker_id: int) -> None:  # noqa: ARG001  # torch's signature
    """Seed a worker from what its epoch was seeded with.

    MMEngine's own gives a worker the same seed whenever it starts, so without
    persistent workers every epoch draws the same random numbers.
    """
    seed = torch.initial_seed() % 2**32
    random.seed(seed)
    np.random.seed(seed)


@HOOKS.register_module()
class SamplerStateHook(DistSamplerSeedHook):
    """Keep the sampler's state in checkpoints, and seed every epoch.

    Put it in the place of MMEngine's:
    ``default_hooks = dict(sampler_seed=dict(type='SamplerStateHook'))``.

    Modifications of :class:`DistSamplerSeedHook`:

    - what the sampler's ``state_dict()`` gives goes into the checkpoint and comes
      back with ``--resume``;
    - a :obj:`CurriculumSampler` whose selection is smaller than a batch is an error
      before the training starts;
    - random, NumPy and PyTorch are seeded anew for every epoch, so that a resumed
      training equals an uninterrupted one, bit by bit on a CPU (with workers that
      are not persistent, and ``worker_init_fn=dict(type='seed_worker_by_epoch')``).
    """

    def before_train(self, runner: Runner) -> None:
        """Check the size of the selection."""
        sampler = train_sampler(runner)
        if hasattr(sampler, 'require'):
            batch_size = runner.train_loop.dataloader.batch_size or 1
            sampler.require(batch_size * get_world_size())

    def before_train_epoch(self, runner: Runner) -> None:
        """Tell the sampler its epoch and seed the random numbers of the epoch."""
        super().before_train_epoch(runner)
        seed = np.random.SeedSequence([runner.seed or 0, runner.epoch, get_rank()])
        state = int(seed.generate_state(1)[0])
        random.seed(state)
        np.random.seed(state)
        torch.manual_seed(state)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the sampler's state into the checkpoint."""
        sampler = train_sampler(runner)
        if hasattr(sampler, 'state_dict'):
            checkpoint['sampler'] = sampler.state_dict()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Give it back, when the training is resumed."""
        if 'sampler' in checkpoint and runner._resume and runner.train_loop:
            sampler = train_sampler(runner)
            if hasattr(sampler, 'load_state_dict'):
                sampler.load_state_dict(checkpoint['sampler'])
