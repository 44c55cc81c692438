"""Recognition by nearest neighbours, with a confidence: GAP, GAP- and accuracy (The Met dataset).

Ypsilantis et al., "The Met Dataset: Instance-level Recognition for Artworks", NeurIPS Datasets and Benchmarks
2021, and the evaluation that its authors released. GAP is the micro average precision of the Google
landmark recognition challenge (Weyand et al., CVPR 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from ames.errors import AmesError

UNKNOWN = -1  # the class of a distractor query, which no prediction can meet


@dataclass(frozen=True)
class RecognitionRule:
    """neighbours: images of the ranking that vote. temperature: factor of similarities in the softmax.

    AmesError for less than one neighbour, and a temperature that is not finite and above 0.
    """

    neighbours: int = 1
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.neighbours, bool) or not isinstance(self.neighbours, int) or self.neighbours < 1:
            raise AmesError(f"neighbours that vote are {self.neighbours!r}: give a whole number from 1 on")
        if not 0 < self.temperature < np.inf:
            raise AmesError(f"temperature of the votes is {self.temperature!r}: give a number above 0")


@dataclass(frozen=True, eq=False)
class Predictions:
    """classes int64 [Q], UNKNOWN where a query has no neighbour; confidences float64 [Q], then 0."""

    classes: np.ndarray
    confidences: np.ndarray


@dataclass(frozen=True)
class RecognitionFigures:
    """Figures in percent. They have no values for each query: queries are ranked together.

    gap: over all queries, of which distractors can only lose. gap_known: "GAP-", over the others alone.
    accuracy: share of right predictions among the others. rule: with which they were made.
    """

    gap: float
    gap_known: float
    accuracy: float
    rule: RecognitionRule


def predict(
    ids: np.ndarray, similarities: np.ndarray, gallery_classes: np.ndarray, rule: RecognitionRule
) -> Predictions:
    """Return the class and the confidence of each query.

    ids int [Q, M], similarities float [Q, M]: a ranking, best first, -1 no entry. gallery_classes int [n],
    from 0 on. Of the first ``neighbours`` entries, a class has the highest similarity, or 0 where that is
    negative. The confidence is the highest value of the softmax of ``temperature`` times these over all
    classes of the gallery, where a class without a neighbour has 0. Of equal classes the lowest wins.
    AmesError where the sizes disagree, M is below the neighbours, or an id is outside of the gallery.
    """
    ids, similarities = np.asarray(ids), np.asarray(similarities, np.float64)
    if ids.ndim != 2 or ids.shape != similarities.shape or ids.dtype.kind not in "iu":
        raise AmesError(
            f"recognition needs ids and similarities of one shape [queries, entries], not {list(ids.shape)} "
            f"and {list(similarities.shape)}"
        )
    if ids.shape[1] < min(rule.neighbours, len(gallery_classes)):
        raise AmesError(f"{rule.neighbours} neighbours vote, but the ranking has {ids.shape[1]} entries")
    if ids.size and not -1 <= ids.min() <= ids.max() < len(gallery_classes):
        raise AmesError(
            f"ranking holds an id outside of the gallery, which has {len(gallery_classes)} images"
        )
    total = len(np.unique(gallery_classes))
    found = [
        _vote(gallery_classes[row[row >= 0]], values[row >= 0], total, rule.temperature)
        for row, values in zip(ids[:, : rule.neighbours], similarities[:, : rule.neighbours], strict=True)
    ]
    classes, confidences = [x for x, _ in found], [x for _, x in found]
    return Predictions(np.array(classes, np.int64), np.array(confidences, np.float64))


def recognition_figures(
    predictions: Predictions, query_classes: np.ndarray, rule: RecognitionRule
) -> RecognitionFigures:
    """Return the figures of predictions; query_classes int [Q], UNKNOWN of distractor queries.

    AmesError where sizes disagree, and where every query is a distractor.
    """
    truth = np.asarray(query_classes)
    if truth.shape != predictions.classes.shape:
        raise AmesError(f"{len(predictions.classes)} predictions, but {len(truth)} classes of queries")
    known = truth != UNKNOWN
    if not known.any():
        raise AmesError("every query is a distractor, so that nothing can be recognized")
    right = known & (predictions.classes == truth)
    count = int(known.sum())
    return RecognitionFigures(
        gap=global_average_precision(right, predictions.confidences, count),
        gap_known=global_average_precision(right[known], predictions.confidences[known], count),
        accuracy=100 * float(right.sum()) / count,
        rule=rule,
    )


def global_average_precision(right: np.ndarray, confidences: np.ndarray, num_known: int) -> float:
    """Return GAP in percent: the sum, over right predictions, of the precision among those that are at least
    as confident, over ``num_known``, the number of queries that have a class.

    right bool [Q], confidences float [Q]. Of equal confidences, the earlier query comes first.
    """
    right = np.asarray(right)[np.argsort(-np.asarray(confidences), kind="stable")]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return 100 * float(precision[right].sum()) / num_known


def choose_rule(
    ids: np.ndarray,
    similarities: np.ndarray,
    gallery_classes: np.ndarray,
    query_classes: np.ndarray,
    rules: Sequence[RecognitionRule],
) -> RecognitionRule:
    """Return the rule of the highest GAP on a ranking of validation queries; of equal ones, the first.

    AmesError as ``predict`` and ``recognition_figures``, and without a rule.
    """
    if not rules:
        raise AmesError("no rule to choose from; give neighbours and temperatures")

    def gap(rule: RecognitionRule) -> float:
        found = predict(ids, similarities, gallery_classes, rule)
        return recognition_figures(found, query_classes, rule).gap

    return max(rules, key=gap)


def rules_of(neighbours: Sequence[int], temperatures: Sequence[float]) -> list[RecognitionRule]:
    """Return every combination, temperatures fastest, as the published grid is tried."""
    return [RecognitionRule(k, t) for k, t in product(neighbours, temperatures)]


def _vote(classes: np.ndarray, similarities: np.ndarray, total: int, temperature: float) -> tuple[int, float]:
    """The class and the confidence of one query, from its neighbours' classes [k] and similarities [k]."""
    if not len(classes):
        return UNKNOWN, 0.0
    names, places = np.unique(classes, return_inverse=True)
    best = np.zeros(len(names))
    np.maximum.at(best, places, similarities)
    logits = temperature * best
    top = logits.max()  # subtracted, so that a high temperature does not overflow
    weights = np.exp(logits - top)
    share = weights / (weights.sum() + (total - len(names)) * np.exp(-top))
    place = int(logits.argmax())
    return int(names[place]), float(share[place])
