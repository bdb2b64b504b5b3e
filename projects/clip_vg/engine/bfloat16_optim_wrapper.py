"""Mixed precision in bfloat16, on a CPU too."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmdet.registry import OPTIM_WRAPPERS
from mmengine.optim import OptimWrapper
from mmengine.runner.amp import autocast
from torch import nn

__all__ = ['BFloat16OptimWrapper']


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Forward under autocast to bfloat16; weights and gradients stay float32.

    bfloat16 has float32's range, so losses need no scaling. MMEngine's
    ``AmpOptimWrapper`` refuses to run on a CPU.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast, and what gradient accumulation needs."""
        # The base class's context stops processes from exchanging gradients that are
        # still being summed up.
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield
