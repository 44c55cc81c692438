"""What every similarity model offers, so that one evaluator, one index and one trainer serve them all.

List-wise is the general case and pair-wise the special one: a list-wise model reads a whole shortlist
(``window`` = its length), a pair-wise one scores each candidate by itself (``window`` is None), so that
a pair is scored once, whatever protocol, lambda, gamma or shortlist length reads it later.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ames.features import LocalFeatures


class Similarity(nn.Module):
    """Similarity of a query image to candidate images, from their local descriptors.

    ``local_dim`` is the width of the descriptors it takes, or None where any width will do.
    ``code_bytes`` is what one database descriptor takes in storage; ``code_bits`` are its bits where codes
    are packed bits (one a dimension), None where they are numbers.
    """

    window: ClassVar[int | None] = None
    local_dim: int | None = None
    code_bytes: int
    code_bits: int | None = None

    def score(self, query: LocalFeatures, candidates: LocalFeatures) -> Tensor:
        """query [B, N, D], candidates [B, K, M, D] -> logits [B, K]."""
        raise NotImplementedError

    def compress(self, local: LocalFeatures) -> LocalFeatures:
        """[..., M, D] -> codes [..., M, bytes or halves]: exactly what a database stores."""
        raise NotImplementedError

    def expand(self, codes: LocalFeatures) -> LocalFeatures:
        """codes -> tokens [..., M, d], as scoring reads them."""
        raise NotImplementedError

    def projection(self) -> dict[str, Tensor]:
        """The weights on which ``compress`` and ``expand`` depend, by name."""
        return self.state_dict()

    def tokens(self, local: LocalFeatures) -> LocalFeatures:
        """[..., N, D] -> tokens [..., N, d] at full precision (the query side)."""
        raise NotImplementedError

    def score_tokens(self, query: LocalFeatures, candidates: LocalFeatures) -> Tensor:
        """As ``score``, from tokens: query [B, N, d], candidates [B, K, M, d] -> logits [B, K]."""
        raise NotImplementedError


class PairSimilarity(Similarity):
    """A model that reads one pair; subclasses write the projections, ``pairs_encoded`` and, where part of
    the work concerns one image alone, ``encode``.
    """

    def encode(self, tokens: LocalFeatures) -> LocalFeatures:
        """tokens [..., N, d] -> what one image brings into every pair, made once an image."""
        return tokens

    def pairs_encoded(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """``encode`` of P query images and of P database images -> logits [P]."""
        raise NotImplementedError

    def lower(self, dtype: torch.dtype) -> None:
        """Computes ``encode`` and ``pairs_encoded`` in another number format from now on, in place; both take
        and give fp32.
        """

    def compile_pairs(self) -> None:
        """Compiles, in place, what ``pairs_encoded`` computes (``torch.compile``), where that is much."""

    def pairs_tokens(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """query [P, N, d], database [P, M, d] -> logits [P]."""
        return self.pairs_encoded(self.encode(query), self.encode(database))

    def pairs(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """query [P, N, D], database [P, M, D] -> logits [P]."""
        return self.pairs_tokens(self.tokens(query), self.tokens(database))

    def score(self, query: LocalFeatures, candidates: LocalFeatures) -> Tensor:
        return self.score_tokens(self.tokens(query), self.tokens(candidates))

    def score_tokens(self, query: LocalFeatures, candidates: LocalFeatures) -> Tensor:
        B, K = candidates.valid.shape[:2]
        repeated = self.encode(query).map(lambda x: x.unsqueeze(1).expand(B, K, *x.shape[1:]))
        return self.pairs_encoded(repeated.reshape(-1), self.encode(candidates).reshape(-1)).view(B, K)
