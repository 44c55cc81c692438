"""A transformer encoder over one sequence, of which only the first token is read in the end."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ames.models.layers.attention import PairAttention, ResidualLayer, attend


class EncoderLayer(ResidualLayer):
    """Self-attention of all tokens and feed-forward, each with a residual; post-norm or pre-norm.

    Parameters are named as those of ``nn.TransformerEncoderLayer``.
    """

    def __init__(self, dim: int, heads: int, dim_feedforward: int, activation: str, pre_norm: bool) -> None:
        super().__init__()
        self.self_attn = PairAttention(dim, heads)  # for its projections: here every token sees all others
        self.linear1 = nn.Linear(dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.feed_forward_dtype = torch.float32
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.activation_name = activation
        self.pre_norm = pre_norm

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x: [B, S, d], mask: bool [B, 1, 1, S], True = may be attended, or None -> [B, S, d]."""
        query, key, value = self.self_attn.project(self._before(self.norm1, x))
        x = self._after(self.norm1, x, self.self_attn.merge(attend(query, key, value, mask)))
        return self._feed_forward(self.norm2, x)

    def first(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the first token of ``forward``, without the others: [B, d]."""
        before = self._before(self.norm1, x)
        token = self._after(self.norm1, x[:, 0], self.self_attn.read(before[:, 0], before, mask))
        return self._feed_forward(self.norm2, token)


class Encoder(nn.Module):
    """A stack of EncoderLayers; with pre-norm one more LayerNorm at the end."""

    def __init__(
        self, layers: int, dim: int, heads: int, dim_feedforward: int, activation: str, pre_norm: bool
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(dim, heads, dim_feedforward, activation, pre_norm) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim) if pre_norm else None

    @property
    def stack(self) -> list[EncoderLayer]:
        """The layers, first to last."""
        return cast(list[EncoderLayer], list(self.layers))

    def first(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the first token after all layers, [B, d]; the last layer computes no other.

        x: [B, S, d], mask: bool [B, 1, 1, S], True = may be attended, or None.
        """
        *before, last = self.stack
        for layer in before:
            x = layer(x, mask)
        token = last.first(x, mask)
        return token if self.norm is None else self.norm(token)

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """Compute products in another float format, in place; int8 changes nothing.

        Tokens, residuals and norms keep theirs. So does the last layer, which concerns one token alone.
        """
        if dtype.is_floating_point:
            for layer in self.stack[:-1]:
                layer.feed_forward_dtype = dtype
                for part in (layer.self_attn, layer.linear1, layer.linear2):
                    part.to(dtype)
