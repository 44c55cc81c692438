"""Batches of triplets (anchor, positive, negatives) with the descriptors of their images."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from ames.descriptors.local import DescriptorFile
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.io.prefetch import ahead
from ames.training.data.sampler import TripletSampler
from ames.training.distributed import Ranks

_SAMPLED = 8  # images that stand for a file


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
        """The same with ``size`` slots per image: cut off after them, or filled with padding. The ranks of
        a global batch agree on the largest ``longest``, for the distillation compares padded tokens too.
        """
        return self if size == self.longest else self._changed(lambda x: x.trim(size).pad(size))

    def part(self, first: int, last: int) -> TripletBatch:
        """Its triplets ``first`` ... ``last`` - 1."""
        B = self.images.shape[1]
        rows = (np.arange(len(self.images) - 2)[:, None] * B + np.arange(first, last)).reshape(-1)
        return replace(
            self,
            images=self.images[:, first:last],
            anchor=self.anchor[first:last],
            positive=self.positive[first:last],
            negatives=self.negatives[torch.from_numpy(rows)],
            first=self.first + first,
            triplets=B if self.triplets is None else self.triplets,
        )

    def without_padding(self) -> TripletBatch:
        """The same, cut off after the last real descriptor of all its images."""
        sides = (self.anchor, self.positive, self.negatives)
        return self.trimmed(max(1, *(int(x.lengths.max()) for x in sides)))

    def to(self, device: Any) -> TripletBatch:
        """Features on another device."""
        return self._changed(lambda x: x.to(device))

    def _changed(self, function: Callable[[LocalFeatures], LocalFeatures]) -> TripletBatch:
        anchor, positive, negatives = map(function, (self.anchor, self.positive, self.negatives))
        return replace(self, anchor=anchor, positive=positive, negatives=negatives)


B = TypeVar("B")


class Sampler(Protocol):
    """What is drawn: ``anchors``, of a list of ``images`` images."""

    @property
    def images(self) -> int: ...
    @property
    def anchors(self) -> np.ndarray: ...

    def epoch(self, batch: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Batches [..., batch] of what is drawn."""

    def settings(self) -> dict[str, Any]:
        """What the draws depend on, apart from the files."""


class BatchLoader(ABC, Generic[B]):
    """Batches of ``size`` anchors, and what is drawn for them, with their descriptors.

    count: descriptors read per image. workers: threads that read ahead of the model; at most workers + 1
    batches are in memory. scales: of the descriptors, too, for models that read them. The same seed gives the
    same batches, whatever the workers; every epoch differs.
    """

    unit = "items"

    def __init__(
        self,
        sampler: Sampler,
        descriptors: DescriptorFile,
        *,
        size: int,
        count: int,
        seed: int = 0,
        workers: int = 0,
        scales: bool = False,
    ) -> None:
        if len(descriptors) != sampler.images:
            raise AmesError(
                f"{descriptors.path}: {len(descriptors)} images, but {sampler.images} in the training list"
            )
        if descriptors.packed:
            raise AmesError(f"{descriptors.path}: holds packed bits; training needs descriptors")
        self.sampler, self.descriptors = sampler, descriptors
        self.size = min(size, len(sampler.anchors))
        self.count, self.workers, self.seed, self.scales = count, workers, seed, scales

    def __len__(self) -> int:
        return len(self.sampler.anchors) // self.size

    def epoch(self, number: int, start: int = 0, ranks: Ranks | None = None) -> Iterator[B]:
        """Epoch ``number`` (from 0), from its batch ``start`` on: the same batches whatever came before.

        All ``ranks`` (None: this process alone) draw the same global batches, of which each reads its part
        (``np.array_split``). AmesError where one would have none.
        """
        ranks = ranks or Ranks()
        if self.size < ranks.count:
            raise AmesError(
                f"a batch of {self.size} {self.unit} cannot be shared by {ranks.count} ranks: give a "
                "larger one"
            )
        part = np.array_split(np.arange(self.size), ranks.count)[ranks.rank]
        rng = np.random.default_rng([self.seed, 11, number])
        # They are drawn where the batches are used, one after the other: threads only read.
        drawn = islice(self.sampler.epoch(self.size, rng), start, None)
        return ahead(partial(self._read, part=part), drawn, self.workers)

    def settings(self) -> dict[str, object]:
        """What the batches depend on."""
        own = {"seed": self.seed, self.unit: self.size, "count": self.count, "descriptors": self._sample}
        return own | self.sampler.settings()

    @abstractmethod
    def _read(self, drawn: np.ndarray, part: np.ndarray) -> B:
        """A batch of the places ``part`` of what was drawn, [..., size]."""

    def _local(self, images: np.ndarray) -> LocalFeatures:
        """The features of images, trimmed to one size."""
        return self.descriptors.read(images, self.count, locations=self.scales).trim_padding()

    @cached_property
    def _sample(self) -> int:
        """A checksum of some images' descriptors, which shows another file of the same name."""
        rows = np.unique(np.linspace(0, len(self.descriptors) - 1, _SAMPLED).astype(int))
        found = self.descriptors.read(rows, self.count, locations=False)
        digest = zlib.crc32(np.ascontiguousarray(found.descriptors.numpy()).tobytes())
        return digest if found.vector is None else zlib.crc32(found.vector.numpy().tobytes(), digest)


class TripletLoader(BatchLoader[TripletBatch]):
    """Batches of triplets with their descriptors (``BatchLoader``)."""

    unit = "triplets"
    sampler: TripletSampler

    def __init__(
        self, sampler: TripletSampler, descriptors: DescriptorFile, *, triplets: int, **options: Any
    ) -> None:
        super().__init__(sampler, descriptors, size=triplets, **options)

    def _read(self, drawn: np.ndarray, part: np.ndarray) -> TripletBatch:
        images, B = drawn[:, part], len(part)
        # One trim for all of them: the distillation compares tokens slot by slot.
        local = self._local(images.reshape(-1))
        return TripletBatch(
            images, local[:B], local[B : 2 * B], local[2 * B :], first=int(part[0]), triplets=self.size
        )
