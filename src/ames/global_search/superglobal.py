"""SuperGlobal: a shortlist re-ranked by its own global descriptors, without training.

Shao, Chen, Karpur, Cui, Araujo, Cao: "Global Features are All You Need for Image Retrieval and Reranking"
(ICCV 2023). Written from the paper's description. **It has not been compared with the authors' metrics.**
From the paper: M = 400, K = 9, beta = 0.15. Our reading: K does not count the image itself; refined
descriptors are not normalized. Its pooling is ``ames.backbones.pooling``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ames.errors import AmesError


@dataclass(frozen=True, kw_only=True)
class Reranking:
    """The constants of the re-ranking.

    top: re-ranked entries of the shortlist (M). neighbours: of each descriptor, besides itself (K). beta:
    their weight. normalize: bring refined and expanded descriptors to unit length; in our reading the paper
    does not.
    """

    top: int = 400
    neighbours: int = 9
    beta: float = 0.15
    normalize: bool = False

    def __post_init__(self) -> None:
        if self.top < 1 or self.neighbours < 0 or not 0 <= self.beta < math.inf:
            raise AmesError(f"SuperGlobal: {self}: top is 1 or more, neighbours and beta 0 or more")


def refine(candidates: Tensor, present: Tensor, settings: Reranking) -> Tensor:
    """Refine each candidate of a query by its nearest among the others: float [B, M, G] -> [B, M, G].

    A descriptor g becomes (g + beta * sum of s_j g_j) / (1 + beta * sum of s_j) over its K nearest, s_j
    being their inner products with it, those below 0 counted as 0. Equal ones are taken in the shortlist's
    order.
    present: bool [B, M], False where there is no candidate.
    """
    similar = candidates @ candidates.transpose(1, 2)
    similar.masked_fill_(~present[:, None], -torch.inf)
    similar.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    k = min(settings.neighbours, candidates.shape[1] - 1)
    values, places = similar.sort(dim=2, descending=True, stable=True)
    values = settings.beta * values[..., :k].clamp(min=0)
    # A product with a sparse matrix: gathering the neighbours would take K times the candidates' memory.
    weights = similar.zero_().scatter_(2, places[..., :k], values)
    refined = (candidates + weights @ candidates) / (1 + values.sum(2, keepdim=True))
    return F.normalize(refined, dim=-1) if settings.normalize else refined


def expand(queries: Tensor, refined: Tensor, scores: Tensor, settings: Reranking) -> Tensor:
    """Expand the queries [B, G]: in each dimension the maximum of the query and its K best refined
    candidates [B, M, G] by ``scores`` [B, M], -inf where there is no candidate.
    """
    k = min(settings.neighbours, refined.shape[1])
    values, places = scores.sort(dim=1, descending=True, stable=True)
    nearest = refined.gather(1, places[:, :k, None].expand(-1, -1, refined.shape[2]))
    nearest = torch.where(values[:, :k, None] == -torch.inf, queries[:, None], nearest)
    expanded = torch.cat((queries[:, None], nearest), dim=1).amax(1)
    return F.normalize(expanded, dim=-1) if settings.normalize else expanded


def rescore(queries: Tensor, candidates: Tensor, present: Tensor, settings: Reranking) -> Tensor:
    """Return scores [B, M] of the candidates float [B, M, G] of queries [B, G], -inf if ``present`` is False.

    The mean of S1, the query's inner product with the refined candidates, and S2, the expanded query's with
    the candidates as they were.
    """
    refined = refine(candidates, present, settings)
    first = torch.einsum("bg,bmg->bm", queries, refined).masked_fill(~present, -torch.inf)
    expanded = expand(queries, refined, first, settings)
    return (first + torch.einsum("bg,bmg->bm", expanded, candidates)) / 2
