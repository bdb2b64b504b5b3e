"""Checkpoints that hold what was trained, not CLIP's 150 million frozen weights."""

from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor

from ..checkpoints.frozen_weights import (
    FINGERPRINT,
    fingerprint,
    left_out_names,
    without_frozen,
)

__all__ = ['SlimCheckpointHook']


@HOOKS.register_module()
class SlimCheckpointHook(Hook):
    """Leave CLIP's frozen weights out of checkpoints; their sha256 stands for them.

    With such a checkpoint, a :obj:`CLIPVG` loads the CLIP of its ``pretrained``, unless
    it has, and refuses the checkpoint if it is another. Switched on by
    ``default_hooks = dict(slim=dict(type='SlimCheckpointHook'))``.
    """

    # After the EMAHook, which changes the checkpoint too.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._known: tuple[list[str], Tensor] | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take the frozen weights out of the model's and the averaged weights."""
        model: Any = runner.model
        model = model.module if is_model_wrapper(model) else model
        if self._known is None:  # hashed once: they never change
            names = left_out_names(model)
            self._known = names, fingerprint(model.state_dict(), names)
        names, sha256 = self._known
        state = checkpoint['state_dict']
        checkpoint['state_dict'] = {
            **without_frozen(state, names),
            FINGERPRINT: sha256,
        }
        if 'ema_state_dict' in checkpoint:
            averaged = without_frozen(
                checkpoint['ema_state_dict'], [f'module.{name}' for name in names]
            )
            averaged[f'module.{FINGERPRINT}'] = sha256
            checkpoint['ema_state_dict'] = averaged
