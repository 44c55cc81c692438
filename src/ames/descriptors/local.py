"""Read HDF5 files of local and of global descriptors in the published layouts.

Local descriptors: dataset ``features``, written in the flat layout, [images, K, 5 + D] float16 or float32,
contiguous; columns 0, 1 location (row, col), 2 scale, 3 mask (1 = padding), 4 weight, then the descriptor;
rows sorted by falling weight. The other layouts (``ames.descriptors.layouts``) are read too. Global
descriptors: ``features`` [images, D] float32. Files that the library writes carry a ``provenance`` attribute
(JSON) and a dataset ``names``; files without them are read too.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from ames.descriptors.encoding import LocalRows
from ames.descriptors.layouts import PADDING, ROW_COL, SCALE, WEIGHT, find_layout
from ames.descriptors.metadata import (
    Description,
    describe,
    read_description,
    read_missing,
    write_missing,
)
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.io.atomic import atomic_path
from ames.io.gather import Memory, gather
from ames.io.hdf5 import find_features, find_place, open_hdf5, reading

_log = logging.getLogger(__name__)
_BLOCK = 1 << 26  # bytes of a file that are read through HDF5 at a time


_OPTIONAL = ("positions", "scale", "weight")  # what an image may lack


@contextmanager
def create_local(
    path: Path | str,
    *,
    images: int,
    slots: int,
    width: int,
    dtype: str = "float16",
    names: Sequence[str] | None = None,
    provenance: dict[str, Any] | None = None,
) -> Iterator[Callable[[int, LocalFeatures], None]]:
    """A file of local descriptors; yield a function that writes the features [N, D] of one row.

    The file appears at the end of a block without an error. slots: K; a shorter image is padded, a longer one
    cut to its strongest. Rows that are never written are padding. Positions, scale or weight that an image
    lacks are zeros, and the file notes that they are missing.
    """
    missing: set[str] = set()
    rows = LocalRows(slots, width, dtype)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        features = file.create_dataset("features", (images, *rows.shape), rows.stored)
        empty = rows.encode([None])[0]
        for row in range(images):
            features[row] = empty
        describe(file, names, provenance)

        def write(row: int, local: LocalFeatures) -> None:
            features[row] = rows.encode([local])[0]
            missing.update(name for name in _OPTIONAL if getattr(local, name) is None)

        yield write
        write_missing(file, missing)


class DescriptorFile:
    """Read local descriptors of any layout: contiguous files through a memory map, others through HDF5.

    ``len(file)`` images of up to ``slots`` descriptors of ``width`` dimensions; ``provenance`` is what
    the writer recorded ({} for published files). A ``packed`` file holds a binary model's codes: ``read``
    gives uint8 [..., width / 8], the input of ``Similarity.expand``. ``bytes_read`` counts the stored bytes
    that ``read`` has gathered in this process. ``with_vectors`` adds the images' global descriptors,
    ``with_sizes`` the sizes of the images in pixels.

    Each process opens the file on first use, so worker processes, spawned or forked, may get the object.
    Threads may share it.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        with open_hdf5(self.path) as file:
            features = find_features(file)
            self.layout = find_layout(features, self.path)
            self.images, self.slots = self.layout.images, self.layout.slots
            self.width, self.dtype = self.layout.width, self.layout.dtype
            self.packed = self.layout.packed
            self.names, self.provenance = read_description(file, features)
            self.missing = read_missing(file)
            self._place = find_place(features)
            self._stored = features.dtype, features.shape
        self.bytes_read = 0
        self.vectors: GlobalFile | None = None
        self.sizes: np.ndarray | None = None
        self._said_few = False
        self._rows: Any = None
        self._process = os.getpid()
        self._memory = Memory()

    def __len__(self) -> int:
        return self.images

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__ | {"_rows": None, "bytes_read": 0}
        del state["_memory"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _memory=Memory())

    def with_vectors(self, path: Path | str, *, width: int | None = None) -> DescriptorFile:
        """Return this file, whose ``read`` also gives each image's global descriptor as ``vector``, float32
        [n, G] as stored. AmesError where the files are not of the same images, or G is not ``width``.
        """
        vectors = GlobalFile(path)
        check_same_images(vectors, self)
        if width is not None and vectors.width != width:
            raise AmesError(f"{path}: global descriptors are {vectors.width}-d, the model takes {width}-d")
        self.vectors = vectors
        return self

    def with_sizes(self, sizes: np.ndarray) -> DescriptorFile:
        """Return this file, whose ``read`` also gives each image's ``image_size``.

        sizes: float [images, 2], (height, width) of the whole upright images in pixels. AmesError for another
        shape, and for a size that is none.
        """
        sizes = np.array(sizes, np.float32)
        if sizes.shape != (len(self), 2):
            raise AmesError(f"{self.path}: {len(self)} images, but their sizes are {list(sizes.shape)}")
        wrong = ~(np.isfinite(sizes) & (sizes > 0)).all(1)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise AmesError(f"{self.path}: the size of image {row} is {sizes[row].tolist()}: give pixels")
        self.sizes = sizes
        return self

    def _features(self) -> Any:
        if self._place is None and self._process != os.getpid():
            # A map survives a fork. HDF5 would keep using the parent's open file, even for a second handle;
            # closing it here leaves it open there.
            inherited, self._rows = self._rows, None
            if inherited is not None:
                inherited.file.close()
            self._process = os.getpid()
        if self._rows is None:
            if self._place is None:
                self._rows = h5py.File(self.path, "r")["features"]
            else:
                dtype, shape = self._stored
                self._rows = np.memmap(self._place.path, dtype, "r", self._place.offset, shape)
        return self._rows

    @property
    def image_bytes(self) -> int:
        """Bytes that an image takes in the file, uncompressed."""
        dtype, shape = self._stored
        return dtype.itemsize * math.prod(shape[1:])

    def read(
        self, rows: Sequence[int] | np.ndarray, count: int | None = None, *, locations: bool = True
    ) -> LocalFeatures:
        """Return the ``count`` strongest descriptors (None: all) of images in any order, repeated or not.

        [len(rows), count, D] float16 or float32 as stored (wider floats as float32), or uint8 codes
        [len(rows), count, D / 8] of a packed file; padding is zero. positions, scale and weight are float32;
        without ``locations`` they are left out, which is faster, and so are those that the writer did not
        have (``missing``). A file of fewer descriptors per image
        returns all of them, and warns once. AmesError for rows that the file does not have.
        """
        if count is not None and count > self.slots and not self._said_few:
            said = "%s: holds %d descriptors per image, %d asked for; all are used"
            _log.warning(said, self.path, self.slots, count)
            self._said_few = True
        count = self.slots if count is None else min(count, self.slots)
        rows = np.array(rows, np.int64, order="C")
        outside = (rows < 0) | (rows >= self.images)
        if outside.any():
            raise AmesError(f"{self.path}: holds {self.images} images, there is no row {rows[outside][0]}")
        with reading(self.path):
            pieces = self._through_hdf5(rows, count) if self._place is None else self._mapped(rows, count)
        self.bytes_read += sum(piece.nbytes for piece in pieces)  # no call in between: not torn by threads
        metadata, data = self.layout.split(pieces)
        kept = self.dtype if self.packed else np.float16 if self.dtype.itemsize == 2 else np.float32
        data = data.astype(kept, copy=False)
        if not data.flags.aligned or any(stride % data.itemsize for stride in data.strides):
            data = data.copy()  # records of an odd size, which torch does not take
        descriptors = torch.from_numpy(data)
        whole = self._of_images(rows)
        if metadata is None:
            return LocalFeatures.from_descriptors(descriptors, coded=self.packed, **whole)
        padding = np.ascontiguousarray(metadata[..., PADDING]) != 0
        # Padding may hold anything, and 0 * NaN is NaN: masks alone would not keep it out of a score.
        if padding.any():
            data[padding] = 0
        valid = torch.from_numpy(~padding)
        if not locations:
            return LocalFeatures(descriptors, valid, coded=self.packed, **whole)
        # Copied first, then converted: rows are far apart in memory, and each is fetched only once.
        table = torch.from_numpy(np.ascontiguousarray(metadata).astype(np.float32))
        columns: Any = zip(_OPTIONAL, (ROW_COL, SCALE, WEIGHT), strict=True)
        return LocalFeatures(
            descriptors=descriptors,
            valid=valid,
            coded=self.packed,
            **whole,
            **{name: table[..., at] for name, at in columns if name not in self.missing},
        )

    def _of_images(self, rows: np.ndarray) -> dict[str, Any]:
        """What ``with_vectors`` and ``with_sizes`` have added: float32 [n, G] and [n, 2], or None."""
        return {
            "vector": None if self.vectors is None else torch.from_numpy(self.vectors.gather(rows)),
            "image_size": None if self.sizes is None else torch.from_numpy(self.sizes[rows]),
        }

    def _mapped(self, rows: np.ndarray, count: int) -> list[np.ndarray]:
        """The layout's pieces, each [n, ...], as copies from the memory map."""
        table = self._features().view(np.ndarray).reshape(-1).view(np.uint8).reshape(self.images, -1)
        return [
            gather(table, rows, start, dtype.itemsize * math.prod(shape), self._memory)
            .reshape(-1)
            .view(dtype)
            .reshape(len(rows), *shape)
            for start, dtype, shape in self.layout.spans(self._stored[0], count)
        ]

    def _through_hdf5(self, rows: np.ndarray, count: int) -> list[np.ndarray]:
        """The same through HDF5, which wants ascending rows and then reads each chunk once per call."""
        spans = self.layout.spans(self._stored[0], count)
        pieces = [np.empty((len(rows), *shape), dtype) for _, dtype, shape in spans]
        wanted, place = np.unique(rows, return_inverse=True)
        step = max(1, _BLOCK // max(self.image_bytes, 1))
        for first in range(0, len(wanted), step):
            block = wanted[first : first + step]
            run = slice(int(block[0]), int(block[-1]) + 1)  # a slice is read faster than the rows one by one
            found = self.layout.through_hdf5(
                self._features(), run if run.stop - run.start == len(block) else block, count
            )
            here = np.flatnonzero((place >= first) & (place < first + step))
            for piece, part in zip(pieces, found, strict=True):
                piece[here] = part[place[here] - first]
        return pieces


def write_globals(
    path: Path | str,
    vectors: np.ndarray,
    *,
    names: Sequence[str] | None = None,
    provenance: dict[str, Any] | None = None,
) -> None:
    """Global descriptors [images, D], as float32."""
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("features", data=np.asarray(vectors, np.float32))
        describe(file, names, provenance)


def read_globals(path: Path | str) -> np.ndarray:
    """Global descriptors float32 [images, D]."""
    return GlobalFile(path).read()


def check_backbone(file: Any, *, width: int | None, backbone: str | None) -> None:
    """AmesError if a model was not made for these descriptors (``DescriptorFile``, or a database).

    width: the model's descriptor width (None: any). backbone: the one it was trained on (None: unknown).
    The width of packed codes is checked by scoring.
    """
    found = file.provenance.get("backbone")
    if backbone and found and backbone != found:
        raise AmesError(f"{file.path}: made by backbone {found!r}, but the model was trained on {backbone!r}")
    if width is not None and not file.packed and file.width != width:
        raise AmesError(f"{file.path}: descriptors are {file.width}-d, but the model takes {width}-d")


def check_same_images(file: DescriptorFile | GlobalFile, other: DescriptorFile | GlobalFile) -> None:
    """AmesError unless a file of descriptors is of the images of another one, by number and, where both have
    them, by name and order.
    """
    if len(file) != len(other):
        raise AmesError(f"{file.path}: {len(file)} images, but {len(other)} in {other.path}")
    names, wanted = file.names, other.names
    if names and wanted and names != wanted:
        row = next(i for i, (a, b) in enumerate(zip(names, wanted, strict=True)) if a != b)
        raise AmesError(
            f"{file.path}: not of the images of {other.path}: image {row} is {names[row]!r}, there "
            f"{wanted[row]!r}"
        )


def recorded(path: Path | str) -> Description:
    """Return the names and the provenance of a file of local or global descriptors."""
    with open_hdf5(path) as file:
        return read_description(file, find_features(file))


class GlobalFile:
    """Read global descriptors of ``len(file)`` images, ``width`` dimensions each; ``names`` may be None.

    provenance: what the writer recorded. space: of the embedder that made them, None: none did.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        with open_hdf5(self.path) as file:
            features = find_features(file)
            if features.ndim != 2 or features.dtype.kind != "f" or not features.shape[1]:
                raise AmesError(
                    f"{self.path}: 'features' is {features.dtype} {features.shape}; "
                    "expected float (images, width)"
                )
            self.images, self.width = features.shape
            self.names, self.provenance = read_description(file, features)
            self._stored = features.dtype
            self._place = find_place(features)

    @property
    def space(self) -> str | None:
        found = self.provenance.get("space")
        return None if found is None else str(found)

    def __len__(self) -> int:
        return self.images

    def mapped(self) -> np.ndarray | None:
        """The stored vectors [images, D] as a memory map; None if only HDF5 can read them."""
        if self._place is None or not self.images:
            return None
        return np.memmap(self._place.path, self._stored, "r", self._place.offset, (self.images, self.width))

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n, D] of rows in any order, repeated or not."""
        wanted, place = np.unique(rows, return_inverse=True)
        stored = self.mapped()
        found = self.read(wanted) if stored is None else stored[wanted].astype(np.float32)
        return found[place.reshape(-1)]

    def read(self, rows: range | np.ndarray | None = None) -> np.ndarray:
        """float32 [n, D] of ascending rows (None: all)."""
        wanted = np.arange(self.images) if rows is None else np.asarray(rows, np.int64)
        found = np.empty((len(wanted), self.width), np.float32)
        with open_hdf5(self.path) as file:
            features = file["features"]
            # By slices: HDF5 takes ages over single rows.
            step = max(1, _BLOCK // (4 * self.width))
            for start in range(0, self.images, step):
                first, last = np.searchsorted(wanted, [start, start + step])
                if first < last:
                    low, high = int(wanted[first]), int(wanted[last - 1]) + 1
                    found[first:last] = features[low:high][wanted[first:last] - low]
        return found
