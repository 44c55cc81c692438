"""Attention among two sets of tokens and the match token that reads both.

The sequence is laid out as [query; match token; database], so that "the query and the match token"
as well as "the match token and the database" are slices of it. What the released code writes as one
dense mask over all tokens is then three exact rectangular attention calls.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PairAttention(nn.Module):
    """Multi-head attention over [query; match token; database]; parameters are named as those of
    ``nn.MultiheadAttention``.

    Self-attention lets a descriptor see its own image and the match token, cross-attention the other
    image and the match token; the match token sees everything in both (AMES, ECCV 2024).
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"model_dim {dim} is not a multiple of nhead {heads}")
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, n: int, mask: Tensor | None, *, cross: bool) -> Tensor:
        """x: [B, N + 1 + M, d] with ``n`` = N; mask: bool [B, 1, 1, N + 1 + M], True = may be attended."""
        B, S, d = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        query, key, value = qkv.view(B, S, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)

        def attend(rows: slice, keys: slice) -> Tensor:  # [B, heads, rows, d / heads]
            return F.scaled_dot_product_attention(
                query[:, :, rows],
                key[:, :, keys],
                value[:, :, keys],
                None if mask is None else mask[..., keys],
            )

        with_query, with_database = slice(0, n + 1), slice(n, S)
        out = torch.cat(
            (
                attend(slice(0, n), with_database if cross else with_query),
                attend(slice(n, n + 1), slice(0, S)),
                attend(slice(n + 1, S), with_query if cross else with_database),
            ),
            dim=2,
        )
        return self.out_proj(out.transpose(1, 2).reshape(B, S, d))


class PairLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward, each with a residual; post-norm or pre-norm."""

    def __init__(self, dim: int, heads: int, dim_feedforward: int, activation: str, pre_norm: bool) -> None:
        super().__init__()
        self.self_attn = PairAttention(dim, heads)
        self.cross_attn = PairAttention(dim, heads)
        self.linear1 = nn.Linear(dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.activation_name = activation
        self.pre_norm = pre_norm

    def forward(self, x: Tensor, n: int, mask: Tensor | None) -> Tensor:
        """x: [B, N + 1 + M, d] -> the same shape."""
        if self.pre_norm:
            x = x + self.self_attn(self.norm1(x), n, mask, cross=False)
            x = x + self.cross_attn(self.norm2(x), n, mask, cross=True)
            return x + self._feed_forward(self.norm3(x))
        x = self.norm1(x + self.self_attn(x, n, mask, cross=False))
        x = self.norm2(x + self.cross_attn(x, n, mask, cross=True))
        return self.norm3(x + self._feed_forward(x))

    def _feed_forward(self, x: Tensor) -> Tensor:
        activation = F.relu if self.activation_name == "relu" else F.gelu
        return self.linear2(activation(self.linear1(x)))


class PairDecoder(nn.Module):
    """A stack of PairLayers; with pre-norm one more LayerNorm closes it."""

    def __init__(
        self, layers: int, dim: int, heads: int, dim_feedforward: int, activation: str, pre_norm: bool
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            PairLayer(dim, heads, dim_feedforward, activation, pre_norm) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim) if pre_norm else None

    @property
    def stack(self) -> list[PairLayer]:
        """The layers, first to last."""
        return cast(list[PairLayer], list(self.layers))

    def forward(self, x: Tensor, n: int, mask: Tensor | None) -> Tensor:
        """x: [B, N + 1 + M, d] -> the same shape."""
        for layer in self.stack:
            x = layer(x, n, mask)
        return x if self.norm is None else self.norm(x)
