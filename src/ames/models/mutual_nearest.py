"""Mutual nearest neighbours: how many descriptors of two images choose each other."""

from __future__ import annotations

import torch
from torch import Tensor

from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.models.base import PairSimilarity, constructor_arguments
from ames.models.layers.putative import cosines, mutual

_SHARES = ("query", "smaller")


class MutualNearest(PairSimilarity):
    """The number of mutual nearest neighbours by cosine, as a share: in [0, 1], no logit.

    ``share`` "query": of the query's descriptors. All candidates of a query are divided by the same number,
    so that they are ranked by the count. "smaller": of the descriptors of the image that has fewer, which is
    symmetric. It is no good default: two images always have one mutual pair, so that a database image with a
    single descriptor would get the largest score, 1. ``least_cosine``: pairs with a lower cosine do not count
    (None: all do); 0.5 is an L2 distance of 1, the published one of ``SpatialVerification``. An image without
    descriptors has score 0.

    Codes are unit descriptors as fp16. Of equal cosines the first descriptor is taken.
    """

    learned = False
    cpu_tokens = 5120
    score_unit = 0.1
    links_are = "mutual nearest neighbours"

    def __init__(
        self, *, local_dim: int | None = None, share: str = "query", least_cosine: float | None = 0.5
    ) -> None:
        arguments = constructor_arguments(locals())
        super().__init__()
        if share not in _SHARES:
            raise AmesError(f"share {share!r} is none of {', '.join(_SHARES)}")
        if least_cosine is not None and not -1 <= least_cosine <= 1:
            raise AmesError(f"least_cosine {least_cosine} is outside [-1, 1]")
        self.arguments, self.local_dim = arguments, local_dim
        self.share, self.least_cosine = share, least_cosine
        self.code_bytes = 2 * (local_dim or 0)

    def tokens(self, local: LocalFeatures) -> LocalFeatures:
        return local.with_descriptors(self.normalized(local, torch.float32))

    def check_form(self, codes: LocalFeatures) -> None:
        if self.local_dim is not None:  # else their width is that of the descriptors, whatever it is
            super().check_form(codes)

    def score_encoded(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        count = self.link_tokens(query.pad(max(query.size, 1)), database.pad(max(database.size, 1)))
        of = query.counts if self.share == "query" else query.counts.minimum(database.counts)
        return count.sum((1, 2)) / of.clamp(min=1)

    def link_tokens(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """1 for each pair that counts."""
        cosine = cosines(query, database)
        pairs = mutual(cosine)
        if self.least_cosine is not None:
            pairs &= cosine >= self.least_cosine
        return pairs.float()
