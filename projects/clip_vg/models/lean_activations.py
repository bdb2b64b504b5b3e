"""Activations that keep one tensor for the backward pass, where PyTorch keeps several.

They are wide: of ViT-B/16, a tensor for 14 images takes 34 MB in each of 12 blocks.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ['quick_gelu', 'relu_dropout']


class _QuickGELU(torch.autograd.Function):
    """x sigmoid(1.702 x), of which the sigmoid is computed again for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (1.702 * x).sigmoid_().mul_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        # It is silu(1.702 x) / 1.702, of which PyTorch has the derivative in one pass.
        return torch.ops.aten.silu_backward(grad, 1.702 * x)


class _ReLUDropout(torch.autograd.Function):
    """ReLU and dropout, of which the output tells where both let a value through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        ctx.scale = 1 / (1 - p) if p < 1 else 0.0
        out = F.dropout(F.relu(x), p, True, True)  # in training, in place
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        # Not `out > 0`: of a model that has diverged, NaN is not hidden.
        return (grad * ctx.scale).masked_fill_(out <= 0, 0.0), None


def quick_gelu(x: Tensor) -> Tensor:
    """Activation x sigmoid(1.702 x) of OpenAI's CLIP, the same to the bit."""
    if torch.is_grad_enabled() and x.requires_grad:
        return _QuickGELU.apply(x)
    return (1.702 * x).sigmoid_().mul_(x)


def relu_dropout(x: Tensor, p: float) -> Tensor:
    """ReLU, then dropout with probability ``p``; ``x`` may be changed in place."""
    if p and torch.is_grad_enabled() and x.requires_grad:
        return _ReLUDropout.apply(x, p)
    return F.dropout(F.relu(x, inplace=True), p, bool(p), True)
