"""What the two towers of CLIP share: weights, freezing, eval mode."""

from collections.abc import Callable
from typing import Any

import torch
from mmengine.model import BaseModule
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = [
    'CLIPTower',
    'LeanQuickGELU',
    'freeze',
    'init_blocks',
    'run_block',
    'use_lean_activations',
]


def freeze(module: nn.Module) -> None:
    """Train none of the weights."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def init_blocks(blocks: nn.ModuleList) -> None:
    """Initialise transformer blocks as OpenAI's CLIP does (its text tower)."""
    depth = len(blocks)
    block: Any
    for block in blocks:
        width = block.attn.out_proj.in_features
        nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
        nn.init.normal_(block.attn.out_proj.weight, std=(2 * depth * width) ** -0.5)
        nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
        nn.init.normal_(block.mlp.c_proj.weight, std=(2 * depth * width) ** -0.5)


class LeanQuickGELU(nn.Module):
    """open_clip's QuickGELU, the same to the bit, with one new tensor and not three."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x sigmoid(1.702 x)."""
        gate = 1.702 * x
        if gate.requires_grad:
            return x * torch.sigmoid(gate)
        return gate.sigmoid_().mul_(x)


def use_lean_activations(blocks: nn.ModuleList) -> None:
    """Replace the QuickGELU of open_clip's blocks."""
    block: Any
    for block in blocks:
        if isinstance(block.mlp.gelu, QuickGELU):
            block.mlp.gelu = LeanQuickGELU()


def run_block(module: Callable[..., Tensor], x: Tensor, with_cp: bool) -> Tensor:
    """A block's output; with ``with_cp`` recomputed in the backward pass."""
    if with_cp and x.requires_grad:
        return checkpoint(module, x, use_reentrant=False)
    return module(x)


class CLIPTower(BaseModule):
    """What both towers share: weights, freezing, eval mode.

    Args:
        frozen (bool): Whether no weight is trained, and the tower stays in eval
            mode.
        with_cp (bool): Whether activations are recomputed in the backward pass.
    """

    def __init__(self, frozen: bool, with_cp: bool) -> None:
        super().__init__()
        self.frozen = frozen
        self.with_cp = with_cp

    def train(self, mode: bool = True) -> 'CLIPTower':
        """Stay in eval mode while frozen."""
        return super().train(mode and not self.frozen)
