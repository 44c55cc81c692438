"""Groups of images of one class with negatives mined for each: what RAML's teachers are trained on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ames.errors import AmesError
from ames.training.data.photo_vectors import PhotoVectors
from ames.training.mining import draw_negatives, negative_probabilities

LABELS = ("released", "own")
_SMALL = 1.1  # as released: the list is small where it has so few images per anchor and pool image
_BLOCK = 4_000_000  # probabilities at a time


class Drawn(NamedTuple):
    """What an epoch compares, before it is known what is similar: rows of the list.

    members int64 [classes, size]: images of one class, -1 where it has fewer. pool int64 [n]: images that may
    be negatives.
    """

    members: np.ndarray
    pool: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """All of them, int64 [m], rising: those whose vectors mining needs."""
        return np.union1d(self.members[self.members >= 0], self.pool)


def draw(labels: np.ndarray, size: int, pool: int, rng: np.random.Generator) -> Drawn:
    """Return up to ``size`` random images of every class that has two or more, the classes in random order,
    and up to ``pool`` random images of all. AmesError where no class has two images, or all are of one class.
    """
    order = np.argsort(labels, kind="stable")
    classes = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    several = [x for x in classes if len(x) > 1]
    if not several:
        raise AmesError("no class has two images: an anchor needs another image of its class")
    if len(classes) < 2:
        raise AmesError("all images are of one class: an anchor needs images of another one")
    members = np.full((len(several), size), -1, np.int64)
    for place, number in enumerate(rng.permutation(len(several))):
        chosen = rng.permutation(several[number])[:size]
        members[place, : len(chosen)] = chosen
    return Drawn(members, np.sort(rng.permutation(len(labels))[:pool]))


def mine(
    drawn: Drawn,
    vectors: PhotoVectors,
    labels: np.ndarray,
    *,
    negatives: int,
    small: bool,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return int64 [classes, size + size * negatives]: the members of each class, then the negatives of the
    first, the second, …; -1 where there is no member, or it has no vector.

    vectors: of ``drawn.rows``. Negatives are drawn from the readable images of the pool by their distance
    (``ames.training.mining``). small: pass wrong labels of the anchors, as released for small lists: those of
    the list's first rows, one for each anchor.
    """
    rows, size = drawn.rows, drawn.members.shape[1]
    place = np.full(len(labels), -1)
    place[rows] = np.where(vectors.readable, np.arange(len(rows)), -1)
    members = np.where(place[drawn.members] >= 0, drawn.members, -1)
    members[drawn.members < 0] = -1
    pool = drawn.pool[place[drawn.pool] >= 0]
    anchors = members[members >= 0]
    given = labels[np.arange(len(anchors)) % len(labels)] if small else labels[anchors]
    found = np.full((*members.shape, negatives), -1, np.int64)
    chosen = np.empty((len(anchors), negatives), np.int64)
    step = max(1, _BLOCK // max(len(pool), 1))
    for first in range(0, len(anchors), step):
        part = slice(first, first + step)
        probabilities = negative_probabilities(
            vectors.values[place[anchors[part]]], vectors.values[place[pool]], given[part], labels[pool]
        )
        chosen[part] = pool[draw_negatives(probabilities, rng.random((len(probabilities), negatives)))]
    found[members >= 0] = chosen
    return np.concatenate((members, found.reshape(len(members), size * negatives)), axis=1)


def is_small(images: int, anchors: int, pool: int) -> bool:
    """Return whether a list of ``images`` images is small as the released code decides it."""
    return pool + anchors >= _SMALL * images


def others(size: int) -> np.ndarray:
    """Return the places of the other members for each member of a group, int64 [size, size - 1]."""
    places = np.arange(size)
    return np.stack([places[places != i] for i in places])


def pairs_of(present: np.ndarray, size: int) -> np.ndarray:
    """Return which pairs of a positive and a negative there are, bool [G, size, size - 1, negatives].

    present bool [G, size + size * negatives]: of groups as ``mine`` lays them out.
    """
    members, negatives = present[:, :size], present[:, size:].reshape(len(present), size, -1)
    positives = members[:, others(size)]
    return members[:, :, None, None] & positives[..., None] & negatives[:, :, None]
