"""PyTorch's own compiler on a detector for inference."""

import os
import shutil
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import nn

from ..models import CLIPVG

__all__ = ['compile_for_inference']

# Those that PyTorch's compiler tries, after the variable CXX.
_COMPILERS = ('g++', 'c++', 'clang++', 'cl')


def compile_for_inference(model: nn.Module) -> None:
    """Let a detector's towers and fusion be compiled at the first inference.

    Weights become constants, so that they can be laid out for the processor: load
    them before. Batches of any size share one compilation, but for those of a single
    image or expression, which have their own. Predictions differ by rounding.

    Args:
        model (CLIPVG): In eval mode, with its weights; it is changed.

    Raises:
        RuntimeError: There is no C++ compiler.
        ValueError: It is another model.
    """
    if not isinstance(model, CLIPVG):
        raise ValueError(f'{type(model).__name__} cannot be compiled, only a CLIPVG.')
    if not any(map(shutil.which, (os.environ.get('CXX', ''), *_COMPILERS))):
        raise RuntimeError(
            'Compiling needs a C++ compiler, and there is none; on Debian: '
            'apt-get install g++.'
        )
    for module, name in (
        (model.visual_encoder, 'forward'),
        (model.text_encoder, 'forward'),
        # Not its `forward`, whose shapes depend on values of the padding.
        (model.fusion, 'expression_part'),
    ):
        setattr(module, name, _frozen(getattr(module, name)))


def _frozen(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled, with its module's weights as constants."""
    import torch._inductor.config as inductor  # takes a second

    compiled = torch.compile(function, dynamic=True)

    @wraps(function)
    def call(*args: Any) -> Any:
        with inductor.patch(freezing=True), torch.no_grad():
            return compiled(*args)

    return call
