"""What an anchor of a triplet may be paired with: neighbours that share its label, and those that do not."""

from __future__ import annotations

import os
from typing import Any, NamedTuple, Protocol

import numpy as np
from tqdm import tqdm

from ames.errors import AmesError
from ames.global_search.shortlist import repeated
from ames.io.prefetch import ahead
from ames.training.data.neighbours import Neighbours

_ROWS_AT_ONCE = 2048  # of the pass over all images: bounds the memory that it takes


class Weighted(NamedTuple):
    """Images that B anchors may be paired with, C each: ids int64 [B, C]; their weights as positives and as
    negatives, float64 [B, C], in proportion to which they are drawn. No image has a weight twice in a row.
    """

    ids: np.ndarray
    positive: np.ndarray
    negative: np.ndarray


class Scan(NamedTuple):
    """One pass over all images: anchors int64 [n] that there could be, how many positives and negatives each
    has, int64 [n]; where they were looked for, in words; what was found, for ``describe``.
    """

    anchors: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray
    where: str
    statistics: dict[str, Any]


class Candidates(Protocol):
    """Where triplets come from. images: of the training list; min_counts: positives and negatives that an
    anchor needs by default.
    """

    images: int
    min_counts: tuple[int, int]

    def candidates_for(self, anchors: np.ndarray) -> Weighted:
        """What anchors int [B] may be paired with."""

    def sample_other(self, anchors: np.ndarray, numbers: np.ndarray, taken: np.ndarray) -> np.ndarray:
        """int64 [B]: any images that do not match anchors int [B], uniformly by numbers [B] in [0, 1); none
        of taken int [k, B] as long as there are others.
        """

    def scan(self) -> Scan:
        """What there is, in one pass."""

    def settings(self) -> dict[str, Any]:
        """What the weights depend on, apart from the files."""


class LabelledNeighbours:
    """Positives are an image's neighbours of its label, negatives its others; weights are similarity^power.

    labels: int [n]. first: int [n], of ``read_training_list``: rows that are one image. An image is never its
    own neighbour, whichever row names it, and counts once in a row. Neighbours of similarity <= 0 are left
    out, and those above ``max_similarity`` (near-duplicates; None: they stay).
    """

    min_counts = (5, 5)  # AMES' training

    def __init__(
        self,
        neighbours: Neighbours,
        labels: np.ndarray,
        *,
        first: np.ndarray | None = None,
        similarity_power: float = 3.0,
        max_similarity: float | None = None,
    ) -> None:
        if neighbours.images != len(labels):
            raise AmesError(f"shortlist of {neighbours.images} images, but {len(labels)} labels")
        self.neighbours, self.max_similarity = neighbours, max_similarity
        self.similarity_power = similarity_power
        self.images = len(labels)
        self._labels = np.unique(labels, return_inverse=True)[1].astype(np.int32)
        # Only where a row repeats another: each lookup costs a pass over everything.
        repeats = first is not None and (first != np.arange(len(first))).any()
        self._first = np.asarray(first) if repeats else None
        # Rows by label: those of an image's own label are a block of this order.
        self._by_label = np.argsort(self._labels, kind="stable").astype(np.int32)
        self._place = np.empty_like(self._by_label)
        self._place[self._by_label] = np.arange(self.images, dtype=np.int32)
        self._sizes = np.bincount(self._labels)
        self._starts = np.cumsum(self._sizes) - self._sizes

    def candidates_for(self, anchors: np.ndarray) -> Weighted:
        ids, weight, _ = self._weighted(anchors)
        same = self._labels[ids] == self._labels[anchors][:, None]
        return Weighted(ids, np.where(same, weight, 0), np.where(same, 0, weight))

    def _weighted(self, index: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
        """ids and weights [B, C] of rows, and how many entries were repeated and near-duplicates."""
        ids, similarities = self.neighbours.rows(index)
        rows = np.arange(self.images)[index]
        images = ids
        if self._first is not None:
            images, rows = np.where(ids >= 0, self._first[ids], -1), self._first[rows]
        usable = (ids >= 0) & (images != rows[:, None])
        weight, left_out = neighbour_weights(
            images, similarities, usable, self.similarity_power, self.max_similarity
        )
        return ids, weight, left_out

    def sample_other(self, anchors: np.ndarray, numbers: np.ndarray, taken: np.ndarray) -> np.ndarray:
        labels = self._labels[anchors]
        start, size = self._starts[labels], self._sizes[labels]
        places = self._place[taken]
        places = (places - np.where(places >= start, size, 0)).T  # among the images of other labels
        chosen = nth_free(numbers, self.images - size, places)
        return self._by_label[chosen + np.where(chosen >= start, size, 0)].astype(np.int64)

    def scan(self) -> Scan:
        def count(block: slice) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
            ids, weight, left_out = self._weighted(block)
            near = weight > 0
            same = near & (self._labels[ids] == self._labels[block][:, None])
            return same.sum(1), near.sum(1), left_out

        blocks = [slice(start, start + _ROWS_AT_ONCE) for start in range(0, self.images, _ROWS_AT_ONCE)]
        counted = ahead(count, blocks, min(4, os.cpu_count() or 1))
        bar = tqdm(counted, "neighbours", len(blocks), unit="block", disable=None, delay=2)
        same, near, left_out = zip(*bar, strict=True)
        positives = np.concatenate(same)
        listed = np.arange(self.images) if self._first is None else np.unique(self._first)
        statistics = {
            "source": "labels",
            "images": self.images,
            "labels": len(self._sizes),
            "single_labels": int((np.bincount(self._labels[listed]) == 1).sum()),
            "duplicates": self.images - len(listed),
            "repeated": sum(twice for twice, _ in left_out),
            "near_duplicates": sum(close for _, close in left_out),
        }
        where = f"among the first {self.neighbours.columns} neighbours"
        negatives = np.concatenate(near) - positives
        return Scan(np.arange(self.images), positives, negatives, where, statistics)

    def settings(self) -> dict[str, Any]:
        return {
            "num_neighbours": self.neighbours.columns,
            "similarity_power": self.similarity_power,
            "max_similarity": self.max_similarity,
        }


def neighbour_weights(
    images: np.ndarray, similarities: np.ndarray, usable: np.ndarray, power: float, highest: float | None
) -> tuple[np.ndarray, tuple[int, int]]:
    """similarity^power, float64 [B, C], of ``usable`` neighbours with a similarity > 0, else 0. Also 0 for
    later entries of an image in a row, and for near-duplicates, above ``highest`` (None: no such limit).

    Returns also how many usable entries were repeated, and how many near-duplicates.
    """
    again = usable & repeated(images)
    close = usable & ~again & (similarities > (np.inf if highest is None else highest))
    usable = usable & ~again & ~close & (similarities > 0)
    weight = np.where(usable, similarities.clip(min=0).astype(np.float64) ** power, 0.0)
    return weight, (int(again.sum()), int(close.sum()))


def nth_free(numbers: np.ndarray, count: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """int64 [B]: one of 0 ... count - 1, count int [B], without those of taken int [B, k], repeated or out of
    range as they may be; uniformly by numbers [B] in [0, 1). Where nothing is left, one of them all.
    """
    taken = np.sort(taken, axis=1)
    counts = (taken >= 0) & (taken < count[:, None])
    counts[:, 1:] &= taken[:, 1:] != taken[:, :-1]
    left = count - counts.sum(1)
    counts[left <= 0] = False
    left = np.where(left > 0, left, count)
    chosen = np.minimum((numbers * left).astype(np.int64), left - 1)
    for column in range(taken.shape[1]):  # rising: each one that is passed moves the choice up by one
        chosen += counts[:, column] & (taken[:, column] <= chosen)
    return chosen
