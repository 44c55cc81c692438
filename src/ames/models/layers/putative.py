"""Putative matches of two images: nearest neighbours in the space of descriptors, kept by simple tests."""

from __future__ import annotations

import torch
from torch import Tensor

from ames.features import LocalFeatures


def cosines(query: LocalFeatures, database: LocalFeatures) -> Tensor:
    """Unit descriptors [P, N, d], [P, M, d] -> their inner products [P, N, M], -inf for padding."""
    either = query.valid.unsqueeze(-1) & database.valid.unsqueeze(-2)
    return (query.descriptors @ database.descriptors.mT).masked_fill(~either, -torch.inf)


def mutual(cosine: Tensor) -> Tensor:
    """bool [P, N, M]: cells of [P, N, M] that are the largest of their row and of their column.

    N and M are at least 1. Of equal ones, the first is taken, so that a row and a column have one at most.
    """
    rows = torch.zeros_like(cosine, dtype=torch.bool).scatter_(2, cosine.argmax(2, keepdim=True), True)
    columns = torch.zeros_like(rows).scatter_(1, cosine.argmax(1, keepdim=True), True)
    return rows & columns & (cosine > -torch.inf)


def nearest(
    cosine: Tensor, distance: float, *, ratio: float | None, both_ways: bool
) -> tuple[Tensor, Tensor]:
    """Return (database descriptor int64 [P, N], kept bool [P, N]) of each query descriptor.

    cosine: [P, N, M] of unit vectors, N and M at least 1. Kept are those whose L2 distance is below
    ``distance``. ratio: and below ``ratio`` times that of the second nearest, where there is one (Lowe, IJCV
    2004). both_ways: and whose database descriptor has no nearer query descriptor.
    """
    best, place = cosine.max(-1)
    kept = _l2(best) < distance
    if ratio is not None and cosine.shape[-1] > 1:
        kept &= _l2(best) < ratio * _l2(cosine.topk(2, -1).values[..., 1])
    if both_ways:
        kept &= mutual(cosine).any(-1)
    return place, kept


def _l2(cosine: Tensor) -> Tensor:
    """The distance of unit vectors; infinite for a cosine of -inf."""
    return (2 - 2 * cosine).clamp(min=0).sqrt()
