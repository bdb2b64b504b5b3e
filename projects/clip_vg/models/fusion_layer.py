"""A layer of the fusion: attention over ready keys, then a feed-forward network."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ['FusionLayer']


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
        self.q_proj = nn.Linear(embed_dims, embed_dims)
        self.k_proj = nn.Linear(embed_dims, embed_dims)
        self.v_proj = nn.Linear(embed_dims, embed_dims)
        self.out_proj = nn.Linear(embed_dims, embed_dims)
        self.norm1 = nn.LayerNorm(embed_dims)
        self.linear1 = nn.Linear(embed_dims, feedforward_channels)
        self.linear2 = nn.Linear(feedforward_channels, embed_dims)
        self.norm2 = nn.LayerNorm(embed_dims)

    def init_weights(self) -> None:
        """Xavier, as the release: its q, k and v are one matrix of (3D, D)."""
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
        """Update the tokens that ask.

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
        return self._after_attention(tokens, mixed.transpose(1, 2).flatten(2))

    def answer(self, tokens: Tensor, pos: Tensor, attend: Tensor | None) -> Tensor:
        """Update the first token alone, in evaluation, without any key or value.

        A logit is a query times a matrix times a token: the query is multiplied with
        the matrix, instead of each token. Values are summed with weights that sum to
        1: the sum is multiplied, instead of each.

        Args:
            tokens (Tensor): Of shape (E, T, D).
            pos (Tensor): Their positions, of shape (E, T, D).
            attend (Tensor, optional): See :meth:`forward`.

        Returns:
            Tensor: Of shape (E, 1, D).
        """
        placed = tokens + pos
        query = self.q_proj(placed[:, :1])
        to_keys, to_values = self._matrices_of_heads()
        logits = F.linear(query, to_keys).unflatten(-1, (self.num_heads, -1)).squeeze(1)
        logits = logits @ placed.transpose(1, 2)
        if attend is not None:
            attend = attend[:, 0]
            logits = (
                logits.masked_fill(~attend, -torch.inf)
                if attend.dtype == torch.bool
                else logits + attend
            )
        sums = (logits.softmax(-1) @ tokens).flatten(1)
        mixed = F.linear(sums, to_values, self.v_proj.bias)
        return self._after_attention(tokens[:, :1], mixed[:, None])

    def _matrices_of_heads(self) -> tuple[Tensor, Tensor]:
        """From a query to tokens (heads D, D), and from their sums (D, heads D)."""
        width = self.q_proj.out_features // self.num_heads
        keys, values = self.k_proj.weight, self.v_proj.weight
        # Of shape (heads, D, 1): whether a channel is of the head.
        heads = torch.eye(self.num_heads, dtype=keys.dtype, device=keys.device)
        of_head = heads.repeat_interleave(width, dim=1)[..., None]
        to_keys, to_values = of_head * keys, of_head * values
        to_keys = to_keys.transpose(1, 2).flatten(0, 1) * width**-0.5
        return to_keys, to_values.transpose(0, 1).flatten(1)

    def _after_attention(self, tokens: Tensor, mixed: Tensor) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        mixed = self.out_proj(mixed)
        tokens = self.norm1(tokens + F.dropout(mixed, dropout, self.training))
        # In place, as no gradient needs what was there and new memory is slow.
        hidden = F.relu(self.linear1(tokens), inplace=True)
        hidden = self.linear2(F.dropout(hidden, dropout, self.training))
        return self.norm2(tokens + F.dropout(hidden, dropout, self.training))
