"""Negatives of an anchor, drawn by distance."""

from __future__ import annotations

import numpy as np

from ames.errors import AmesError

_NEAREST = 0.5  # a distance below counts as this, so that no single neighbour takes all the weight
_FLOOR = 1e-6  # as released: added to all weights (the largest is 1), so that nothing is impossible


def negative_probabilities(
    anchors: np.ndarray, pool: np.ndarray, anchor_labels: np.ndarray, pool_labels: np.ndarray
) -> np.ndarray:
    """Return how probable each pool image is as a negative of each anchor, float64 [A, n]; rows sum to 1.

    anchors [A, d], pool [n, d]: unit vectors. The weight is 1 / q, where q(x) ~ x^(d - 2) (1 - x^2 / 4)^((d -
    3) / 2) is the density of distances on the sphere (Wu et al., ICCV 2017), with distances below 0.5 taken
    as 0.5. It is 0 for images of the anchor's label. Relative to the row's largest weight, 1e-6 is added to
    all, as released.
    """
    squared = np.clip(2 - 2 * (anchors @ pool.T).astype(np.float64), _NEAREST**2, 4)
    d = anchors.shape[1]
    rest = np.maximum(1 - squared / 4, 1e-8)  # 0 for opposite vectors, whose weight would be infinite
    logs = -((d - 2) / 2) * np.log(squared) - ((d - 3) / 2) * np.log(rest)
    logs[anchor_labels[:, None] == pool_labels] = -np.inf
    largest = logs.max(1, keepdims=True, initial=-np.inf)
    weights = np.exp(logs - np.where(np.isfinite(largest), largest, 0)) + _FLOOR
    return weights / weights.sum(1, keepdims=True)


def draw_negatives(probabilities: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return places int64 [A, k] in the pool, all different in a row, by probabilities [A, n] and uniform
    numbers [A, k] in [0, 1): each is drawn among those that are left. AmesError if k is more than n.
    """
    if numbers.shape[1] > probabilities.shape[1]:
        raise AmesError(f"{numbers.shape[1]} negatives cannot be drawn from {probabilities.shape[1]} images")
    left, places = probabilities.copy(), np.empty(numbers.shape, np.int64)
    rows = np.arange(len(left))
    for k, number in enumerate(numbers.T):
        sums = np.cumsum(left, axis=1)
        wanted = number[:, None] * sums[:, -1:]
        place = np.minimum((sums <= wanted).sum(1), left.shape[1] - 1)
        places[:, k] = place
        left[rows, place] = 0
    return places
