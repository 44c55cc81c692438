"""Triplets (anchor, positive, negative) drawn from a shortlist of the training set against itself."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ames.data.ahead import ahead
from ames.data.descriptors import DescriptorFile
from ames.data.shortlist import Shortlist
from ames.errors import AmesError
from ames.features import LocalFeatures


@dataclass(frozen=True)
class TripletBatch:
    """Features of B triplets of an anchor, a positive and n negatives, all of one size N.

    images int64 [2 + n, B]: their numbers, in that order. anchor, positive: [B, N, D]; negatives:
    [n * B, N, D], the first one of every anchor, then the second. ``first`` is the place of the first triplet
    in the global batch of ``triplets`` triplets (None: this is all of it), of which ranks have a part each.
    """

    images: np.ndarray
    anchor: LocalFeatures
    positive: LocalFeatures
    negatives: LocalFeatures
    first: int = 0
    triplets: int | None = None

    def pairs(self) -> tuple[LocalFeatures, LocalFeatures]:
        """(1 + n) * B pairs (query, database): B matching ones, then n * B that do not match."""
        return (
            LocalFeatures.cat((self.anchor,) * (len(self.images) - 1)),
            LocalFeatures.cat((self.positive, self.negatives)),
        )

    @property
    def labels(self) -> Tensor:
        """float32 [(1 + n) * B] on the batch's device: 1 for the pairs that match, 0 for the others."""
        matching, pairs = self.images.shape[1], self.images[1:].size
        return (torch.arange(pairs, device=self.anchor.valid.device) < matching).float()

    @property
    def positions(self) -> np.ndarray:
        """int64 [(1 + n) * B]: the places of ``pairs`` among the pairs of the global batch."""
        blocks, B = len(self.images) - 1, self.images.shape[1]
        whole = B if self.triplets is None else self.triplets
        return (np.arange(blocks)[:, None] * whole + self.first + np.arange(B)).reshape(-1)

    @property
    def share(self) -> float:
        """The batch's pairs over those of the global batch."""
        return 1.0 if self.triplets is None else self.images.shape[1] / self.triplets

    @property
    def longest(self) -> int:
        """N: the descriptor slots of its images, as many as the longest of them needs."""
        return self.anchor.size

    def trimmed(self, size: int) -> TripletBatch:
        """The same with ``size`` slots an image: cut off behind them, or filled up with padding. The ranks of
        a global batch agree on the largest ``longest``, for the distillation compares padded tokens too.
        """
        return self if size == self.longest else self._changed(lambda x: x.trim(size).pad(size))

    def to(self, device: Any) -> TripletBatch:
        """Features on another device."""
        return self._changed(lambda x: x.to(device))

    def _changed(self, function: Callable[[LocalFeatures], LocalFeatures]) -> TripletBatch:
        anchor, positive, negatives = map(function, (self.anchor, self.positive, self.negatives))
        return replace(self, anchor=anchor, positive=positive, negatives=negatives)


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
        negatives: int = 1,
    ) -> None:
        if negatives < 1:
            raise AmesError(f"negatives {negatives}: an anchor needs at least 1")
        if min(min_positives, min_negatives) < 1:
            raise AmesError("min_positives and min_negatives must be at least 1: one of each is drawn")
        if len(shortlist.ids) != len(labels):
            raise AmesError(f"shortlist of {len(shortlist.ids)} images, but {len(labels)} labels")
        if shortlist.ids.max(initial=-1) >= len(labels):
            raise AmesError(
                f"shortlist names image {shortlist.ids.max()} of {len(labels)}: is it of another data set?"
            )
        self.ids, self.negatives = shortlist.ids[:, :neighbours], negatives
        labels = np.asarray(labels)
        similar = np.where(self.ids >= 0, shortlist.similarities[:, :neighbours], 0).clip(min=0)
        similar[self.ids == np.arange(len(labels))[:, None]] = 0
        same = labels[self.ids] == labels[:, None]
        weight = similar.astype(np.float64) ** power
        self._positive, self._negative = np.where(same, weight, 0), np.where(same, 0, weight)
        positives = (same & (weight > 0)).sum(1)
        others = (~same & (weight > 0)).sum(1)
        self.anchors = np.flatnonzero((positives >= min_positives) & (others >= min_negatives))
        self.statistics = {
            "images": len(labels),
            "labels": len(np.unique(labels)),
            "anchors": len(self.anchors),
            "few_positives": int((positives < min_positives).sum()),
            "few_negatives": int((others < min_negatives).sum()),
            "positives": float(positives[self.anchors].mean()) if len(self.anchors) else 0.0,
            "negatives": float(others[self.anchors].mean()) if len(self.anchors) else 0.0,
        }
        if not len(self.anchors):
            raise AmesError(
                f"no valid anchor among {len(labels)} images: at most {positives.max(initial=0)} positives "
                f"and {others.max(initial=0)} negatives among the first {neighbours} neighbours "
                f"(needed: {min_positives} and {min_negatives})"
            )

    def draw(self, anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """anchors int [B] -> int64 [1 + negatives, B]: positives, then negatives. Those of an anchor differ
        as long as there are enough.
        """
        ids = self.ids[anchors]
        positives = _drawn(ids, self._positive[anchors], rng.random((len(anchors), 1)))
        return np.concatenate(
            (positives, _drawn(ids, self._negative[anchors], rng.random((len(anchors), self.negatives))))
        )

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
    """int64 [n, B]: n of each row's ids [B, C], drawn with probability ~ weight by numbers [B, n] in [0, 1);
    without replacement, until a row has none left.
    """
    rows = np.arange(len(ids))
    left, drawn = weights.copy(), []
    for number in numbers.T:
        sums = np.cumsum(left, axis=1)
        total = sums[:, -1:]
        # Below the total also after rounding: behind it lie only entries of no weight.
        threshold = np.minimum(number[:, None] * total, np.nextafter(total, 0))
        column = (sums <= threshold).sum(1)
        drawn.append(ids[rows, column])
        left[rows, column] = 0
        exhausted = ~left.any(1)
        left[exhausted] = weights[exhausted]
    return np.stack(drawn)


class TripletLoader:
    """Batches of triplets with their descriptors; one pass over it is one epoch.

    count: descriptors read an image. workers: threads that read ahead of the model; workers + 1 batches at
    most are in memory. The same seed gives the same batches, whatever the workers; every epoch differs.
    ranks: processes that train together; all of them draw the same global batches, of which ``rank`` reads
    its part (``np.array_split``). Raises AmesError where a rank would have none.
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
        rank: int = 0,
        ranks: int = 1,
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
        if not 0 <= rank < ranks:
            raise AmesError(f"rank {rank} of {ranks} ranks: give one of 0 ... {ranks - 1}")
        if self.triplets < ranks:
            raise AmesError(
                f"a batch of {self.triplets} triplets cannot be shared by {ranks} ranks: give a larger one"
            )
        self.rank, self.ranks = rank, ranks
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
        sampler = self.sampler
        return {
            "seed": self.seed,
            "triplets": self.triplets,
            "count": self.count,
            "anchors": zlib.crc32(np.ascontiguousarray(sampler.anchors).tobytes()),
            "negatives": sampler.negatives,
        }

    def _read(self, images: np.ndarray) -> TripletBatch:
        part = np.array_split(np.arange(self.triplets), self.ranks)[self.rank]
        images, B = images[:, part], len(part)
        local = self.descriptors.read(images.reshape(-1), self.count, locations=False)
        # One trim for all of them: the distillation compares tokens slot by slot.
        local = local.trim_padding()
        return TripletBatch(
            images, local[:B], local[B : 2 * B], local[2 * B :], first=int(part[0]), triplets=self.triplets
        )
