"""Average precision, precision and recall at k of one query, in percent, from the ranks of its positives."""

from collections.abc import Sequence

import numpy as np

from ames.errors import AmesError

AP_RULES = ("trapezoid", "rectangle", "at-r")


def average_precision(
    ranks: np.ndarray, num_positives: int, *, rule: str = "trapezoid", cutoff: int | None = None
) -> float:
    """Return the average precision of one query in percent; NaN if it has no positive.

    ranks: int [P], ascending zero-based positions of the positives found, junk removed before counting.
    num_positives: all positives of the query, found or not; those not found lower the metric.
    rule: "trapezoid", the mean of the precision just before and at each hit (revisited Oxford/Paris
    evaluation, Radenovic et al. 2018); "rectangle", the precision at each hit (GLDv2, Weyand et al. 2020);
    "at-r", the rectangle cut at R = ``num_positives``: MAP@R (Musgrave et al. 2020).
    cutoff: only hits among the first ``cutoff`` positions count; the divisor is min(num_positives, cutoff).
    Raises AmesError for an unknown rule, a cutoff below 1 or of "at-r", unsorted or repeated ranks, or more
    ranks than positives.
    """
    ranks = _checked(ranks, num_positives)
    if rule not in AP_RULES:
        raise AmesError(f"unknown rule of average precision {rule!r}: choose one of {', '.join(AP_RULES)}")
    if cutoff is not None and cutoff < 1:
        raise AmesError(f"cutoff of average precision is {cutoff}: give at least 1, or None for no cutoff")
    if rule == "at-r" and cutoff is not None:
        raise AmesError(f"cutoff of average precision is {cutoff}: the rule 'at-r' has none")
    if num_positives == 0:
        return float("nan")
    if rule == "at-r":
        cutoff = num_positives
    if cutoff is not None:
        ranks = ranks[ranks < cutoff]
        num_positives = min(num_positives, cutoff)
    hits = np.arange(len(ranks))  # positives ranked before each hit
    precision = (hits + 1) / (ranks + 1)
    if rule == "trapezoid":
        before = np.where(ranks == 0, 1.0, hits / np.maximum(ranks, 1))
        precision = (before + precision) / 2
    return 100 * float(precision.sum()) / num_positives


def ap_heading(rule: str, cutoff: int | None = None) -> str:
    """Return the name of a rule's mean average precision in tables: mAP, mAP@100, mAP@R."""
    after = "" if cutoff is None else f"@{cutoff}"
    return "mAP" + {"trapezoid": after, "rectangle": after or "@all", "at-r": "@R"}[rule]


def hit_at(ranks: np.ndarray, ks: Sequence[int], *, num_positives: int) -> np.ndarray:
    """Return 100 for each k with a positive among the first k, else 0, float64 [len(ks)]; NaN if the query
    has no positive. Its mean over queries is the recall@k of metric learning and place recognition.

    ranks, num_positives: as in ``average_precision``. Raises AmesError as ``precision_at``.
    """
    ranks = _checked(ranks, num_positives)
    if any(k < 1 for k in ks):
        raise AmesError(f"hit at k is asked for k = {min(ks)}: give values of at least 1")
    if num_positives == 0:
        return np.full(len(ks), np.nan)
    first = ranks[0] if len(ranks) else np.inf
    return 100.0 * (first < np.array(ks))


def precision_at(ranks: np.ndarray, ks: Sequence[int], *, num_positives: int) -> np.ndarray:
    """Return the precision at each k of one query in percent, float64 [len(ks)]; NaN if it has no positive.

    The rule of the revisited Oxford/Paris evaluation: a k beyond the last positive is replaced by the
    (one-based) position of that last positive, so that a perfect ranking has 100 at every k.
    ranks, num_positives: as in ``average_precision``. If positives are missing from the ranking, k stays: a
    ranking cut at M >= k has the metric of the whole one.
    Raises AmesError for a k below 1 and as ``average_precision`` does for the ranks.
    """
    ranks = _checked(ranks, num_positives)
    if any(k < 1 for k in ks):
        raise AmesError(f"precision at k is asked for k = {min(ks)}: give values of at least 1")
    if num_positives == 0:
        return np.full(len(ks), np.nan)
    limits = np.array(ks, dtype=np.int64)
    if len(ranks) == num_positives:
        limits = np.minimum(limits, ranks[-1] + 1)
    return 100 * np.searchsorted(ranks, limits) / limits


def recall_at(ranks: np.ndarray, ks: Sequence[int], *, num_positives: int) -> np.ndarray:
    """Return the recall at each k of one query in percent, float64 [len(ks)]; NaN if it has no positive.

    The share of all positives that are among the first k: below 100 where there are more positives than k.
    ranks, num_positives: as in ``average_precision``. Raises AmesError as ``precision_at``.
    """
    ranks = _checked(ranks, num_positives)
    if any(k < 1 for k in ks):
        raise AmesError(f"recall at k is asked for k = {min(ks)}: give values of at least 1")
    if num_positives == 0:
        return np.full(len(ks), np.nan)
    return 100 * np.searchsorted(ranks, np.array(ks, np.int64)) / num_positives


def _checked(ranks: np.ndarray, num_positives: int) -> np.ndarray:
    """Return the ranks as int64 [P], after the checks that both metrics need."""
    ranks = np.asarray(ranks, dtype=np.int64)
    if ranks.ndim != 1 or (len(ranks) and ranks[0] < 0) or np.any(np.diff(ranks) <= 0):
        raise AmesError("ranks of the positives must be one ascending list of distinct positions from 0 on")
    if len(ranks) > num_positives:
        raise AmesError(f"{len(ranks)} positives were found for a query that has {num_positives}")
    return ranks
