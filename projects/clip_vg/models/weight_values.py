"""Weights that are no real, finite numbers are refused wherever they are loaded."""

from collections.abc import Mapping

from torch import Tensor

__all__ = ['refuse_broken_weights']


def refuse_broken_weights(weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that are no real, finite numbers.

    Args:
        weights (Mapping[str, Tensor]): Weights that a model has as real numbers.

    Raises:
        ValueError: One is of integers or complex, or has NaN or infinite values.
    """
    for name, value in weights.items():
        if not value.is_floating_point():
            raise ValueError(
                f'state_dict, {name!r}: expected real numbers, found {value.dtype}.'
            )
        if not value.isfinite().all():
            raise ValueError(
                f'state_dict, {name!r}: it has NaN or infinite values; the training '
                'that wrote it was broken.'
            )
