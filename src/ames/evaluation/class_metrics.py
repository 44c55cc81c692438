"""Recall@k and mAP of searches for images of the same class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from ames.descriptors.vectors import Vectors
from ames.errors import AmesError
from ames.evaluation.class_protocol import ClassProtocol
from ames.evaluation.class_ranks import class_ranks
from ames.evaluation.metrics import average_precision


@dataclass(frozen=True, eq=False)
class ClassResult:
    """Metrics in percent.

    recall: k -> share of all queries with an image of their class among the first k. A query without a
    positive, the only image of its class, can find none and counts (published evaluation of SOP).
    map: rule -> mean of its ``aps`` over the queries with a positive, NaN if there is none.
    first: int64 [Q], zero-based rank of the first positive, -1 where there is none.
    aps: rule -> float64 [Q], NaN for queries without a positive.
    num_queries, num_without: all queries, and those without a positive, which ``map`` leaves out (as the
    revisited Oxford/Paris evaluation does).
    """

    recall: dict[int, float]
    map: dict[str, float]
    first: np.ndarray
    aps: dict[str, np.ndarray]
    num_queries: int
    num_without: int


def evaluate_classes(
    queries: np.ndarray | Vectors,
    gallery: np.ndarray | Vectors,
    query_labels: Sequence[int | str] | np.ndarray,
    gallery_labels: Sequence[int | str] | np.ndarray,
    protocol: ClassProtocol,
) -> ClassResult:
    """Search for each query in the gallery by cosine, and measure where the images of its class are.

    queries float [Q, G], gallery float [n, G]: vectors of one space, whoever made them; an asymmetric
    evaluation has queries of one network and a gallery of another. Labels [Q], [n]: numbers or text. With
    ``protocol.skip_self``, query i and gallery image i are the same image. Exact, in bounded memory; ties as
    in ``ames.evaluation.class_ranks.class_ranks``.
    AmesError where sizes disagree, there is no query, no class is in both, or a vector is not finite.
    """
    queries = queries if isinstance(queries, Vectors) else Vectors.of(queries, "queries")
    gallery = gallery if isinstance(gallery, Vectors) else Vectors.of(gallery, "gallery")
    own, others = np.asarray(query_labels), np.asarray(gallery_labels)
    _check(queries, gallery, own, others, protocol)
    classes = np.unique(np.concatenate([own, others]), return_inverse=True)[1].reshape(-1)
    first = np.full(len(queries), -1, np.int64)
    aps = {rule: np.full(len(queries), np.nan) for rule in protocol.average_precision}
    found = class_ranks(
        queries, gallery, classes[: len(own)], classes[len(own) :], skip_self=protocol.skip_self
    )
    for query, ranks in enumerate(tqdm(found, "search", len(own), unit="query", disable=None)):
        if len(ranks):
            first[query] = ranks[0]
        for rule, values in aps.items():
            values[query] = _average_precision(ranks, rule, protocol.cutoff)
    return summarize(first, aps, protocol)


def summarize(first: np.ndarray, aps: dict[str, np.ndarray], protocol: ClassProtocol) -> ClassResult:
    """Return the means of ``first`` and ``aps``, which are those of ``ClassResult``."""
    with_positive = first >= 0
    means = {
        rule: float(v[with_positive].mean()) if with_positive.any() else np.nan for rule, v in aps.items()
    }
    return ClassResult(
        recall={k: 100 * float((with_positive & (first < k)).mean()) for k in protocol.recall_at},
        map=means,
        first=first,
        aps=aps,
        num_queries=len(first),
        num_without=int((~with_positive).sum()),
    )


def _average_precision(ranks: np.ndarray, rule: str, cutoff: int | None) -> float:
    # The ranking is whole: every positive is in it.
    return average_precision(ranks, len(ranks), rule=rule, cutoff=cutoff if rule == "rectangle" else None)


def _check(
    queries: Vectors, gallery: Vectors, own: np.ndarray, others: np.ndarray, protocol: ClassProtocol
) -> None:
    for name, vectors, labels in (("query", queries, own), ("gallery", gallery, others)):
        if labels.shape != (len(vectors),):
            raise AmesError(
                f"{vectors.sources[0]}: {len(vectors)} vectors, but {name} labels of shape "
                f"{list(labels.shape)}; give one label for each"
            )
    if not len(own):
        raise AmesError(f"{queries.sources[0]}: there is no query to evaluate")
    if (own.dtype.kind == "U") != (others.dtype.kind == "U"):
        raise AmesError("labels of queries and of the gallery are numbers and text; give both as one kind")
    if protocol.skip_self and (own.shape != others.shape or (own != others).any()):
        raise AmesError(
            f"protocol {protocol.name!r} searches for each image among the others, but queries and gallery "
            "have different labels; give both in one order, or a protocol with skip_self: false"
        )
    if not np.isin(own, others).any():
        raise AmesError("no class of a query is in the gallery, so that nothing can be found")
