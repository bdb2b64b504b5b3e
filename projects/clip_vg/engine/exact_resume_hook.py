"""Training runs that end alike, interrupted or not: sampler, seeds, validation."""

import random
from typing import Any

import numpy as np
import torch
from mmdet.registry import HOOKS
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import DistSamplerSeedHook
from mmengine.registry import FUNCTIONS
from mmengine.runner import EpochBasedTrainLoop, Runner

__all__ = [
    'ExactResumeHook',
    'seed_worker_by_epoch',
    'train_batch_size',
    'train_sampler',
]


def train_sampler(runner: Runner) -> Any:
    """The sampler of the training labels, also below an ``AspectRatioBatchSampler``."""
    loader = runner.train_loop.dataloader
    return getattr(loader.batch_sampler, 'sampler', loader.sampler)


def train_batch_size(runner: Runner) -> int:
    """Samples in a batch of all processes together."""
    loader = runner.train_loop.dataloader
    own = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', 1)
    return own * get_world_size()


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
class ExactResumeHook(DistSamplerSeedHook):
    """Lets a training run that was killed and resumed end as an uninterrupted one.

    Put it in the place of MMEngine's:
    ``default_hooks = dict(sampler_seed=dict(type='ExactResumeHook'))``.

    Modifications of :class:`DistSamplerSeedHook`:

    - what the sampler's ``state_dict()`` gives goes into the checkpoint and comes
      back with ``--resume``;
    - random, NumPy and PyTorch are seeded anew for every epoch (bit by bit the same
      on a CPU with workers that are not persistent, and
      ``worker_init_fn=dict(type='seed_worker_by_epoch')``);
    - MMEngine writes a checkpoint before it validates: a training run killed between
      the two would never validate that epoch, and could miss its best checkpoint.
      It is validated before going on;
    - a :obj:`CurriculumSampler` whose selection is smaller than a batch is an error
      before training starts.
    """

    # As DistSamplerSeedHook: before a CheckpointHook writes what was validated.
    priority = 'NORMAL'

    def __init__(self) -> None:
        self._resumed = False

    def before_train(self, runner: Runner) -> None:
        """Check the size of the selection."""
        sampler = train_sampler(runner)
        if hasattr(sampler, 'require'):
            sampler.require(train_batch_size(runner))

    def before_train_epoch(self, runner: Runner) -> None:
        """Make up for a validation, then set up the sampler and all seeds."""
        if self._resumed:
            self._resumed = False
            self._validate_if_due(runner)
        super().before_train_epoch(runner)
        # A sequence of three: sums of seed, epoch and rank would coincide.
        seed = np.random.SeedSequence([runner.seed or 0, runner.epoch, get_rank()])
        state = int(seed.generate_state(1)[0])
        random.seed(state)
        np.random.seed(state)
        torch.manual_seed(state)

    def after_train(self, runner: Runner) -> None:
        """Make up for a validation after the last epoch."""
        if self._resumed:
            self._resumed = False
            self._validate_if_due(runner)

    def _validate_if_due(self, runner: Runner) -> None:
        """Validate the epoch that was resumed from, if that did not happen."""
        loop = runner.train_loop
        last = runner.message_hub.runtime_info.get('validated_epoch')
        if (
            runner.val_loop is not None
            and isinstance(loop, EpochBasedTrainLoop)
            and runner.epoch >= loop.val_begin
            and runner.epoch % loop.val_interval == 0
            and last != runner.epoch
        ):
            runner.val_loop.run()

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:  # noqa: ARG002
        """Note, for a best checkpoint that is written next, what was validated."""
        runner.message_hub.update_info('validated_epoch', runner.epoch)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the sampler's state into the checkpoint."""
        sampler = train_sampler(runner)
        if hasattr(sampler, 'state_dict'):
            checkpoint['sampler'] = sampler.state_dict()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Restore it when a training run is resumed."""
        self._resumed = runner._resume
        if 'sampler' in checkpoint and runner._resume:
            sampler = train_sampler(runner)
            if hasattr(sampler, 'load_state_dict'):
                sampler.load_state_dict(checkpoint['sampler'])
