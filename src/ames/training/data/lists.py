"""Batches of lists: a query, its nearest neighbours in a random order, and which of them match."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ames.descriptors.local import DescriptorFile
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.training.data.candidates import Candidates, Scan
from ames.training.data.loader import BatchLoader


@dataclass(frozen=True)
class ListBatch:
    """B lists of K images: images int64 [1 + K, B], the queries' numbers first; labels float32 [B, K], 1 for
    a match; query [B, N, D], candidates [B, K, N, D].
    """

    images: np.ndarray
    labels: Tensor
    query: LocalFeatures
    candidates: LocalFeatures

    def part(self, first: int, last: int) -> ListBatch:
        """Its lists ``first`` ... ``last`` - 1."""
        rows = slice(first, last)
        return ListBatch(self.images[:, rows], self.labels[rows], self.query[rows], self.candidates[rows])

    def to(self, device: Any) -> ListBatch:
        """On another device."""
        query, candidates = self.query.to(device), self.candidates.to(device)
        return replace(self, labels=self.labels.to(device), query=query, candidates=candidates)


class ListSampler:
    """The first ``length`` neighbours of each anchor, shuffled (LOCORE, CVPR 2025: a list's order is random
    in training).

    An anchor has at least ``length`` neighbours and ``min_positives`` matches among all that are stored.
    scan: of the same candidates by another process. AmesError where no image is an anchor.
    """

    def __init__(
        self, candidates: Candidates, *, length: int, min_positives: int = 0, scan: Scan | None = None
    ) -> None:
        found = scan or candidates.scan()
        near = found.positives + found.negatives
        valid = (found.positives >= min_positives) & (near >= length)
        if not valid.any():
            raise AmesError(
                f"no list of {length} images: an image has at most {near.max(initial=0)} neighbours and "
                f"{found.positives.max(initial=0)} matches {found.where} (needed: {length} and "
                f"{min_positives}); lower the model's window, or raise train_dataset.num_neighbours"
            )
        self.candidates, self.length = candidates, length
        self.images, self.anchors = candidates.images, found.anchors[valid]
        self._positives = float(found.positives[valid].mean())

    def describe(self) -> str:
        """One line for the log."""
        return (
            f"{len(self.anchors)} lists of {self.length} neighbours, of {self.images} images; an image has "
            f"{self._positives:.1f} matches among its neighbours on average"
        )

    def settings(self) -> dict[str, Any]:
        """What the lists depend on, apart from the files."""
        digest = zlib.crc32(np.ascontiguousarray(self.anchors, np.int64).tobytes())
        return self.candidates.settings() | {"anchors": digest, "length": self.length}

    def draw(self, anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """anchors int [B] -> int64 [2, 1 + length, B]: images, the anchors first, and 1 where one matches."""
        found = self.candidates.candidates_for(anchors)
        usable = (found.positive > 0) | (found.negative > 0)
        # The first usable entries in their order, which is that of the shortlist; then any order.
        columns = np.argsort(~usable, axis=1, kind="stable")[:, : self.length]
        columns = rng.permuted(columns, axis=1)
        ids = np.take_along_axis(found.ids, columns, 1)
        match = np.take_along_axis(found.positive > 0, columns, 1)
        lists = np.concatenate((anchors[:, None], ids), 1)
        return np.stack((lists, np.pad(match, ((0, 0), (1, 0)))), 0).transpose(0, 2, 1).astype(np.int64)

    def epoch(self, batch: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """One permutation of the anchors in batches, as ``draw``. A short rest is left out."""
        order = rng.permutation(self.anchors)
        for start in range(0, len(order) - batch + 1, batch):
            yield self.draw(order[start : start + batch], rng)


class ListLoader(BatchLoader[ListBatch]):
    """Batches of ``size`` lists with their descriptors (``BatchLoader``)."""

    unit = "lists"
    sampler: ListSampler

    def __init__(
        self, sampler: ListSampler, descriptors: DescriptorFile, *, lists: int, **options: Any
    ) -> None:
        super().__init__(sampler, descriptors, size=lists, **options)

    def _read(self, drawn: np.ndarray, part: np.ndarray) -> ListBatch:
        images, labels = drawn[:, :, part]
        local = self._local(images.T.reshape(-1)).reshape(len(part), len(images))
        return ListBatch(images, torch.from_numpy(labels[1:].T.astype(np.float32)), local[:, 0], local[:, 1:])
