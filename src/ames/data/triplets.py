"""Triplets (anchor, positive, negative) drawn from a shortlist of the training set against itself."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ames.data.ahead import ahead
from ames.data.descriptors import DescriptorFile
from ames.data.shortlist import Shortlist
from ames.errors import AmesError
from ames.features import LocalFeatures


@dataclass(frozen=True)
class TripletBatch:
    """Features of B triplets, each [B, N, D]; ``images`` int64 [3, B] are their numbers, in that order."""

    images: np.ndarray
    anchor: LocalFeatures
    positive: LocalFeatures
    negative: LocalFeatures

    def pairs(self) -> tuple[LocalFeatures, LocalFeatures]:
        """2B pairs (query, database): B matching ones, then B that do not match."""
        return (
            LocalFeatures.cat((self.anchor, self.anchor)),
            LocalFeatures.cat((self.positive, self.negative)),
        )


class TripletSampler:
    """Draws positives and negatives with probability ~ similarity^power among an anchor's neighbours.

    shortlist: [n, M] of the training images against themselves; labels: int [n]. Only the first
    ``neighbours`` columns count, an image is never its own neighbour, and neighbours of similarity <= 0
    are left out. An anchor is valid with at least ``min_positives`` and ``min_negatives`` of them (AMES'
    training: 300 neighbours, 5 and 5, power 3). ``statistics``: images, labels and anchors; images left out
    for too few positives and for too few negatives; positives and negatives of an anchor on average.
    """

    def __init__(
        self,
        shortlist: Shortlist,
        labels: np.ndarray,
        *,
        neighbours: int = 300,
        min_positives: int = 5,
        min_negatives: int = 5,
        power: float = 3.0,
    ) -> None:
        if min(min_positives, min_negatives) < 1:
            raise AmesError("min_positives and min_negatives must be at least 1: one of each is drawn")
        if len(shortlist.ids) != len(labels):
            raise AmesError(f"shortlist of {len(shortlist.ids)} images, but {len(labels)} labels")
        if shortlist.ids.max(initial=-1) >= len(labels):
            raise AmesError(
                f"shortlist names image {shortlist.ids.max()} of {len(labels)}: is it of another data set?"
            )
        self.ids = shortlist.ids[:, :neighbours]
        labels = np.asarray(labels)
        similar = np.where(self.ids >= 0, shortlist.similarities[:, :neighbours], 0).clip(min=0)
        similar[self.ids == np.arange(len(labels))[:, None]] = 0
        same = labels[self.ids] == labels[:, None]
        weight = similar.astype(np.float64) ** power
        self._positive = np.cumsum(np.where(same, weight, 0), axis=1)
        self._negative = np.cumsum(np.where(same, 0, weight), axis=1)
        positives = (same & (weight > 0)).sum(1)
        negatives = (~same & (weight > 0)).sum(1)
        self.anchors = np.flatnonzero((positives >= min_positives) & (negatives >= min_negatives))
        self.statistics = {
            "images": len(labels),
            "labels": len(np.unique(labels)),
            "anchors": len(self.anchors),
            "few_positives": int((positives < min_positives).sum()),
            "few_negatives": int((negatives < min_negatives).sum()),
            "positives": float(positives[self.anchors].mean()) if len(self.anchors) else 0.0,
            "negatives": float(negatives[self.anchors].mean()) if len(self.anchors) else 0.0,
        }
        if not len(self.anchors):
            raise AmesError(
                f"no valid anchor among {len(labels)} images: at most {positives.max(initial=0)} positives "
                f"and {negatives.max(initial=0)} negatives among the first {neighbours} neighbours "
                f"(needed: {min_positives} and {min_negatives})"
            )

    def draw(self, anchors: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """anchors int [B] -> (positives, negatives), each int64 [B]."""
        return self._draw(self._positive, anchors, rng), self._draw(self._negative, anchors, rng)

    def _draw(self, cumulative: np.ndarray, anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        rows = cumulative[anchors]
        total = rows[:, -1:]
        # Below the total also after rounding: behind it lie only entries of no weight.
        threshold = np.minimum(rng.random((len(anchors), 1)) * total, np.nextafter(total, 0))
        column = (rows <= threshold).sum(1)
        return self.ids[anchors, column]

    def epoch(
        self, batch: int, rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """One permutation of the valid anchors in batches of ``batch`` triplets; a short rest is left out
        unless it is all there is.
        """
        order = rng.permutation(self.anchors)
        batch = min(batch, len(order))
        for start in range(0, len(order) - batch + 1, batch):
            anchors = order[start : start + batch]
            yield anchors, *self.draw(anchors, rng)


class TripletLoader:
    """Batches of triplets with their descriptors; one pass over it is one epoch.

    count: descriptors read an image. workers: threads that read ahead of the model; workers + 1 batches at
    most are in memory. The same seed gives the same batches, whatever the workers; every epoch differs.
    """

    def __init__(
        self,
        sampler: TripletSampler,
        descriptors: DescriptorFile,
        *,
        triplets: int,
        count: int,
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        if len(descriptors) != len(sampler.ids):
            raise AmesError(
                f"{descriptors.path}: {len(descriptors)} images, but {len(sampler.ids)} in the shortlist"
            )
        if descriptors.packed:
            raise AmesError(f"{descriptors.path}: holds packed bits; training needs descriptors")
        self.sampler, self.descriptors = sampler, descriptors
        self.triplets = min(triplets, len(sampler.anchors))
        self.count, self.workers, self.seed = count, workers, seed
        self._passes = 0

    def __len__(self) -> int:
        return len(self.sampler.anchors) // self.triplets

    def __iter__(self) -> Iterator[TripletBatch]:
        """The next epoch."""
        self._passes += 1
        return self.epoch(self._passes - 1)

    def epoch(self, number: int, start: int = 0) -> Iterator[TripletBatch]:
        """Epoch ``number`` (from 0), from its batch ``start`` on: the same batches whatever came before."""
        rng = np.random.default_rng([self.seed, 11, number])
        # Triplets are drawn where the batches are used, one after the other: threads only read.
        triplets = islice(self.sampler.epoch(self.triplets, rng), start, None)
        return ahead(self._read, triplets, self.workers)

    def settings(self) -> dict[str, object]:
        """What the batches depend on, apart from the descriptors."""
        anchors = zlib.crc32(np.ascontiguousarray(self.sampler.anchors).tobytes())
        return {"seed": self.seed, "triplets": self.triplets, "count": self.count, "anchors": anchors}

    def _read(self, triplet: tuple[np.ndarray, np.ndarray, np.ndarray]) -> TripletBatch:
        local = self.descriptors.read(np.concatenate(triplet), self.count, locations=False)
        # One trim for the three: the distillation compares tokens slot by slot.
        local = local.trim_padding()
        B = self.triplets
        return TripletBatch(np.stack(triplet), local[:B], local[B : 2 * B], local[2 * B :])
