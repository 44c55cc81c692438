"""What a model ties in two images, and what each descriptor contributes to the score (docs/explain.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ames.backbones.base import ImageFeatures
from ames.errors import AmesError, naming
from ames.features import LocalFeatures
from ames.models.base import PairSimilarity, Similarity
from ames.reranking.fusion import Fusion
from ames.reranking.reranker import with_vector
from ames.reranking.scorer import ComputeConfig, PairScorer, encode_side

_VARIANT_VALUES = 1 << 24  # values of the descriptors of image variants that are in memory at once


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a pair has its score. A is the query, B the image of a collection.

    score: the model's. fused: blended with the global similarity, None if unknown. links: int64 [L, 2], rows
    of A and of B, strongest first; weights: float32 [L] in (0, 1], relative to the strongest. shares_a,
    shares_b: float32 [N] and [M], the score less the score without that descriptor. positions_a, positions_b:
    float32 [N, 2] and [M, 2], (row, col) as shares of height and width. kind: what links are
    (``PairSimilarity.links_are``).
    """

    score: float
    fused: float | None
    links: np.ndarray
    weights: np.ndarray
    shares_a: np.ndarray
    shares_b: np.ndarray
    positions_a: np.ndarray
    positions_b: np.ndarray
    kind: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it: numbers, and lists of them."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(self).items()}


def explain(
    query: ImageFeatures,
    database: ImageFeatures,
    model: Similarity,
    *,
    desc_num: tuple[int, int],
    top: int = 50,
    fusion: Fusion | None = None,
) -> Explanation:
    """Return what a model ties in two images, and what each of their descriptors contributes.

    query, database: features of one image each, with positions; the strongest ``desc_num`` of either are
    used. The database side is compressed and expanded, so that the score is that of a collection. top: the
    most links. fusion: for ``fused``; its global similarity is that of the vectors, which a collection
    rounds. It scores N + M + 1 pairs.

    AmesError for a model that reads lists, and for an image without descriptors or without positions.
    """
    if not isinstance(model, PairSimilarity):
        raise AmesError(
            f"{type(model).__name__} reads lists of candidates: only a model of pairs is explained"
        )
    sides = [
        _one_image(image, model, count, name)
        for image, count, name in zip((query, database), desc_num, ("query", "database image"), strict=True)
    ]
    with naming(lambda _: "the descriptors of the pair"):
        score, shares = _contributions(model, *sides)
        links, weights = _strongest(_links(model, *sides), top)
    return Explanation(
        score=score,
        fused=None if fusion is None else _fused(fusion, query, database, score),
        links=links,
        weights=weights,
        shares_a=shares[0],
        shares_b=shares[1],
        positions_a=_positions(sides[0]),
        positions_b=_positions(sides[1]),
        kind=model.links_are,
    )


def _one_image(image: ImageFeatures, model: PairSimilarity, count: int, name: str) -> LocalFeatures:
    """The ``count`` strongest descriptors of an image, [1, N, D], without padding."""
    local = (with_vector(image) if model.reads_vector else image.local).trim(count)
    if local.valid.ndim != 1:
        raise AmesError(f"the {name} is {list(local.descriptors.shape)}: give one image, [N, D]")
    local = local.real_first().trim(int(local.counts))
    if not local.size:
        raise AmesError(f"the {name} has no local features: there is nothing to explain")
    if local.positions is None:
        raise AmesError(f"the {name} has no positions of its local features: extract it with them")
    return local.map(lambda x: x[None])


def _links(model: PairSimilarity, query: LocalFeatures, database: LocalFeatures) -> Tensor:
    """``PairSimilarity.links`` of one pair, [N, M]."""
    with torch.inference_mode():
        tokens = (
            encode_side(model, side.to(model.device), database=there)
            for side, there in ((query, False), (database, True))
        )
        return model.links(*tokens)[0].cpu()


def _strongest(links: Tensor, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``top`` largest values above 0 of links [N, M]: rows of either image [L, 2], and weights [L]."""
    values, places = links.flatten().sort(descending=True, stable=True)
    values, places = values[:top], places[:top]
    there = values > 0
    values, places = values[there], places[there]
    rows = torch.stack((places // links.shape[1], places % links.shape[1]), 1)
    weights = (values / values[:1]).clamp(min=torch.finfo(torch.float32).tiny)
    return rows.numpy(), weights.float().numpy()


def _contributions(
    model: PairSimilarity, query: LocalFeatures, database: LocalFeatures
) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
    """The score of a pair [1, N, D] and [1, M, D], and what each descriptor contributes, [N] and [M]."""
    scorer = PairScorer(model, ComputeConfig(devices=(str(model.device),)))  # it moves the model there
    encoded = scorer.queries(query)
    zeros = np.zeros(1, np.int64)
    score = scorer.score(encoded, database, zeros, zeros)
    of_query, of_database = [], []
    for part in _each_left_out(query):
        rows = np.arange(len(part.valid))
        of_query.append(scorer.score(scorer.queries(part), database, rows, np.zeros_like(rows)))
    for part in _each_left_out(database):
        rows = np.arange(len(part.valid))
        of_database.append(scorer.score(encoded, part, np.zeros_like(rows), rows))
    if not np.isfinite(score).all():
        raise AmesError(f"{type(model).__name__}: a score is not finite: the model's weights are not")
    return float(score[0]), (score - np.concatenate(of_query), score - np.concatenate(of_database))


def _each_left_out(local: LocalFeatures) -> Iterator[LocalFeatures]:
    """An image [1, N, D] as N images without one of its descriptors, [n, N, D] at a time."""
    kept = ~torch.eye(local.size, dtype=torch.bool, device=local.valid.device)
    step = max(1, _VARIANT_VALUES // (local.size * local.width))
    for valid in kept.split(step):
        yield replace(local.map(partial(_repeated, count=len(valid))), valid=valid)


def _repeated(x: Tensor, count: int) -> Tensor:
    return x.expand(count, *x.shape[1:])


def _positions(local: LocalFeatures) -> np.ndarray:
    assert local.positions is not None  # ``_one_image``
    return local.positions[0].float().cpu().numpy()


def _fused(fusion: Fusion, query: ImageFeatures, database: ImageFeatures, score: float) -> float | None:
    """The final score, by the inner product of the global vectors; None where an image has none."""
    if query.vector is None or database.vector is None:
        return None
    similarity = np.array([np.dot(query.vector, database.vector)], np.float32)
    return float(fusion.fuse(similarity, np.array([score], np.float32))[0])
