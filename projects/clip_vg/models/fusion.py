"""Fusion of CLIP's visual and text tokens around one or several ``[REG]`` tokens."""

from typing import NamedTuple

import torch
from mmdet.registry import MODELS
from mmdet.utils import OptMultiConfig
from mmengine.model import BaseModule, ModuleList
from open_clip.pos_embed import get_2d_sincos_pos_embed
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .lean_activations import relu_dropout

__all__ = [
    'FusionLayer',
    'FusionTokens',
    'VisionLanguageFusion',
    'gather_tokens',
    'valid_tokens',
]


class FusionTokens(NamedTuple):
    """Tokens ready for the first layer of the fusion.

    Attributes:
        tokens (Tensor): Of shape (B, K, D), as all that follow.
        pos (Tensor): Their positions.
        q (Tensor): Their queries of the first layer.
        k (Tensor): Their keys.
        v (Tensor): Their values.
    """

    tokens: Tensor
    pos: Tensor
    q: Tensor
    k: Tensor
    v: Tensor


class FusionLayer(BaseModule):
    """Post-norm transformer layer with positions on queries and keys (DETR).

    Keys and values come in already projected, so that what does not depend on
    the expression is projected once per image; queries may be fewer than keys.

    Args:
        embed_dims (int): Width D of the tokens.
        num_heads (int): Attention heads.
        feedforward_channels (int): Width of the feed-forward network.
        dropout (float): Dropout on attention weights and on every branch.
    """

    def __init__(
        self, embed_dims: int, num_heads: int, feedforward_channels: int, dropout: float
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        # Three matrices, one officially: the last layer needs the query of [REG] alone.
        self.q_proj = nn.Linear(embed_dims, embed_dims)
        self.k_proj = nn.Linear(embed_dims, embed_dims)
        self.v_proj = nn.Linear(embed_dims, embed_dims)
        self.out_proj = nn.Linear(embed_dims, embed_dims)
        self.norm1 = nn.LayerNorm(embed_dims)
        self.linear1 = nn.Linear(embed_dims, feedforward_channels)
        self.linear2 = nn.Linear(feedforward_channels, embed_dims)
        self.norm2 = nn.LayerNorm(embed_dims)

    def init_weights(self) -> None:
        """Initialise by Xavier, q, k and v as one matrix of (3D, D) as officially."""
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            nn.init.xavier_uniform_(projection.weight, gain=2**-0.5)
            nn.init.zeros_(projection.bias)
        for linear in (self.out_proj, self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(self.out_proj.bias)

    def project(self, tokens: Tensor, pos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of (..., N, D) tokens at (..., N, D) positions."""
        placed = tokens + pos
        return self.q_proj(placed), self.k_proj(placed), self.v_proj(tokens)

    def forward(
        self, tokens: Tensor, q: Tensor, k: Tensor, v: Tensor, attend: Tensor | None
    ) -> Tensor:
        """Update the tokens of the queries.

        Args:
            tokens (Tensor): Of shape (E, N, D), those the queries belong to.
            q (Tensor): Queries of shape (E, N, D).
            k (Tensor): Keys of shape (E, T, D).
            v (Tensor): Values of shape (E, T, D).
            attend (Tensor, optional): True where a key may be read, of shape
                (E, 1, 1, T).

        Returns:
            Tensor: Of shape (E, N, D).
        """
        dropout = self.dropout if self.training else 0.0
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in (q, k, v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attend, dropout)
        mixed = self.out_proj(mixed.transpose(1, 2).flatten(2))
        tokens = self.norm1(tokens + F.dropout(mixed, dropout, self.training))
        hidden = self.linear2(relu_dropout(self.linear1(tokens), dropout))
        return self.norm2(tokens + F.dropout(hidden, dropout, self.training))


@MODELS.register_module()
class VisionLanguageFusion(BaseModule):
    """Transformer encoder over ``[REG]``, text, ``[CLS]`` and patches.

    Its output is that of ``[REG]``, or of each of Q of them, as CLIP-VG has one and
    DETR many: each predicts a box of its own.

    The order of the sequence and of the learned positions is ``[REG]``, text,
    ``[CLS]``, patches (method, section 1). Two things are left out because they
    change nothing: tokens that no token may read (text pads, patches of the
    letterbox), and in the last layer every query but ``[REG]``. What depends on
    the image alone is computed once per image: the projection of the visual
    tokens, and their queries, keys and values of the first layer.

    Several ``[REG]`` tokens share the one position of ``[REG]`` and differ by their
    learned tokens: a place in the sequence would say nothing of a set, and so
    ``reg_token`` is the only weight whose shape depends on Q. The tokens of a
    checkpoint with fewer become the first of these, the others begin as initialised:
    equal ones would be equal for ever.

    Args:
        visual_channels (int): Width of the visual tokens.
        text_channels (int): Width of the text tokens.
        grid_size (tuple[int, int]): Rows and columns of patches.
        context_length (int): Longest text in tokens.
        num_queries (int): How many ``[REG]`` tokens, Q. Defaults to 1.
        class_token (bool): Whether a class token is before the patches. Defaults to
            True.
        embed_dims (int, optional): Width D of the fusion. Defaults to None: the
            text tokens' width, as in the paper.
        num_layers (int): Defaults to 6.
        num_heads (int): Defaults to 8.
        feedforward_channels (int): Defaults to 2048.
        dropout (float): Defaults to 0.1.
        pos_embed_init (str): How the learned positions start: 'normal', as in the
            official code, or 'sin_cos_2d' (patches by their row and column, which
            must be equally many; the rest near 0), for small models that have no
            time to learn them. Defaults to 'normal'.
        with_cp (bool): Whether activations are recomputed in the backward pass.
            Defaults to False.
        init_cfg (dict or list[dict], optional): Initialisation config. Defaults to
            None.

    Raises:
        ValueError: ``pos_embed_init`` is unknown, or the grid is no square; or there
            is no ``[REG]`` token.
    """

    def __init__(
        self,
        visual_channels: int,
        text_channels: int,
        grid_size: tuple[int, int],
        context_length: int,
        num_queries: int = 1,
        class_token: bool = True,
        embed_dims: int | None = None,
        num_layers: int = 6,
        num_heads: int = 8,
        feedforward_channels: int = 2048,
        dropout: float = 0.1,
        pos_embed_init: str = 'normal',
        with_cp: bool = False,
        init_cfg: OptMultiConfig = None,
    ) -> None:
        super().__init__(init_cfg)
        if pos_embed_init not in ('normal', 'sin_cos_2d') or (
            pos_embed_init == 'sin_cos_2d' and grid_size[0] != grid_size[1]
        ):
            raise ValueError(
                f'pos_embed_init={pos_embed_init!r} with a grid of {grid_size}; '
                "expected 'normal', or 'sin_cos_2d' with a square grid."
            )
        if num_queries < 1:
            raise ValueError(f'num_queries={num_queries}; expected 1 or more.')
        embed_dims = embed_dims or text_channels
        self.embed_dims = embed_dims
        self.context_length = context_length
        self.with_cp = with_cp
        self.visual_proj = nn.Linear(visual_channels, embed_dims)
        self.text_proj = nn.Linear(text_channels, embed_dims)
        self.num_queries = num_queries
        self.reg_token = nn.Embedding(num_queries, embed_dims)
        num_patches = grid_size[0] * grid_size[1]
        self.class_token = class_token
        num_tokens = 1 + context_length + class_token + num_patches  # 1 for [REG]
        self.pos_embed = nn.Embedding(num_tokens, embed_dims)
        self.grid_size = grid_size
        self.pos_embed_init = pos_embed_init
        self.layers = ModuleList(
            [
                FusionLayer(embed_dims, num_heads, feedforward_channels, dropout)
                for _ in range(num_layers)
            ]
        )

    def init_weights(self) -> None:
        """Initialise the layers and the sine positions, then apply ``init_cfg``."""
        if not self.is_init:
            self.layers.init_weights()
            if self.pos_embed_init == 'sin_cos_2d':
                waves = get_2d_sincos_pos_embed(self.embed_dims, self.grid_size[0])
                nn.init.normal_(self.pos_embed.weight, std=0.02)
                with torch.no_grad():
                    self.pos_embed.weight[-len(waves) :] += torch.from_numpy(waves)
        # Last, because `init_cfg` may load the weights.
        super().init_weights()

    def forward(
        self,
        visual: Tensor,
        patch_padding: Tensor,
        text: Tensor,
        text_padding: Tensor,
        image_index: Tensor,
    ) -> Tensor:
        """Fuse E expressions with the B images they belong to.

        Args:
            visual (Tensor): Class token, if there is one, and patches, of shape
                (B, 1 + P, Cv) or (B, P, Cv).
            patch_padding (Tensor): True where a patch is padding, of shape
                (B, P). Where this and ``text_padding`` are on the CPU, the host does
                not wait for the device of the tokens.
            text (Tensor): Text tokens of shape (E, L, Ct).
            text_padding (Tensor): True where a text token is padding, (E, L).
            image_index (Tensor): The image of each expression, of shape (E, ).

        Returns:
            Tensor: The ``[REG]`` tokens, of shape (E * Q, D), those of an expression
            together.
        """
        counts = (~patch_padding).sum(1)
        most, least = int(counts.max()), int(counts.min())
        has_padding = bool(text_padding.any())
        patch_padding, text_padding = (
            mask.to(visual.device, non_blocking=True)
            for mask in (patch_padding, text_padding)
        )
        valid, visual_padding = valid_tokens(
            patch_padding, self.class_token + most, self.class_token
        )
        image = self.image_part(gather_tokens(visual, valid), valid)
        padding = torch.cat(
            [
                F.pad(text_padding, (self.num_queries, 0)),
                visual_padding[image_index],
            ],
            dim=1,
        )
        attend = ~padding[:, None, None] if has_padding or least < most else None
        return self.expression_part(image, text, attend, image_index)

    def image_part(self, visual: Tensor, valid: Tensor) -> FusionTokens:
        """Prepare what depends on the images alone.

        Args:
            visual (Tensor): Visual tokens of shape (B, K, Cv).
            valid (Tensor): Which of the class token (0) and the patches they are, or of
                the patches alone, of shape (B, K), int64.

        Returns:
            FusionTokens: The K tokens of each image.
        """
        tokens = self.visual_proj(visual)
        pos = self.pos_embed(valid + 1 + self.context_length)
        return FusionTokens(tokens, pos, *self.layers[0].project(tokens, pos))

    def expression_part(
        self,
        image: FusionTokens,
        text: Tensor,
        attend: Tensor | None,
        image_index: Tensor,
    ) -> Tensor:
        """Fuse E expressions with the images they belong to.

        Args:
            image (FusionTokens): Of B images.
            text (Tensor): Text tokens of shape (E, L, Ct).
            attend (Tensor, optional): Of shape (E, 1, 1, Q + L + K): True where
                [REG], the text and the visual tokens may be read, or what is added
                to the logits of attention. Defaults to None: all are read.
            image_index (Tensor): The image of each expression, of shape (E, ).

        Returns:
            Tensor: The ``[REG]`` tokens, of shape (E * Q, D), those of an expression
            together.
        """
        length, queries = text.shape[1], self.num_queries
        reg = self.reg_token.weight.expand(text.shape[0], -1, -1)
        query = torch.cat([reg, self.text_proj(text)], dim=1)
        positions = self.pos_embed.weight
        query_pos = torch.cat(
            [positions[:1].expand(queries, -1), positions[1 : 1 + length]]
        )
        own = FusionTokens(
            query,
            query_pos.expand(text.shape[0], -1, -1),
            *self.layers[0].project(query, query_pos),
        )
        tokens, pos, q, k, v = (
            torch.cat([mine, shared.index_select(0, image_index)], dim=1)
            for mine, shared in zip(own, image, strict=True)
        )
        for index, layer in enumerate(self.layers[:-1]):
            # Those of the first layer are projected once per image.
            if index:
                q, k, v = layer.project(tokens, pos)
            tokens = self._run_layer(layer, tokens, q, k, v, attend)
        # Nothing reads the last layer's output but that of [REG], the only queries;
        # keys and values are of all tokens.
        last, placed = self.layers[-1], tokens + pos
        q = last.q_proj(placed[:, :queries])
        k, v = last.k_proj(placed), last.v_proj(tokens)
        return self._run_layer(last, tokens[:, :queries], q, k, v, attend).flatten(0, 1)

    def _run_layer(self, layer: FusionLayer, *args: Tensor | None) -> Tensor:
        if self.with_cp and self.training:
            return checkpoint(layer, *args, use_reentrant=False)
        return layer(*args)


def valid_tokens(
    patch_padding: Tensor, count: int | None = None, class_token: bool = True
) -> tuple[Tensor, Tensor]:
    """Indices of the class token and of the patches that are no padding.

    Patches of the letterbox are left out; K is the most that an image of the batch
    has, and the others are filled up with masked ones.

    Args:
        patch_padding (Tensor): True where a patch is padding, of shape (B, P).
        count (int, optional): K, if it is known. Defaults to None: read from the
            padding, for which the host waits.
        class_token (bool): Whether one is before the patches. Defaults to True.

    Returns:
        tuple[Tensor, Tensor]: Numbers of tokens, 0 the class token or the first patch,
        of shape (B, K), int64; and which of them are padding, bool.
    """
    # The class token is always valid.
    padding = F.pad(patch_padding, (1, 0)) if class_token else patch_padding
    if count is None:
        count = int((~padding).sum(1).max())
    # Stable: patches stay in the order of the grid.
    valid = padding.to(torch.uint8).argsort(dim=1, stable=True)[:, :count]
    return valid, padding.gather(1, valid)


def gather_tokens(tokens: Tensor, indices: Tensor) -> Tensor:
    """Tokens (B, K, C) of (B, N, C), by their indices (B, K)."""
    # `gather` would need an index for each of the C channels.
    first = torch.arange(tokens.shape[0], device=tokens.device) * tokens.shape[1]
    rows = (indices + first[:, None]).flatten()
    return tokens.flatten(0, 1).index_select(0, rows).unflatten(0, indices.shape)
