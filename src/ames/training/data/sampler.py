"""Which images make a triplet: an anchor, one that matches it, and some that do not."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ames.errors import AmesError
from ames.training.data.candidates import Candidates


class Summary(NamedTuple):
    """The result of a sampler's pass over all images: valid anchors int64 [n], and its statistics. Small, so
    that one process looks and tells the others.
    """

    anchors: np.ndarray
    statistics: dict[str, Any]


class TripletSampler:
    """Draws a positive and ``negatives`` negatives for each anchor, in proportion to its candidates' weights.

    An anchor is valid with at least ``min_positives`` and ``min_negatives`` (None: the candidates'
    ``min_counts``). hard_negative_fraction: of the negatives' draws that are from the candidates; the rest is
    drawn uniformly from all images that do not match. summary: of another sampler of the same candidates,
    which saves the pass over all images. ``statistics``: its counts, for ``describe``.
    """

    def __init__(
        self,
        candidates: Candidates,
        *,
        min_positives: int | None = None,
        min_negatives: int | None = None,
        negatives: int = 1,
        hard_negative_fraction: float = 1.0,
        summary: Summary | None = None,
    ) -> None:
        if negatives < 1:
            raise AmesError(f"negatives {negatives}: an anchor needs at least 1")
        if not 0 <= hard_negative_fraction <= 1:
            raise AmesError(f"hard_negative_fraction {hard_negative_fraction}: give a share from 0 to 1")
        least = tuple(
            known if asked is None else asked
            for known, asked in zip(candidates.min_counts, (min_positives, min_negatives), strict=True)
        )
        if min(least) < 1:
            raise AmesError("min_positives and min_negatives must be at least 1: one of each is drawn")
        self.candidates, self.negatives = candidates, negatives
        self.hard_negative_fraction = hard_negative_fraction
        found = _summarized(candidates, *least) if summary is None else summary
        if found.statistics["images"] != candidates.images:
            counted = found.statistics["images"]
            raise AmesError(f"summary of {counted} images, but there are {candidates.images}")
        self.anchors = found.anchors
        self.statistics = found.statistics | {"hard_negative_fraction": hard_negative_fraction}

    @property
    def images(self) -> int:
        """Rows of the training list."""
        return self.candidates.images

    def summary(self) -> Summary:
        """For the samplers of other processes."""
        return Summary(self.anchors, self.statistics)

    def settings(self) -> dict[str, Any]:
        """What the draws depend on, apart from the files."""
        return self.candidates.settings() | {
            "anchors": zlib.crc32(np.ascontiguousarray(self.anchors, np.int64).tobytes()),
            "negatives": self.negatives,
            "hard_negative_fraction": self.hard_negative_fraction,
        }

    def draw(self, anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """anchors int [B] -> int64 [1 + negatives, B]: positives, then negatives. Those of an anchor differ
        as long as there are enough.
        """
        found, B = self.candidates.candidates_for(anchors), len(anchors)
        drawn = [_drawn(found.ids, found.positive, rng.random((B, 1))[:, 0])]
        numbers = rng.random((B, self.negatives)).T
        # No more numbers than needed: the recipe without this option draws what it always drew.
        hard = np.ones((self.negatives, B), bool) & found.negative.any(1)
        if self.hard_negative_fraction < 1:
            chance = rng.random((B, self.negatives)).T
            hard = hard & (chance < self.hard_negative_fraction)
        left = found.negative.copy()
        for k, number in enumerate(numbers):
            image = _drawn(found.ids, left, number)
            easy = ~hard[k]
            if easy.any():
                taken = np.stack(drawn)[1:, easy]
                image[easy] = self.candidates.sample_other(anchors[easy], number[easy], taken)
            drawn.append(image)
            left[found.ids == image[:, None]] = 0
            exhausted = ~left.any(1)
            left[exhausted] = found.negative[exhausted]
        return np.stack(drawn)

    def epoch(self, batch: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """One permutation of the valid anchors in batches int64 [2 + negatives, batch]: anchors, positives,
        negatives. A short rest is left out unless it is all there is.
        """
        order = rng.permutation(self.anchors)
        batch = min(batch, len(order))
        for start in range(0, len(order) - batch + 1, batch):
            anchors = order[start : start + batch]
            yield np.concatenate((anchors[None], self.draw(anchors, rng)))


def _drawn(ids: np.ndarray, weights: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """int64 [B]: one of each row's ids [B, C], with probability ~ weight, by numbers [B] in [0, 1); any id
    where a row has no weights.
    """
    sums = np.cumsum(weights, axis=1)
    total = sums[:, -1:]
    # Below the total also after rounding: after it are only entries without weight.
    threshold = np.minimum(numbers[:, None] * total, np.nextafter(total, 0))
    column = np.minimum((sums <= threshold).sum(1), ids.shape[1] - 1)
    return ids[np.arange(len(ids)), column]


def _summarized(candidates: Candidates, min_positives: int, min_negatives: int) -> Summary:
    found = candidates.scan()
    positives, negatives = found.positives, found.negatives
    valid = (positives >= min_positives) & (negatives >= min_negatives)
    if not valid.any():
        raise AmesError(
            f"no valid anchor among {len(found.anchors)} images: at most {positives.max(initial=0)} "
            f"positives and {negatives.max(initial=0)} negatives {found.where} (needed: {min_positives} and "
            f"{min_negatives})"
        )
    statistics = found.statistics | {
        "anchors": int(valid.sum()),
        "few_positives": int((positives < min_positives).sum()),
        "few_negatives": int((negatives < min_negatives).sum()),
        "positives": float(positives[valid].mean()),
        "negatives": float(negatives[valid].mean()),
    }
    return Summary(found.anchors[valid], statistics)


def describe(statistics: dict[str, Any]) -> str:
    """One line about a sampler's statistics: how many anchors, why others are none, what was left out, and
    where negatives come from.
    """
    hard = round(100 * statistics["hard_negative_fraction"])
    if statistics["source"] == "labels":
        images = "{images} images with {labels} labels"
        origin = "negatives come from neighbours"
        if hard < 100:
            origin = f"negatives: {hard} % of the draws from neighbours, the others from all images"
    else:
        images = "{queries} queries with {matches} matches, of {images} images"
        origin = (
            "negatives: {of_list} queries have listed ones, {of_neighbours} neighbours, {of_all} any image"
        )
        origin += f"; {100 - hard} % of the draws from all images" if hard < 100 else ""
    text = (
        f"{{anchors}} valid anchors of {images} ({{few_positives}} have too few positives, {{few_negatives}} "
        "too few negatives); an anchor has {positives:.1f} positives and {negatives:.1f} negatives on "
        "average; "
    ) + origin
    counted = {
        "single_labels": "labels have a single image",
        "duplicates": "images are listed again",
        "repeated": "neighbours named twice, counted once",
        "near_duplicates": "near-duplicates left out",
        "selves": "pairs of an image and itself left out",
        "again": "pairs listed again",
    }
    text += "".join(f"; {statistics[key]} {what}" for key, what in counted.items() if statistics.get(key))
    return text.format(**statistics)
