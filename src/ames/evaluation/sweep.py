"""Metrics of a re-ranked shortlist under protocols: of one fusion, of a grid, or of the chosen one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product, starmap
from numbers import Integral
from typing import Any
from typing import Protocol as TypingProtocol

import numpy as np

from ames.datasets.ground_truth import GroundTruth, ids
from ames.errors import AmesError
from ames.evaluation.protocols import ALL, Protocol, Result, evaluate, ideal, label, summarize
from ames.global_search.shortlist import Shortlist
from ames.reranking.fusion import Fusion, check_fusions, junk_behind, rank
from ames.reranking.list_scores import ListScores

PREFIXES = {"easy": "E", "medium": "M", "hard": "H", "public": "pub", "private": "priv"}
_TAKEN = {"val_map": "the validation's mAP", "mean_map": "the mean over the protocols"}


@dataclass(frozen=True)
class Grid:
    """Combinations to evaluate: numbers of candidates to re-rank, lambdas and gammas (``temp``).

    By default the lambdas and gammas that a validation split chooses from.
    """

    num_rerank: Sequence[int]
    lamb: Sequence[float] = tuple(round(0.05 * i, 2) for i in range(20))
    temp: Sequence[float] = (0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0)

    def combinations(self) -> Iterator[tuple[int, Fusion]]:
        """Yield each number with each fusion."""
        return product(self.num_rerank, starmap(Fusion, product(self.lamb, self.temp)))

    def check(self, shortlist: Shortlist) -> None:
        """Refuse empty lists, lambda outside [0, 1], gamma <= 0, and more candidates than a shortlist has."""
        for name, values in vars(self).items():
            if not len(values):
                raise AmesError(f"{name} is an empty list: give at least one value")
        size = shortlist.ids.shape[1]
        for k in self.num_rerank:
            if not isinstance(k, Integral):
                raise AmesError(f"num_rerank {k!r} is not a whole number")
            if not 1 <= k <= size:
                raise AmesError(f"num_rerank {k} is outside 1 ... {size}, the length of the shortlist")
        check_fusions(self.lamb, self.temp)


def column(protocol: Protocol, metric: str, *, alone: bool = True) -> str:
    """Return the key of a metric in results: M_map, H_mp, pub_map as published, ``map`` of a single protocol
    and of GLDv2's ``all``; for other protocols their name and the metric.
    """
    prefix = PREFIXES.get(protocol.name, "" if alone or protocol.name == ALL.name else protocol.name)
    return f"{prefix}_{metric}" if prefix else metric


def columns(protocols: Collection[Protocol], metric: str = "map") -> dict[Protocol, str]:
    """Return the key of a metric under each protocol. AmesError for two protocols of one name or one key, and
    for a key that has another meaning in results.
    """
    found: dict[str, Protocol] = {}
    for protocol in protocols:
        key = column(protocol, metric, alone=len(protocols) == 1)
        for other in found.values():
            if other.name == protocol.name:
                raise AmesError(f"two protocols are called {protocol.name!r}: give each a name of its own")
        if key in found:
            raise AmesError(
                f"protocols {found[key].name!r} and {protocol.name!r} share the column {key}: rename one"
            )
        if key in _TAKEN:
            raise AmesError(f"protocol {protocol.name!r}: its column {key} is {_TAKEN[key]}: rename it")
        found[key] = protocol
    return {protocol: key for key, protocol in found.items()}


def metrics(results: Mapping[Protocol, Result]) -> dict[str, Any]:
    """Return {"M_map": ..., "M_mp": {"1": ..., "5": ..., "10": ...}, ...} in percent; None where no query has
    a positive.
    """
    maps, precisions = (columns(results, metric) for metric in ("map", "mp"))
    row: dict[str, Any] = {}
    for protocol, result in results.items():
        row[maps[protocol]] = _rounded(result.map)
        row[precisions[protocol]] = {str(k): _rounded(v) for k, v in result.mp.items()}
    return row


def validation_metrics(results: Mapping[Protocol, Result]) -> dict[str, float]:
    """Return what training records of a validation: ``val_map``, the mean mAP over the protocols under which
    a query has a positive, and of several protocols also the mAP of each, ``val_M_map`` and so on.
    AmesError where no query has a positive.
    """
    found = {protocol: result.map for protocol, result in results.items() if not np.isnan(result.map)}
    if not found:
        raise AmesError(f"no query has a positive under {', '.join(p.name for p in results)}")
    each = {}
    if len(results) > 1:
        own = columns(results)
        each = {p: p.name + "_map" if own[p] == "map" else own[p] for p in found}  # val_map is the mean
    return {"val_map": float(np.mean(list(found.values())))} | {
        f"val_{key}": float(found[protocol]) for protocol, key in each.items()
    }


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 3)  # JSON has no NaN


def evaluate_initial(
    shortlist: Shortlist, ground_truth: GroundTruth, protocols: Sequence[Protocol]
) -> dict[Protocol, Result]:
    """Return the metrics of the shortlist before re-ranking."""
    return {p: evaluate(shortlist.ids, ground_truth, p) for p in protocols}


def evaluate_oracle(
    shortlist: Shortlist, ground_truth: GroundTruth, protocols: Sequence[Protocol], num_rerank: int
) -> dict[Protocol, Result]:
    """Return the metrics of a perfect re-ranking of the first ``num_rerank`` entries, the most a model can
    reach.
    """
    return {
        p: evaluate(ideal(shortlist.ids, ground_truth, p, num_rerank), ground_truth, p) for p in protocols
    }


def junk_ids(ground_truth: GroundTruth, protocol: Protocol) -> list[np.ndarray]:
    """Return the junk ids of each query under a protocol."""
    return [ids(query, protocol.junk) for query in ground_truth.queries]


def needed(
    shortlist: Shortlist, ground_truth: GroundTruth, protocols: Iterable[Protocol], ks: Iterable[int]
) -> np.ndarray:
    """Return bool [Q, M]: the entries of the shortlist that some protocol re-ranks at some k."""
    mask = np.zeros(shortlist.ids.shape, bool)
    k = max(ks)
    for protocol in protocols:
        rows = slice(*protocol.queries) if protocol.queries else slice(None)
        columns = junk_behind(shortlist.ids, junk_ids(ground_truth, protocol))
        np.put_along_axis(mask[rows], columns[rows, :k], True, 1)
    return mask & (shortlist.ids >= 0)


class Reranked:
    """A scored shortlist under protocols; what does not depend on the fusion is computed once.

    scores: logits float32 [Q, M] of ``score_shortlist``, or those of lists, which are scored when a
    combination needs them. AmesError as ``protocols.evaluate``.
    """

    def __init__(
        self,
        shortlist: Shortlist,
        scores: np.ndarray | ListScores,
        ground_truth: GroundTruth,
        protocols: Sequence[Protocol],
    ) -> None:
        self._prepared = {p: _Prepared(shortlist, scores, ground_truth, p) for p in protocols}

    def evaluate(self, num_rerank: int, fusion: Fusion) -> dict[Protocol, Result]:
        """Return the metrics with the first ``num_rerank`` re-ranked, after junk was moved to the end."""
        return {p: prepared.evaluate(num_rerank, fusion) for p, prepared in self._prepared.items()}


class _Prepared:
    """``Reranked`` under one protocol."""

    def __init__(
        self,
        shortlist: Shortlist,
        scores: np.ndarray | ListScores,
        ground_truth: GroundTruth,
        protocol: Protocol,
    ) -> None:
        self._protocol = protocol
        columns = junk_behind(shortlist.ids, junk_ids(ground_truth, protocol))
        self._labels = label(np.take_along_axis(shortlist.ids, columns, 1), ground_truth, protocol)
        rows = slice(self._labels.rows.start, self._labels.rows.stop)
        self._rows = np.arange(len(columns))[rows]
        self._similarities, self._ids = (
            np.take_along_axis(x[rows], columns[rows], 1) for x in (shortlist.similarities, shortlist.ids)
        )
        self._scores = scores
        if isinstance(scores, np.ndarray):
            self._scores = np.take_along_axis(scores[rows], columns[rows], 1)

    def evaluate(self, num_rerank: int, fusion: Fusion) -> Result:
        head = slice(None), slice(num_rerank)
        ids, similarities = self._ids[head], self._similarities[head]
        if isinstance(self._scores, ListScores):
            order = self._scores.order(self._rows, ids, similarities, fusion)
        else:
            order = rank(fusion.fuse(similarities, self._scores[head]), ids >= 0)
        entries = self._labels.entries.copy()
        entries[head] = np.take_along_axis(entries[head], order, 1)
        return summarize(replace(self._labels, entries=entries), self._protocol)


def sweep(reranked: Reranked, grid: Grid) -> list[dict[str, Any]]:
    """Return one row for each combination, in the order of the grid."""
    return [
        {"num_rerank": k} | fusion.to_keys() | metrics(reranked.evaluate(k, fusion))
        for k, fusion in grid.combinations()
    ]


class Rated(TypingProtocol):
    """Scored lists that give metrics for a fusion, such as ``Reranked``."""

    def evaluate(self, num_rerank: int, fusion: Fusion) -> dict[Protocol, Result]: ...


def choose_fusion(
    reranked: Rated, num_rerank: int, *, slack: float = 0.5, unit: float = 1.0
) -> tuple[Fusion, float]:
    """Return the fusion that a validation split chooses from ``Grid``'s, and its mean mAP over the protocols.
    Protocols under which no query has a positive are left out; AmesError if these are all.
    unit: of the scores (``Similarity.score_unit``); gammas of the grid are divided by it.

    mAP is flat around its best. Of all fusions within ``slack`` points of it, the one that trusts the
    global similarity most is taken (the largest lambda / ((1 - lambda) gamma), the ratio of the slopes of
    the two terms): a local score learned on one domain is the part that transfers worse to another.
    """
    maps = {
        fusion: validation_metrics(reranked.evaluate(num_rerank, fusion))["val_map"]
        for fusion in starmap(Fusion, product(Grid.lamb, [gamma / unit for gamma in Grid.temp]))
    }
    good = max(maps.values()) - slack
    chosen = max(
        (fusion for fusion, value in maps.items() if value >= good),
        key=lambda fusion: (fusion.lamb / (1 - fusion.lamb) / fusion.gamma, maps[fusion]),
    )
    return chosen, maps[chosen]
