"""The published way of computing CLIP-VG, slow and plain, on a model's weights.

One image for each expression; all context tokens, pads included; every token through
every layer of the fusion; ``nn.MultiheadAttention`` with a padding mask. Benchmarks
compare with it, and tests check the fast path against it.
"""

from collections.abc import Sequence

import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.nn import functional as F

from projects.clip_vg.models import CLIPVG
from projects.clip_vg.models.clip_blocks import LeanQuickGELU

__all__ = ['PublishedPath']


def _attention(
    weight: Tensor, bias: Tensor, out_proj: nn.Linear, heads: int
) -> nn.MultiheadAttention:
    module = nn.MultiheadAttention(out_proj.in_features, heads, batch_first=True)
    trained = out_proj.weight.requires_grad
    module.in_proj_weight = nn.Parameter(weight, requires_grad=trained)
    module.in_proj_bias = nn.Parameter(bias, requires_grad=trained)
    module.out_proj = out_proj
    return module


class _ClipBlock(nn.Module):
    """A residual block of CLIP."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        own = block.attn
        self.attn = _attention(
            own.in_proj_weight.detach(),
            own.in_proj_bias.detach(),
            own.out_proj,
            own.num_heads,
        )
        self.block = block
        act = block.mlp.gelu
        self.act = QuickGELU() if isinstance(act, LeanQuickGELU) else act

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        normed = self.block.ln_1(x)
        x = x + self.attn(normed, normed, normed, attn_mask=mask, need_weights=False)[0]
        mlp = self.block.mlp
        return x + mlp.c_proj(self.act(mlp.c_fc(self.block.ln_2(x))))


class _FusionLayer(nn.Module):
    """A post-norm layer of DETR's encoder."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        projections = layer.q_proj, layer.k_proj, layer.v_proj
        self.attn = _attention(
            torch.cat([part.weight.detach() for part in projections]),
            torch.cat([part.bias.detach() for part in projections]),
            layer.out_proj,
            layer.num_heads,
        )
        self.layer = layer
        self.dropout = layer.dropout

    def forward(self, x: Tensor, pos: Tensor, padding: Tensor) -> Tensor:
        layer, placed = self.layer, x + pos
        self.attn.dropout = self.dropout
        mixed = self.attn(placed, placed, x, key_padding_mask=padding)[0]
        x = layer.norm1(x + F.dropout(mixed, self.dropout, self.training))
        hidden = F.dropout(F.relu(layer.linear1(x)), self.dropout, self.training)
        hidden = F.dropout(layer.linear2(hidden), self.dropout, self.training)
        return layer.norm2(x + hidden)


class PublishedPath(nn.Module):
    """CLIP-VG as in the official code, on the weights of one of our models.

    Args:
        model (CLIPVG): Shares its weights, but for those of attention, whose three
            projections are one matrix here.
    """

    def __init__(self, model: CLIPVG) -> None:
        super().__init__()
        self.vit = model.visual_encoder.vit
        self.extract_layers = model.visual_encoder.extract_layers
        self.tower = model.text_encoder.transformer
        self.tokenizer = model.text_encoder.tokenizer
        self.fusion, self.head = model.fusion, model.bbox_head
        self.visual_blocks = nn.ModuleList(
            _ClipBlock(block) for block in self.vit.transformer.resblocks
        )
        self.text_blocks = nn.ModuleList(
            _ClipBlock(block) for block in self.tower.transformer.resblocks
        )
        self.layers = nn.ModuleList(_FusionLayer(layer) for layer in self.fusion.layers)

    def visual_tokens(self, images: Tensor) -> Tensor:
        """Tokens (B, 1 + P, C) of normalised images (B, 3, H, W)."""
        x = self.vit.conv1(images).flatten(2).transpose(1, 2)
        start = self.vit.class_embedding.expand(len(x), 1, -1)
        x = self.vit.ln_pre(torch.cat([start, x], 1) + self.vit.positional_embedding)
        kept = []
        for index, block in enumerate(self.visual_blocks):
            x = block(x)
            if index in self.extract_layers:
                kept.append(x)
        return torch.cat(kept, -1)

    def text_tokens(self, ids: Tensor) -> Tensor:
        """Tokens (B, 77, C) of token ids (B, 77)."""
        x = self.tower.token_embedding(ids) + self.tower.positional_embedding
        mask = x.new_full((ids.shape[1],) * 2, float('-inf')).triu(1)
        for block in self.text_blocks:
            x = block(x, mask)
        return self.tower.ln_final(x) @ self.tower.text_projection

    def reg_token(
        self, images: Tensor, patch_padding: Tensor, expressions: Sequence[str]
    ) -> Tensor:
        """Fused ``[REG]`` tokens (B, D) of B pairs; see :meth:`forward`."""
        ids = self.tokenizer(list(expressions)).to(images.device)
        visual = self.fusion.visual_proj(self.visual_tokens(images))
        text = self.fusion.text_proj(self.text_tokens(ids))
        reg = self.fusion.reg_token.weight.expand(len(ids), -1, -1)
        x = torch.cat([reg, text, visual], 1)
        nothing = torch.zeros(len(ids), 1, dtype=torch.bool, device=images.device)
        padding = torch.cat([nothing, ids == 0, nothing, patch_padding], 1)
        pos = self.fusion.pos_embed.weight[None]
        for layer in self.layers:
            x = layer(x, pos, padding)
        return x[:, 0]

    def forward(
        self, images: Tensor, patch_padding: Tensor, expressions: Sequence[str]
    ) -> Tensor:
        """Predict the boxes of B pairs of an image and an expression.

        Args:
            images (Tensor): Normalised, of shape (B, 3, H, W).
            patch_padding (Tensor): True where a patch is padding, (B, P).
            expressions (Sequence[str]): B expressions.

        Returns:
            Tensor: Boxes cxcywh in [0, 1] of the padded input, of shape (B, 4).
        """
        return self.head(self.reg_token(images, patch_padding, expressions))
