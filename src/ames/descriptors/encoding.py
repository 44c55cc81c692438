"""Rows of descriptor files, one per image, as bytes of a known size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ames.descriptors.layouts import FIELDS, METADATA, PADDING, ROW_COL, SCALE, WEIGHT
from ames.features import LocalFeatures


@dataclass(frozen=True)
class LocalRows:
    """Local descriptors of an image, at most ``slots``, the strongest first.

    width: columns of a descriptor; dtype: "float16" or "float32" (the flat layout), or "uint8" (packed bits,
    compound by image).
    """

    slots: int
    width: int
    dtype: str = "float16"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row: the dataset's without the axis of images."""
        return () if self.dtype == "uint8" else (self.slots, METADATA + self.width)

    @property
    def stored(self) -> np.dtype:
        """The dataset's dtype."""
        if self.dtype != "uint8":
            return np.dtype(self.dtype)
        metadata, descriptor = FIELDS
        return np.dtype(
            [(metadata, "<f4", (self.slots, METADATA)), (descriptor, "u1", (self.slots, self.width))]
        )

    def holds(self, local: LocalFeatures) -> bool:
        """Return whether the dtype can hold every number; float16 would make larger ones infinite."""
        largest = torch.finfo(torch.float16).max
        return self.dtype != "float16" or bool((local.descriptors.abs() <= largest).all())

    def encode(self, images: Sequence[LocalFeatures | None]) -> np.ndarray:
        """Features [N, D] of each image -> [images, *shape].

        None and missing descriptors become padding, metadata that an image does not have zeros.
        """
        out = np.zeros((len(images), *self.shape), self.stored)
        if self.dtype == "uint8":
            metadata, descriptors = out["metadata"], out["descriptor"]
        else:
            metadata, descriptors = out[..., :METADATA], out[..., METADATA:]
        metadata[..., PADDING] = 1
        for row, local in enumerate(images):
            if local is not None:
                self._fill(metadata[row], descriptors[row], local.trim(self.slots))
        return out

    def _fill(self, metadata: np.ndarray, descriptors: np.ndarray, local: LocalFeatures) -> None:
        n = local.size
        # A cast would make numbers beyond float16's 65,504 infinite: pixels of a long image, large weights.
        most = float(np.finfo(metadata.dtype).max)
        for columns, value in ((ROW_COL, local.positions), (SCALE, local.scale), (WEIGHT, local.weight)):
            if value is not None:
                metadata[:n, columns] = value.cpu().float().clamp(-most, most).numpy()
        metadata[:n, PADDING] = ~local.valid.cpu().numpy()
        found = local.descriptors.cpu()
        descriptors[:n] = (found if self.dtype == "uint8" else found.float()).numpy()


@dataclass(frozen=True)
class VectorRows:
    """Global descriptors, float32; an image without one gets zeros."""

    width: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.width,)

    @property
    def stored(self) -> np.dtype:
        return np.dtype(np.float32)

    def encode(self, images: Sequence[np.ndarray | None]) -> np.ndarray:
        """float [width] of each image -> [images, width]."""
        out = np.zeros((len(images), self.width), np.float32)
        for row, vector in enumerate(images):
            if vector is not None:
                out[row] = vector
        return out


def row_bytes(rows: LocalRows | VectorRows) -> int:
    """Bytes that an image takes in the file."""
    return rows.stored.itemsize * math.prod(rows.shape)
