"""A detector in two parts: what depends on a picture alone, and the rest."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models import CLIPVG
from ..models.fusion import FusionTokens, take_tokens

__all__ = ['GroundingStage', 'ImageStage', 'split_detector']

# Added to logits of attention. Not -inf, which no integer has.
_MASKED = -1e9


class SplitAttention(nn.Module):
    """Attention of open_clip with a matrix each for queries, keys and values.

    Its one matrix for all three is cut up at every call, and would be quantised as one.

    Args:
        attention (nn.Module): Of a tower of ours (see :func:`clip_config`).
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        self.projections = nn.ModuleList(
            _linear(weight, bias)
            for weight, bias in zip(
                attention.in_proj_weight.chunk(3),
                attention.in_proj_bias.chunk(3),
                strict=True,
            )
        )
        self.out_proj = attention.out_proj

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Update tokens (B, N, C); the mask is added to logits."""
        q, k, v = (
            projection(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection in self.projections
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict(dict(weight=weight, bias=bias))
    return linear


class ImageStage(nn.Module):
    """From normalised images to the tokens that the fusion begins with.

    Args:
        model (CLIPVG): Whose towers have :class:`SplitAttention`.
    """

    def __init__(self, model: CLIPVG) -> None:
        super().__init__()
        self.visual_encoder, self.fusion = model.visual_encoder, model.fusion

    def forward(self, images: Tensor, kept: Tensor) -> tuple[Tensor, ...]:
        """Encode images.

        Args:
            images (Tensor): Of shape (B, 3, H, W).
            kept (Tensor): Which of the class token (0) and the patches the fusion
                reads, of shape (B, K), int64; see :func:`kept_tokens`.

        Returns:
            tuple[Tensor, ...]: The members of :class:`FusionTokens`.
        """
        visual = take_tokens(self.visual_encoder(images), kept)
        return tuple(self.fusion.image_part(visual, kept))


class GroundingStage(nn.Module):
    """From expressions and the tokens of their pictures to boxes.

    Args:
        model (CLIPVG): Whose towers have :class:`SplitAttention`.
    """

    def __init__(self, model: CLIPVG) -> None:
        super().__init__()
        self.text_encoder, self.fusion = model.text_encoder, model.fusion
        self.bbox_head, self.confidence_head = model.bbox_head, model.confidence_head

    def forward(
        self,
        tokens: Tensor,
        pos: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        padding: Tensor,
        token_ids: Tensor,
        image_index: Tensor,
    ) -> tuple[Tensor, ...]:
        """Answer E expressions about B images.

        Args:
            tokens (Tensor): As :class:`ImageStage` gives it, like the next four, of
                shape (B, K, D).
            pos (Tensor): Positions.
            q (Tensor): Queries.
            k (Tensor): Keys.
            v (Tensor): Values.
            padding (Tensor): True where a token only fills up, of shape (B, K).
            token_ids (Tensor): Of shape (E, L), int64; 0 after the end.
            image_index (Tensor): The image of each expression, of shape (E, ), int64.

        Returns:
            tuple[Tensor, ...]: Boxes cxcywh in [0, 1] of the padded input, of shape
            (E, 4), and with a confidence head scores (E, ).
        """
        masked = torch.cat(
            [F.pad(token_ids == 0, (1, 0)), padding.index_select(0, image_index)], dim=1
        )
        reg_token = self.fusion.expression_part(
            FusionTokens(tokens, pos, q, k, v),
            self.text_encoder(token_ids),
            masked[:, None, None].to(tokens) * _MASKED,
            image_index,
        )
        boxes = self.bbox_head(reg_token)
        if self.confidence_head is None:
            return (boxes,)
        return boxes, self.confidence_head(reg_token)


def split_detector(model: CLIPVG) -> tuple[ImageStage, GroundingStage]:
    """Both parts of a detector, in float32 on the CPU and with weights of their own."""
    model = copy.deepcopy(model).float().cpu().eval().requires_grad_(False)
    towers = model.visual_encoder.vit, model.text_encoder.transformer
    for tower in towers:
        for block in tower.transformer.resblocks:
            block.attn = SplitAttention(block.attn)
    return ImageStage(model).eval(), GroundingStage(model).eval()
