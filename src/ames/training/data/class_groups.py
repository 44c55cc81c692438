"""Groups of images of one class with negatives mined for each: what RAML's teachers are trained on."""

from __future__ import annotations

import numpy as np

from ames.errors import AmesError
from ames.training.mining import draw_negatives, negative_probabilities

LABELS = ("released", "own")
_SMALL = 1.1  # with so many anchors and pool images per image of the list, the released labels are wrong
_BLOCK = 4_000_000  # probabilities at a time


def draw_members(labels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return up to ``size`` random images of each class that has two or more, the classes in random order: int64
    [classes, size], -1 where a class has fewer. AmesError where no class has two.
    """
    order = np.argsort(labels, kind="stable")
    classes = [x for x in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(x) > 1]
    if not classes:
        raise AmesError("no class has two images: an anchor needs another image of its class")
    found = np.full((len(classes), size), -1, np.int64)
    for place, number in enumerate(rng.permutation(len(classes))):
        chosen = rng.permutation(classes[number])[:size]
        found[place, : len(chosen)] = chosen
    return found


def draw_pool(images: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``size`` random images of a list, all of them where it has fewer, int64 [n], rising."""
    return np.sort(rng.permutation(images)[:size])
