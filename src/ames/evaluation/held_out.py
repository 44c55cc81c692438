"""Choose on some objects and report on others, with an interval: what a small truth can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ames.datasets.ground_truth import GroundTruth
from ames.errors import AmesError
from ames.evaluation.protocols import Protocol
from ames.evaluation.sweep import Reranked
from ames.global_search.shortlist import Shortlist
from ames.io.text import counted

DRAWS = 2000  # resamples of a bootstrap
SHARE = 0.95  # of the resamples that lie inside an interval


@dataclass(frozen=True)
class Interval:
    """A mean and the bootstrap's interval of it, in the unit of the values."""

    mean: float
    low: float
    high: float

    @property
    def tells(self) -> bool:
        """Whether 0 lies outside: a difference that is more than chance."""
        return self.low > 0 or self.high < 0


def halves(objects: Sequence[str], *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows int64 of two halves of queries that share no object; the first has the odd one.

    objects: of each query. AmesError for fewer than two objects.
    """
    names = sorted(set(objects))
    if len(names) < 2:
        said = counted(len(names), "object")
        raise AmesError(f"the truth has {said} with answers: choosing and reporting need two")
    order = np.random.default_rng(seed).permutation(len(names))
    chosen = {names[i] for i in order[: -(-len(names) // 2)]}
    first = np.array([name in chosen for name in objects])
    return np.flatnonzero(first), np.flatnonzero(~first)


def part(
    shortlist: Shortlist, scores: np.ndarray, truth: GroundTruth, protocol: Protocol, rows: np.ndarray
) -> Reranked:
    """Return the scored shortlist of some queries; scores: logits float32 [Q, M]."""
    queries = [truth.queries[row] for row in rows]
    some = GroundTruth(queries, truth.imlist, [truth.qimlist[row] for row in rows])
    return Reranked(
        Shortlist(shortlist.ids[rows], shortlist.similarities[rows]), scores[rows], some, [protocol]
    )


def interval(values: np.ndarray, objects: Sequence[str], *, seed: int = 0, draws: int = DRAWS) -> Interval:
    """Return the mean of values float64 [Q] of queries, and its percentile interval by the bootstrap.

    Whole objects are drawn, with replacement: queries of one object are not independent (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993, sections 8.5 and 13.3). Values that are NaN are left
    out. AmesError where all are.
    """
    kept = ~np.isnan(values)
    if not kept.any():
        raise AmesError("no query has an answer: there is no mean")
    _, places = np.unique(np.asarray(objects, str)[kept], return_inverse=True)
    sums, counts = np.bincount(places, values[kept]), np.bincount(places)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(draws, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return Interval(float(values[kept].mean()), float(low), float(high))
