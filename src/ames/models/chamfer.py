"""Chamfer similarity: the hand-made baseline that a learned model must beat."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ames.features import LocalFeatures
from ames.models.base import PairSimilarity, constructor_arguments, sound


class Chamfer(PairSimilarity):
    """The mean over query descriptors of the cosine of the best match in the database image.

    ``symmetric``: the mean of this and of the same with the two images exchanged. An image without
    descriptors has similarity -1, the least, to everything.
    """

    learned = False
    links_are = "best cosines"

    def __init__(self, *, local_dim: int | None = None, symmetric: bool = False) -> None:
        arguments = constructor_arguments(locals())
        super().__init__()
        self.arguments = arguments
        self.local_dim = local_dim
        self.symmetric = symmetric
        self.code_bytes = 4 * (local_dim or 0)

    def tokens(self, local: LocalFeatures) -> LocalFeatures:
        return local.with_descriptors(self.normalized(local, torch.float32))

    def compress(self, local: LocalFeatures) -> LocalFeatures:
        return replace(self.tokens(local), coded=True)

    def expand(self, codes: LocalFeatures) -> LocalFeatures:
        values = codes.descriptors
        return codes.with_descriptors(sound(values, values.sum(-1), codes.valid))

    def score_encoded(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        query, database = query.pad(max(query.size, 1)), database.pad(max(database.size, 1))
        cosine = _cosines(query, database)
        forward = _mean(cosine.amax(-1), query.valid)
        if not self.symmetric:
            return forward
        return (forward + _mean(cosine.amax(-2), database.valid)) / 2

    def link_tokens(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """What each best match adds to the score: they sum to it, unless a best cosine is below 0."""
        cosine = _cosines(query, database)
        links = torch.zeros_like(cosine)
        sides = ((2, query), (1, database)) if self.symmetric else ((2, query),)
        for axis, side in sides:
            best, place = cosine.max(axis, keepdim=True)
            share = side.valid.unsqueeze(axis) / (len(sides) * side.counts.clamp(min=1).view(-1, 1, 1))
            links.scatter_add_(axis, place, best.clamp(min=0) * share)
        return links


def _cosines(query: LocalFeatures, database: LocalFeatures) -> Tensor:
    """[P, N, M], -1 of padding."""
    cosine = query.descriptors @ database.descriptors.transpose(-1, -2)
    return cosine.masked_fill(~(query.valid.unsqueeze(-1) & database.valid.unsqueeze(-2)), -1)


def _mean(best: Tensor, valid: Tensor) -> Tensor:
    """Mean over the real descriptors [P, N] -> [P]; -1 where there is none."""
    count = valid.sum(-1)
    mean = (best * valid).sum(-1) / count.clamp(min=1)
    return mean.masked_fill(count == 0, -1)
