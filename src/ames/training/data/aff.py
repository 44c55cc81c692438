"""Batches of AFF: images for the query network, and the same images' stored features for the mixer."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ames.embedders.features import StoredFeatures
from ames.embedders.inputs import InputSpec
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.training.arcface import sampled_classes
from ames.training.data.photos import PhotoLoader
from ames.training.distributed import Ranks


@dataclass(frozen=True)
class AffBatch:
    """B images: rows int64 [B] of the list, labels int64 [B] among ``classes``.

    classes: those that the batch is compared with, int64 (None: all, in order). pixels: float [B, 3, s, s],
    None without a query side; features: by name, each [B, n, D], None without a gallery side. left_out:
    images of the whole batch that could not be read. seed: of what is drawn while the batch is learned.
    """

    rows: np.ndarray
    labels: Tensor
    classes: Tensor | None = None
    pixels: Tensor | None = None
    features: dict[str, LocalFeatures] | None = None
    left_out: int = 0
    seed: int = 0

    def to(self, device: torch.device) -> AffBatch:
        """On another device."""
        features = None if self.features is None else {k: x.to(device) for k, x in self.features.items()}
        classes, pixels = (None if x is None else x.to(device) for x in (self.classes, self.pixels))
        return replace(self, labels=self.labels.to(device), classes=classes, pixels=pixels, features=features)


class AffLoader:
    """Batches of the images of a training list.

    labels: int64 [n], from 0. photos: the images and their views, None where no image is read; inputs: what
    the query network takes. stored: features of the same images, None where none are read. class_share: of
    the classes, as ``sampled_classes``. The same seed gives the same batches, whatever the workers and
    processes.
    """

    def __init__(
        self,
        labels: np.ndarray,
        *,
        batch: int,
        photos: PhotoLoader | None = None,
        inputs: InputSpec | None = None,
        stored: StoredFeatures | None = None,
        class_share: float = 1.0,
        seed: int = 0,
    ) -> None:
        if photos is None and stored is None:
            raise AmesError("AFF learns from images, stored features or both: none are given")
        if stored is not None and len(stored) != len(labels):
            path = next(iter(stored.paths.values()))
            raise AmesError(f"{path}: {len(stored)} images, but {len(labels)} in the training list")
        if photos is not None and (photos.items, photos.batch) != (len(labels), min(batch, len(labels))):
            raise AmesError(
                f"batches of {photos.batch} of {photos.items} photos, but of {batch} of {len(labels)} labels"
            )
        self.labels, self.classes = labels, int(labels.max()) + 1
        self.photos, self.inputs, self.stored = photos, inputs or InputSpec(), stored
        self.batch, self.class_share, self.seed = min(batch, len(labels)), class_share, seed
        sampled_classes(labels[:1], self.classes, class_share, np.random.default_rng(0))  # checks the share

    def __len__(self) -> int:
        return len(self.labels) // self.batch

    def order(self, epoch: int) -> np.ndarray:
        """Return the rows of an epoch, one permutation of all."""
        if self.photos is not None:
            return self.photos.order(epoch)
        return np.random.default_rng([self.seed, 13, epoch]).permutation(len(self.labels))

    def epoch(self, number: int, start: int, ranks: Ranks) -> Iterator[AffBatch]:
        """As ``Task.epoch``, the parts of this process of ``ranks``."""
        if self.batch < ranks.count:
            raise AmesError(
                f"a batch of {self.batch} images cannot be shared by {ranks.count} ranks: give a larger one"
            )
        order = self.order(number)
        for place, batch in enumerate(self._parts(number, start, ranks, order), start):
            whole = order[place * self.batch : (place + 1) * self.batch]
            rng = np.random.default_rng([self.seed, 15, number, place])
            classes = sampled_classes(self.labels[whole], self.classes, self.class_share, rng)
            own = np.random.default_rng([self.seed, 16, number, place, ranks.rank])
            labels = self.labels[batch.rows]
            if classes is not None:
                labels = np.searchsorted(classes, labels)
            yield AffBatch(
                batch.rows,
                torch.from_numpy(labels),
                None if classes is None else torch.from_numpy(classes),
                batch.pixels,
                None if self.stored is None else self.stored.read(batch.rows),
                batch.left_out,
                int(own.integers(1 << 62)),
            )

    def _parts(self, number: int, start: int, ranks: Ranks, order: np.ndarray) -> Iterator[AffBatch]:
        """This process's images, without labels and features."""
        nothing = torch.empty(0)
        if self.photos is not None:
            for found in self.photos.epoch(number, start, ranks):
                pixels = self.inputs.tensor(found.pixels)
                yield AffBatch(found.rows, nothing, pixels=pixels, left_out=found.left_out)
            return
        part = np.array_split(np.arange(self.batch), ranks.count)[ranks.rank]
        for place in range(start, len(self)):
            yield AffBatch(order[place * self.batch + part], nothing)

    def settings(self) -> dict[str, Any]:
        """What the batches depend on, as JSON can hold it."""
        digest = zlib.crc32(np.ascontiguousarray(self.labels).tobytes())
        own: dict[str, Any] = {"seed": self.seed, "batch": self.batch, "labels": digest}
        own["class_share"] = self.class_share
        if self.stored is not None:
            own["features"] = [x.to_dict() for x in self.stored.specs] + [self._sample()]
        return own if self.photos is None else own | {"photos": self.photos.settings()}

    def _sample(self) -> int:
        """A checksum of some images' features, which shows other files of the same names."""
        assert self.stored is not None
        rows = np.unique(np.linspace(0, len(self.stored) - 1, 8).astype(int))
        found = 0
        for local in self.stored.read(rows).values():
            found = zlib.crc32(np.ascontiguousarray(local.descriptors.numpy()).tobytes(), found)
        return found
