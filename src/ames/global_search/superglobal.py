"""SuperGlobal: a shortlist re-ranked by its own global descriptors, without training.

Shao, Chen, Karpur, Cui, Araujo, Cao: "Global Features are All You Need for Image Retrieval and Reranking"
(ICCV 2023). As the authors' released code computes it, which is compared by golden figures
(tests/global_search/test_superglobal.py): M = 400, K = 9, beta = 0.15; K does not count the image itself;
refined descriptors are not normalized; the query has no part in the pooled descriptor. Its pooling is
``ames.backbones.pooling``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ames.errors import AmesError

_log = logging.getLogger(__name__)
FORMULA = "released"  # files that were made by the one of earlier versions do not say so
_LEAST = 1e-3  # of the sum of weights that a descriptor is divided by


@dataclass(frozen=True, kw_only=True)
class Reranking:
    """The constants of the re-ranking.

    top: re-ranked entries of the shortlist (M). neighbours: of each descriptor, besides itself (K). beta:
    their weight.
    """

    top: int = 400
    neighbours: int = 9
    beta: float = 0.15

    def __post_init__(self) -> None:
        if self.top < 1 or self.neighbours < 0 or not 0 <= self.beta < math.inf:
            raise AmesError(f"SuperGlobal: {self}: top is 1 or more, neighbours and beta 0 or more")


def of_earlier_formula(about: Mapping[str, Any]) -> bool:
    """Return whether a shortlist, by its ``meta``, was re-ranked by the formula of earlier versions."""
    made = about.get("superglobal")
    return isinstance(made, dict) and made.get("formula") != FORMULA


def say_earlier_formula(source: object, about: Mapping[str, Any]) -> None:
    """One line of the log where ``of_earlier_formula`` is true of a shortlist; source: its file."""
    if of_earlier_formula(about):
        said = "%s: re-ranked by the SuperGlobal formula of an earlier version of ames, not the released one"
        _log.warning(said, source)


def refine(candidates: Tensor, present: Tensor, settings: Reranking) -> Tensor:
    """Refine each candidate of a query by its nearest among the others: float [B, M, G] -> [B, M, G].

    A descriptor x becomes (x + beta * sum of s_j x_j) / (1 + beta * sum of s_j) over its K nearest, s_j being
    their inner products with it, which count below 0, too. Where this would divide by 0 or less (of all K
    nearest being opposite), x stays. Equal neighbours are taken in the shortlist's order.
    present: bool [B, M], False where there is no candidate.
    """
    similar = candidates @ candidates.transpose(1, 2)
    similar.masked_fill_(~present[:, None], -torch.inf)
    similar.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    k = min(settings.neighbours, candidates.shape[1] - 1)
    values, places = similar.sort(dim=2, descending=True, stable=True)
    values = settings.beta * values[..., :k].masked_fill(values[..., :k] == -torch.inf, 0)
    total = 1 + values.sum(2, keepdim=True)
    # A product with a sparse matrix: gathering the neighbours would take K times the candidates' memory.
    weights = similar.zero_().scatter_(2, places[..., :k], values)
    refined = (candidates + weights @ candidates) / total
    return torch.where(total > _LEAST, refined, candidates)


def pool(refined: Tensor, scores: Tensor, settings: Reranking) -> Tensor:
    """Return, in each dimension, the maximum of the K + 1 refined candidates [B, M, G] that are best by
    ``scores`` [B, M], -inf where there is no candidate: float [B, G], zeros for a query without any.
    """
    k = min(settings.neighbours + 1, refined.shape[1])
    values, places = scores.sort(dim=1, descending=True, stable=True)
    best = refined.gather(1, places[:, :k, None].expand(-1, -1, refined.shape[2]))
    best = best.masked_fill(values[:, :k, None] == -torch.inf, -torch.inf).amax(1)
    return best.masked_fill(best == -torch.inf, 0)


def rescore(queries: Tensor, candidates: Tensor, present: Tensor, settings: Reranking) -> Tensor:
    """Return scores [B, M] of the candidates float [B, M, G] of queries [B, G], -inf if ``present`` is False.

    The mean of two inner products with the refined candidates: the query's, and that of the descriptor that
    ``pool`` makes of the candidates which are best by the first.
    """
    refined = refine(candidates, present, settings)
    first = torch.einsum("bg,bmg->bm", queries, refined).masked_fill(~present, -torch.inf)
    pooled = pool(refined, first, settings)
    return (first + torch.einsum("bg,bmg->bm", pooled, refined)) / 2
