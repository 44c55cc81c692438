"""Means over queries with bootstrap intervals, and paired differences between methods."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ames.datasets.components import components
from ames.datasets.ground_truth import GroundTruth, ids
from ames.evaluation.held_out import Interval, interval
from ames.evaluation.protocols import Protocol


def query_objects(truth: GroundTruth, protocol: Protocol) -> list[str]:
    """Return an object of each query: queries that share a positive are of one, and are resampled together.

    So are a query and a positive of it that is a query, too (leave-one-out). A query without a positive is an
    object of its own.
    """
    owner: dict[int, int] = {}
    pairs = []
    numbers = {name: number for number, name in enumerate(truth.imlist)}
    for place, query in enumerate(truth.queries):
        itself = numbers.get(truth.qimlist[place])
        for image in [*ids(query, protocol.positives).tolist(), *([] if itself is None else [itself])]:
            pairs.append((owner.setdefault(image, place), place))
    names = [""] * len(truth.queries)
    for number, group in enumerate(components(len(truth.queries), pairs)):
        for place in group:
            names[place] = f"object {number}"
    return names


def mean(values: Sequence[np.ndarray], objects: Sequence[Sequence[str]]) -> Interval | None:
    """Return the mean over all queries of several sets with its interval; None where no query has a figure.

    values: float64 [Q] of each set, NaN of queries left out; objects: of each query. Objects of different
    sets are different.
    """
    named = [f"{number} {name}" for number, names in enumerate(objects) for name in names]
    joined = np.concatenate(list(values))
    return None if np.isnan(joined).all() else interval(joined, named)


def difference(
    values: Sequence[np.ndarray], other: Sequence[np.ndarray], objects: Sequence[Sequence[str]]
) -> Interval | None:
    """Return the mean of the paired differences, query by query, with its interval."""
    return mean([a - b for a, b in zip(values, other, strict=True)], objects)


def seed_spread(values: Sequence[np.ndarray]) -> float | None:
    """Return the standard deviation of the means of several seeds; None for fewer than two."""
    means = [float(np.nanmean(x)) for x in values if not np.isnan(x).all()]
    return float(np.std(means, ddof=1)) if len(means) > 1 else None
