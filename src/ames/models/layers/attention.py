"""Attention of two sets of tokens and the match token, which reads both.

The sequence is [query; match token; database], so that "query and match token" and "match token and database"
are slices. The dense mask of the released code is then three exact rectangular attention calls.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ames.models.layers.int8 import Int8Linear

# Up to this many scores per head the CPU is faster without the fused kernel, whose calls are costly; in half
# precision it always is (docs/performance.md).
_SMALL = 256 * 256


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention: query [B, h, n, e], key and value [B, h, m, e] -> [B, h, n, e].

    mask: bool [B, 1, 1, m], True = may be attended, or None.
    """
    B, h, n, e = query.shape
    small = n * key.shape[2] <= _SMALL or query.dtype != torch.float32
    if torch.is_grad_enabled() or query.device.type != "cpu" or not small:
        return F.scaled_dot_product_attention(query, key, value, mask)
    keys = key.reshape(B * h, -1, e).transpose(1, 2)
    unread = query.new_empty(1, 1, 1)  # with beta = 0
    scores = torch.baddbmm(unread, query.reshape(B * h, n, e), keys, beta=0, alpha=e**-0.5)
    if mask is not None:
        scores.view(B, h, n, -1).masked_fill_(~mask, float("-inf"))
    return torch.bmm(torch.softmax(scores, -1), value.reshape(B * h, -1, e)).view(B, h, n, e)


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
        S = x.shape[1]
        query, key, value = self.project(x)

        def part(rows: slice, keys: slice) -> Tensor:  # [B, heads, rows, d / heads]
            seen = None if mask is None else mask[..., keys]
            return attend(query[:, :, rows], key[:, :, keys], value[:, :, keys], seen)

        with_query, with_database = slice(0, n + 1), slice(n, S)
        return self.merge(
            part(slice(0, n), with_database if cross else with_query),
            part(slice(n, n + 1), slice(0, S)),
            part(slice(n + 1, S), with_query if cross else with_database),
        )

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of tokens [B, S, d], each [B, heads, S, d / heads]."""
        B, S, d = x.shape
        qkv = F.linear(x.to(self.in_proj_weight.dtype), self.in_proj_weight, self.in_proj_bias)
        query, key, value = qkv.view(B, S, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        return query, key, value

    def merge(self, *parts: Tensor) -> Tensor:
        """Concatenate attended values [B, heads, rows, d / heads] -> [B, all rows, d]."""
        joined = torch.cat([part.transpose(1, 2) for part in parts], dim=1)
        return self.out_proj(joined.flatten(2))

    def within(self, x: Tensor, token: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Self-attention of one image x [I, N, d] and the match token [d].

        mask: bool [I, 1, 1, N + 1] or None. Returns the output of the descriptors, [I, N, d], and the share
        of the image in the token's output, float32 [I, heads + d]: the log of the sum of its exponentials,
        then its mean of the values.
        """
        N = x.shape[1]
        query, key, value = self.project(torch.cat((x, token.expand(len(x), 1, -1)), 1))
        read = self.merge(attend(query[:, :, :N], key, value, mask))
        scores = _scores(query[:, :, N:], key[:, :, :N])  # [I, heads, 1, N]
        if mask is not None:
            scores = scores.masked_fill(~mask[..., :N], float("-inf"))
        total = scores.logsumexp(-1, keepdim=True)
        # An image without descriptors has no mean; its weight will be exp(-inf) = 0.
        weight = torch.where(total.isinf(), 0.0, (scores - total).exp())
        mean = weight @ value[:, :, :N].float()
        return read, torch.cat((total.flatten(1), mean.flatten(1)), 1)

    def join(self, token: Tensor, *summaries: Tensor) -> Tensor:
        """Return the output of the match token [d], [P, d], from images' shares float32 [P, heads + d]
        (``within``) and the token itself.
        """
        query, key, value = self.project(token.view(1, 1, -1))
        shares = torch.stack(summaries, 1)  # [P, images, heads + d]
        P = len(shares)
        own = _scores(query, key).view(1, 1, self.heads).expand(P, 1, -1)
        weight = torch.softmax(torch.cat((shares[..., : self.heads], own), 1), 1)  # [P, images + 1, heads]
        means = shares[..., self.heads :].unflatten(-1, (self.heads, -1))
        means = torch.cat((means, value.float().view(1, 1, self.heads, -1).expand(P, -1, -1, -1)), 1)
        mean = (weight.unsqueeze(-1) * means).sum(1).flatten(1)
        return self.out_proj(mean.to(query.dtype))

    def read(self, token: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the output of the match token [B, d] over all tokens x [B, S, d], as in ``forward``: [B, d].

        Keys and values of x are never computed: the query meets all keys in one product with the projection
        (their bias adds the same to every score and changes nothing), and values are projected after they
        are averaged.
        """
        weight = self.in_proj_weight.view(3, self.heads, -1, token.shape[1])
        bias = self.in_proj_bias.view(3, self.heads, -1)
        query = torch.einsum("bd,hed->bhe", token, weight[0]) + bias[0]
        towards = torch.einsum("bhe,hed->bhd", query * query.shape[-1] ** -0.5, weight[1])
        scores = towards @ x.transpose(1, 2)  # [B, heads, S]
        if mask is not None:
            scores = scores.masked_fill(~mask[:, 0], float("-inf"))
        mean = torch.softmax(scores, -1) @ x  # [B, heads, d]
        return self.out_proj((torch.einsum("bhd,hed->bhe", mean, weight[2]) + bias[2]).flatten(1))


def _scores(query: Tensor, key: Tensor) -> Tensor:
    """Scaled products float32: query [B, h, n, e], key [B, h, m, e] -> [B, h, n, m]."""
    return (query.float() * query.shape[-1] ** -0.5) @ key.float().transpose(-1, -2)


class ResidualLayer(nn.Module):
    """What layers share: a residual around each part, with a norm before (pre-norm) or after it."""

    linear1: nn.Linear
    linear2: nn.Linear
    feed_forward_dtype: torch.dtype  # of what enters it
    activation_name: str
    pre_norm: bool

    def _before(self, norm: nn.Module, x: Tensor) -> Tensor:
        return norm(x) if self.pre_norm else x

    def _after(self, norm: nn.Module, x: Tensor, read: Tensor) -> Tensor:
        # ``read`` is new memory that nothing else uses: the sum is in place if the format allows.
        total = read.add_(x) if read.dtype == x.dtype else x + read
        return total if self.pre_norm else norm(total)

    def _feed_forward(self, norm: nn.Module, x: Tensor) -> Tensor:
        hidden = self.linear1(self._before(norm, x).to(self.feed_forward_dtype))
        hidden = hidden.relu_() if self.activation_name == "relu" else F.gelu(hidden)
        return self._after(norm, x, self.linear2(hidden))


class PairLayer(ResidualLayer):
    """Self-attention, cross-attention and feed-forward, each with a residual; post-norm or pre-norm."""

    def __init__(self, dim: int, heads: int, dim_feedforward: int, activation: str, pre_norm: bool) -> None:
        super().__init__()
        self.self_attn = PairAttention(dim, heads)
        self.cross_attn = PairAttention(dim, heads)
        self.linear1 = nn.Linear(dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.feed_forward_dtype = torch.float32
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.activation_name = activation
        self.pre_norm = pre_norm

    def forward(self, x: Tensor, n: int, mask: Tensor | None) -> Tensor:
        """x: [B, N + 1 + M, d] -> the same shape."""
        return self.across(self.within_pair(x, n, mask), n, mask)

    def within_pair(self, x: Tensor, n: int, mask: Tensor | None) -> Tensor:
        """Self-attention of both images; x: [B, N + 1 + M, d] -> the same shape."""
        return self._after(self.norm1, x, self.self_attn(self._before(self.norm1, x), n, mask, cross=False))

    def across(self, x: Tensor, n: int, mask: Tensor | None) -> Tensor:
        """What follows self-attention; x: [B, N + 1 + M, d] -> the same shape."""
        x = self._after(self.norm2, x, self.cross_attn(self._before(self.norm2, x), n, mask, cross=True))
        return self._feed_forward(self.norm3, x)

    def within(self, x: Tensor, token: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Self-attention of one image [I, N, d] and the match token [d]: its descriptors, [I, N, d], and its
        share in the token, [I, heads + d] (``PairAttention.within``).
        """
        read, summary = self.self_attn.within(
            self._before(self.norm1, x), self._before(self.norm1, token), mask
        )
        return self._after(self.norm1, x, read), summary

    def join(self, token: Tensor, *summaries: Tensor) -> Tensor:
        """Return the match token [d] after the self-attention that ``within`` began: [P, d]."""
        read = self.self_attn.join(self._before(self.norm1, token), *summaries)
        return self._after(self.norm1, token, read)

    def match(self, x: Tensor, n: int, mask: Tensor | None) -> Tensor:
        """Return the match token alone after cross-attention and feed-forward; x: [B, N + 1 + M, d] after
        self-attention -> [B, d].
        """
        before = self._before(self.norm2, x)
        token = self._after(self.norm2, x[:, n], self.cross_attn.read(before[:, n], before, mask))
        return self._feed_forward(self.norm3, token)

    def set_compute_dtype(self, dtype: torch.dtype, *, match_only: bool) -> None:
        """As ``PairDecoder.set_compute_dtype``; match_only: of the self-attention alone."""
        if dtype == torch.int8:
            # In attention, 8 bits change logits ten times as much as here (docs/performance.md).
            if not match_only:
                self.register_module("linear1", Int8Linear(self.linear1))
                self.register_module("linear2", Int8Linear(self.linear2))
            return
        self.self_attn.to(dtype)
        if not match_only:
            self.feed_forward_dtype = dtype
            self.cross_attn.to(dtype)
            self.linear1.to(dtype)
            self.linear2.to(dtype)


class PairDecoder(nn.Module):
    """A stack of PairLayers; with pre-norm one more LayerNorm at the end."""

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

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """Compute products in another number format, in place; int8: those of the feed-forward layers alone.

        Tokens, residuals and norms keep theirs, and are rounded where a product takes them. So does the last
        layer of ``match``, which concerns the match token alone and costs almost nothing.
        """
        for layer in self.stack:
            layer.set_compute_dtype(dtype, match_only=layer is self.stack[-1])

    def encode(self, x: Tensor, token: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Compute what one image contributes to every pair.

        In the first layer's self-attention an image sees itself and the match token, which is still the
        same for all pairs. x: [I, N, d], valid: bool [I, N], token: [d] -> its descriptors after that
        attention, [I, N, d], and its share in the match token, float32 [I, heads + d].
        """
        mask = None if bool(valid.all()) else F.pad(valid, (0, 1), value=True)[:, None, None]
        return self.stack[0].within(x, token, mask)

    def match(
        self,
        query: Tensor,
        database: Tensor,
        shares: tuple[Tensor, Tensor],
        token: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        """Return the final match token of pairs, [P, d], from ``encode`` of both images: descriptors [P, N,
        d] and [P, M, d], shares float32 [P, heads + d]; mask: bool [P, 1, 1, N + 1 + M] or None.

        Equal to ``forward``, without the other tokens of the last layer.
        """
        first, *between = self.stack[:-1] or self.stack
        last, n = self.stack[-1], query.shape[1]
        x = torch.cat((query, first.join(token, *shares).unsqueeze(1), database), 1)
        if last is not first:
            x = first.across(x, n, mask)
            for layer in between:
                x = layer(x, n, mask)
            x = last.within_pair(x, n, mask)
        matched = last.match(x, n, mask)
        return matched if self.norm is None else self.norm(matched)
