"""Matrix products in TF32 or bfloat16 during a run."""

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

__all__ = ['MatmulPrecisionHook']

_PRECISIONS = ('highest', 'high', 'medium')


@HOOKS.register_module()
class MatmulPrecisionHook(Hook):
    """Compute products of float32 matrices faster and less precisely during a run.

    By ``torch.set_float32_matmul_precision``: 'high' is TF32, with 10 bits of mantissa,
    on Nvidia GPUs from Ampere on; 'medium' is bfloat16 on CPUs with AMX. PyTorch 1.9,
    which the official code pins, had TF32 by default. Weights, sums and everything but
    matrix products stay float32.

    Args:
        precision (str): 'highest', 'high' or 'medium'. Defaults to 'high'.

    Raises:
        ValueError: The precision is none of these.
    """

    priority = 'VERY_HIGH'

    def __init__(self, precision: str = 'high') -> None:
        if precision not in _PRECISIONS:
            raise ValueError(
                f'MatmulPrecisionHook: precision={precision!r}; expected one of '
                f'{_PRECISIONS}.'
            )
        self.precision = precision
        self._before = 'highest'

    def before_run(self, runner: Runner) -> None:  # noqa: ARG002
        """Set the precision, which is of the whole process."""
        self._before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(self.precision)

    def after_run(self, runner: Runner) -> None:  # noqa: ARG002
        """Set the precision that was there before."""
        torch.set_float32_matmul_precision(self._before)
