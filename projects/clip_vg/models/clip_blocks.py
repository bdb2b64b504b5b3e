"""Blocks of open_clip's transformers: their initialisation, activation and running."""

from collections.abc import Callable
from typing import Any

from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .lean_activations import quick_gelu

__all__ = ['LeanQuickGELU', 'init_blocks', 'run_block', 'use_lean_activations']


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
        return quick_gelu(x)


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
