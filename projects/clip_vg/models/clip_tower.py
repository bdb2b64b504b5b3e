"""What the two towers of CLIP share: weights, freezing, eval mode."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmdet.utils import OptMultiConfig
from mmengine.model import BaseModule
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .clip_config import clip_config
from .clip_weights import fit_positions, load_clip_tower

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

    The constructor builds; CLIP's weights are loaded by :meth:`init_weights`, or when
    a checkpoint is loaded that was saved without them. Positions of a checkpoint of
    another image size or context length are interpolated.

    Args:
        arch (str or dict): See :func:`clip_config`.
        pretrained (str, optional): A tag of open_clip or a local file; None: random
            weights.
        frozen (bool): Whether no weight is trained, and the tower stays in eval
            mode.
        with_cp (bool): Whether activations are recomputed in the backward pass.
        init_cfg (dict or list[dict], optional): Initialisation config, which is
            applied after ``pretrained``. Defaults to None.
    """

    # 'visual' or 'text', and the attribute that holds open_clip's tower.
    kind: str
    net_name: str

    def __init__(
        self,
        arch: str | dict,
        pretrained: str | None,
        frozen: bool,
        with_cp: bool,
        init_cfg: OptMultiConfig = None,
    ) -> None:
        super().__init__(init_cfg)
        self.arch, self.pretrained = arch, pretrained
        self.config = clip_config(arch)
        self.frozen = frozen
        self.with_cp = with_cp
        self._has_pretrained = False
        self.frozen_names: list[str] = []

    def freeze_clip(self, trained: Sequence[str] = ()) -> None:
        """Train none of CLIP's weights, if the tower is frozen.

        Args:
            trained (Sequence[str]): Names of those that are trained all the same.
                Defaults to ().
        """
        net = getattr(self, self.net_name)
        if self.frozen:
            freeze(net)
        for name in trained:
            net.get_parameter(name).requires_grad_(True)
        self.frozen_names = [
            f'{self.net_name}.{name}'
            for name, parameter in net.named_parameters()
            if not parameter.requires_grad
        ]

    def init_weights(self) -> None:
        """Load CLIP's weights."""
        self.load_pretrained()
        super().init_weights()

    def load_pretrained(self) -> None:
        """Load the weights that ``pretrained`` names, unless that is done.

        Raises:
            ValueError: They cannot be had, or do not fit.
        """
        if self.pretrained is not None and not self._has_pretrained:
            net = getattr(self, self.net_name)
            load_clip_tower(net, self.kind, self.arch, self.config, self.pretrained)
            self._has_pretrained = True

    def train(self, mode: bool = True) -> 'CLIPTower':
        """Stay in eval mode while frozen."""
        return super().train(mode and not self.frozen)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        """Fit the positions of a checkpoint."""
        name = f'{prefix}{self.net_name}.positional_embedding'
        if name in state_dict:
            net = getattr(self, self.net_name)
            state_dict[name] = fit_positions(self.kind, state_dict[name], net, name)
        super()._load_from_state_dict(state_dict, prefix, *args)
