"""Layouts of published local descriptor files, each converted to metadata and descriptors.

The shape and the dtype of the dataset ``features`` determine the layout. The mask column is 1 = padding in
all of them, and is inverted where the features become ``LocalFeatures``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ames.errors import AmesError

if TYPE_CHECKING:
    import h5py

METADATA = 5  # columns before the descriptor
ROW_COL, SCALE, PADDING, WEIGHT = slice(0, 2), 2, 3, 4
FIELDS = ("metadata", "descriptor")  # of the compound layouts


@dataclass(frozen=True)
class Layout:
    """How descriptors are stored in a file.

    kind: "flat" (columns), "compound" (one record per descriptor, (images, K) in all), "compound by image"
    (one record per image) or "bare" (packed bits alone, no padding). dtype: of the stored descriptors; uint8
    for packed bits. columns: stored values per descriptor; bytes for packed bits.
    """

    kind: str
    images: int
    slots: int
    columns: int
    dtype: np.dtype

    @property
    def packed(self) -> bool:
        """Descriptors are bits, eight a byte, most significant bit first; 0 means -1 and 1 means +1."""
        return self.dtype == np.uint8

    @property
    def width(self) -> int:
        """Dimensions of a descriptor."""
        return 8 * self.columns if self.packed else self.columns

    @property
    def text(self) -> str:
        """Its name for people."""
        if self.kind == "bare":
            return "packed bits without metadata"
        return f"{self.kind}, packed bits" if self.packed else self.kind

    def spans(self, stored: np.dtype, count: int) -> list[tuple[int, np.dtype, tuple[int, ...]]]:
        """Runs of bytes that hold an image's first ``count`` descriptors: first byte, dtype, shape.

        stored: dtype of the dataset.
        """
        if self.kind == "compound by image":
            fields: Any = stored.fields
            pieces = (fields[name][:2] for name in FIELDS)
            return [(first, field.base, (count, field.shape[-1])) for field, first in pieces]
        columns = {"flat": (METADATA + self.columns,), "bare": (self.columns,), "compound": ()}
        return [(0, stored, (count, *columns[self.kind]))]

    def through_hdf5(
        self, features: h5py.Dataset, rows: np.ndarray | slice, count: int
    ) -> Sequence[np.ndarray]:
        """The same pieces through HDF5, each [n, count, ...], of ascending rows int [n]."""
        if self.kind == "compound by image":
            records = features[rows]
            return [records[name][:, :count] for name in FIELDS]
        return [features[rows, :count]]

    def split(self, pieces: Sequence[np.ndarray]) -> tuple[np.ndarray | None, np.ndarray]:
        """Metadata [n, count, 5] (None: the file has none) and descriptors [n, count, columns], as views."""
        if self.kind == "compound by image":
            metadata, descriptors = pieces
            return metadata, descriptors
        (data,) = pieces
        if self.kind == "compound":
            return data["metadata"], data["descriptor"]
        return (None, data) if self.kind == "bare" else (data[..., :METADATA], data[..., METADATA:])


def find_layout(features: h5py.Dataset, path: Path) -> Layout:
    """The layout of a dataset; AmesError naming the file if it is none of them."""
    shape, dtype = features.shape, features.dtype
    layout = _compound(shape, dtype) if dtype.names else _plain(shape, dtype)
    if layout is None:
        raise AmesError(
            f"{path}: 'features' is {_text(dtype)} {shape}; expected float (images, descriptors, "
            f"{METADATA} + width), the fields metadata ({METADATA}) and descriptor, "
            "or uint8 (images, descriptors, bytes)"
        )
    return layout


def _plain(shape: tuple[int, ...], dtype: np.dtype) -> Layout | None:
    if len(shape) != 3:
        return None
    images, slots, columns = shape
    if dtype.kind == "f" and columns > METADATA:
        return Layout("flat", images, slots, columns - METADATA, dtype)
    if dtype == np.uint8 and columns:
        return Layout("bare", images, slots, columns, dtype)
    return None


def _compound(shape: tuple[int, ...], dtype: np.dtype) -> Layout | None:
    if not set(FIELDS) <= set(dtype.names or ()):
        return None
    metadata, descriptor = dtype["metadata"], dtype["descriptor"]
    if metadata.base.kind != "f" or not (descriptor.base.kind == "f" or descriptor.base == np.uint8):
        return None
    by_image = len(shape) == 1
    lead = metadata.shape[:1] if by_image else shape[1:]
    inner = lead if by_image else ()
    if len(lead) != 1 or metadata.shape != (*inner, METADATA) or descriptor.shape[:-1] != inner:
        return None
    if not descriptor.shape or not descriptor.shape[-1]:
        return None
    kind = "compound by image" if by_image else "compound"
    return Layout(kind, shape[0], lead[0], descriptor.shape[-1], descriptor.base)


def _text(dtype: np.dtype) -> str:
    if not dtype.names:
        return str(dtype)
    fields = (f"{name} {dtype[name].base} {dtype[name].shape}" for name in dtype.names)
    return f"a compound ({'; '.join(fields)})"
