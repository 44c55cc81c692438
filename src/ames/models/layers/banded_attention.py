"""Attention in which a token sees its neighbourhood and some global tokens, and these see everything.

Longformer (arXiv 2004.05150): a local row reads the keys within a distance of it and the keys of all global
tokens; a global row reads all keys, with projections of its own. Memory is linear in the sequence: rows that
lie together read one slice of the keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Rows that share a slice of keys, by measurement: more of them waste products outside the band, fewer of them
# cost calls.
_CHUNK = {"cpu": 128}
_GPU_CHUNK = 512


@dataclass(frozen=True)
class Band:
    """Local rows that read one slice of the keys: ``rows`` is their part of all local rows; ``seen`` is bool
    [rows, keys + G], True = in the band of the row, or one of the G global keys, which follow the slice.
    """

    rows: slice
    keys: slice
    seen: Tensor


@dataclass(frozen=True)
class Plan:
    """What is computed of a sequence of S tokens: ``rows`` int64 [R], rising, of which ``local`` and
    ``distant`` (global) are the two kinds; ``order`` [R] sorts these two, one after the other, as ``rows``.

    anchors: int64 [G], the global tokens, as keys.
    """

    rows: Tensor
    local: Tensor
    distant: Tensor
    order: Tensor
    anchors: Tensor
    bands: tuple[Band, ...]


def make_plan(anchored: Tensor, wanted: Tensor, reach: int) -> Plan:
    """Plan the attention of the ``wanted`` rows, bool [S], each of which sees ``reach`` keys to either side.

    anchored: bool [S], True = a global token.
    """
    where = (wanted & ~anchored).nonzero()[:, 0], (wanted & anchored).nonzero()[:, 0]
    anchors = anchored.nonzero()[:, 0]
    chunk = _CHUNK.get(wanted.device.type, _GPU_CHUNK)
    positions = where[0].tolist()
    bands, start = [], 0
    while start < len(positions):
        stop = start + 1
        while stop < len(positions) and positions[stop] < positions[start] + chunk:
            stop += 1
        keys = slice(max(positions[start] - reach, 0), min(positions[stop - 1] + reach + 1, len(wanted)))
        places = torch.arange(keys.start, keys.stop, device=wanted.device)
        near = (where[0][start:stop, None] - places).abs() <= reach
        # A global key of the slice is left to the global keys, so that it counts once.
        seen = F.pad(near & ~anchored[keys], (0, len(anchors)), value=True)
        bands.append(Band(slice(start, stop), keys, seen))
        start = stop
    rows, order = torch.cat(where).sort()
    return Plan(rows, *where, order, anchors, tuple(bands))


class BandedAttention(nn.Module):
    """Multi-head attention of a ``Plan``; parameters are named as those of a Longformer's."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.query_global, self.key_global, self.value_global = (nn.Linear(dim, dim) for _ in range(3))

    def forward(self, x: Tensor, valid: Tensor | None, plan: Plan) -> Tensor:
        """x: [B, S, d] -> what the rows of the plan read, [B, R, d].

        valid: bool [B, S], False = padding, which no row sees and which reads 0; None: there is none.
        """
        parts = self._local(x, valid, plan) if len(plan.local) else []
        if len(plan.distant):
            query, key, value = (
                self._split(linear(y))
                for linear, y in (
                    (self.query_global, x[:, plan.distant]),
                    (self.key_global, x),
                    (self.value_global, x),
                )
            )
            mask = None if valid is None else valid[:, None, None]
            parts.append(F.scaled_dot_product_attention(query, key, value, mask))
        read = torch.cat(parts, 2)[:, :, plan.order].transpose(1, 2).flatten(2)
        return read if valid is None else read.masked_fill(~valid[:, plan.rows, None], 0)

    def _local(self, x: Tensor, valid: Tensor | None, plan: Plan) -> list[Tensor]:
        """Return what the local rows read, [B, heads, rows, d / heads] of each band."""
        query = self._split(self.query(x[:, plan.local]))
        key, value = self._split(self.key(x)), self._split(self.value(x))
        anchors = [y[:, :, plan.anchors] for y in (key, value)]
        parts = []
        for band in plan.bands:
            keys, values = (
                torch.cat((y[:, :, band.keys], far), 2) for y, far in zip((key, value), anchors, strict=True)
            )
            mask = band.seen
            if valid is not None:
                mask = mask & torch.cat((valid[:, band.keys], valid[:, plan.anchors]), 1)[:, None, None]
            parts.append(F.scaled_dot_product_attention(query[:, :, band.rows], keys, values, mask))
        return parts

    def _split(self, x: Tensor) -> Tensor:
        """[B, n, d] -> [B, heads, n, d / heads]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
