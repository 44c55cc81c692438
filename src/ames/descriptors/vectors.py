"""Global descriptors without a copy: one file, several in sequence, or an array."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ames.descriptors.local import GlobalFile
from ames.descriptors.provenance import check_one_space
from ames.descriptors.unit_length import say_normalized, unit
from ames.errors import AmesError
from ames.io.hdf5 import open_hdf5

_log = logging.getLogger(__name__)
_BLOCK = 1 << 24  # numbers that are read at a time where nothing else says how many


class Vectors:
    """Global descriptors of ``len`` images, ``width`` dimensions each, read piece by piece.

    Images of several files are numbered in sequence. Contiguous files are memory-mapped, others read through
    HDF5. Vectors are read in unit length (``unit``), so that an inner product is a cosine; a warning names
    each file of other lengths. space: of the embedder that made them, None: none did. AmesError if widths
    or spaces differ, or if a vector that is read, or its squares, are not finite.
    """

    def __init__(
        self, parts: list[np.ndarray | GlobalFile], sources: list[str], space: str | None = None
    ) -> None:
        widths = [part.shape[1] if isinstance(part, np.ndarray) else part.width for part in parts]
        for width, source in zip(widths, sources, strict=True):
            if width != widths[0]:
                raise AmesError(
                    f"{source}: holds {width}-d global descriptors, {sources[0]} {widths[0]}-d: they were "
                    "not made by the same backbone"
                )
        self.width, self.space = widths[0], space
        self.side: str | None = None  # of the embedder; ``open`` sets it
        self.sources = sources
        self._parts = parts
        self._said: set[str] = set()  # sources whose vectors are known not to be of unit length
        self._ends = np.cumsum([len(part) for part in parts])

    @classmethod
    def of(cls, array: np.ndarray, source: str = "global descriptors") -> Vectors:
        """From an array [n, D] in memory."""
        if array.ndim != 2 or array.dtype.kind != "f" or not array.shape[1]:
            raise AmesError(f"{source}: {array.dtype} {array.shape}; expected float (images, width)")
        return cls([array], [source])

    @classmethod
    def open(cls, *paths: Path | str) -> Vectors:
        """From one file of global descriptors or more."""
        files = [GlobalFile(path) for path in paths]
        parts = [file if (stored := file.mapped()) is None else stored for file in files]
        for file in files[1:]:
            check_one_space(file.space, file.path, files[0].space, files[0].path)
        found = cls(parts, [str(file.path) for file in files], files[0].space)
        found.side = files[0].provenance.get("side")
        return found

    def check_searchable(self, gallery: Vectors) -> None:
        """AmesError unless these queries and the gallery are of one space; a warning where each was made by
        the other's side.
        """
        check_one_space(self.space, self.sources[0], gallery.space, gallery.sources[0])
        if (self.side, gallery.side) == ("gallery", "query"):
            said = "%s: made by the gallery side, and %s by the query side: the sides are swapped"
            _log.warning(said, self.sources[0], gallery.sources[0])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, start: int, stop: int) -> np.ndarray:
        """A copy, float32 [n, D], of images start ... stop - 1; ``stop`` may exceed the number of images."""
        stop = min(stop, len(self))
        found = np.empty((max(stop - start, 0), self.width), np.float32)
        for first, end, part, source in self._places():
            low, high = max(start, first), min(stop, end)
            if low >= high:
                continue
            piece = found[low - start : high - start]
            with np.errstate(over="ignore"):  # of float64, which ``unit`` finds
                if isinstance(part, GlobalFile):
                    piece[:] = part.read(range(low - first, high - first))
                else:
                    piece[:] = part[low - first : high - first]
            self._normalize(piece, np.arange(low - first, high - first), source)
        return found

    def all(self) -> np.ndarray:
        """A copy, float32 [len, D], of all images."""
        return self.read(0, len(self))

    def gather(self, images: np.ndarray) -> np.ndarray:
        """A copy, float32 [n, D], of some images in any order, repeated or not."""
        found = np.empty((len(images), self.width), np.float32)
        for first, end, part, source in self._places():
            here = np.flatnonzero((images >= first) & (images < end))
            if not len(here):
                continue
            rows, place = np.unique(images[here] - first, return_inverse=True)
            with np.errstate(over="ignore"):
                vectors = _rows(part, rows) if isinstance(part, GlobalFile) else part[rows].astype(np.float32)
            self._normalize(vectors, rows, source)
            found[here] = vectors[place]
        return found

    def blocks(self, size: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first image, vectors float32 [<= size, D]) of all images; do not write to them."""
        size = max(1, _BLOCK // self.width) if size is None else size
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            view = self._view(start, stop)
            yield start, self.read(start, stop) if view is None else view

    def _view(self, start: int, stop: int) -> np.ndarray | None:
        """Images of one part without a copy; None if they must be converted or normalized."""
        first, end, part, source = next(place for place in self._places() if start < place[1])
        if stop > end or not isinstance(part, np.ndarray) or part.dtype != np.float32:
            return None
        rows = part[start - first : stop - first]
        if not (rows.flags.c_contiguous and rows.flags.aligned):
            return None
        found = unit(rows, lambda row: f"{source}: the vector of image {start - first + row}")
        return rows if found is rows else None

    def _normalize(self, vectors: np.ndarray, rows: np.ndarray, source: str) -> None:
        """Bring rows of a source to unit length, in place."""
        fixed = unit(vectors, lambda row: f"{source}: the vector of image {rows[row]}")
        if fixed is not vectors:
            vectors[:] = fixed
            if source not in self._said:
                self._said.add(source)
                say_normalized(source)

    def _places(self) -> Iterator[tuple[int, int, np.ndarray | GlobalFile, str]]:
        """(its first image, the next part's, part, source) of each part."""
        first = 0
        for end, part, source in zip(self._ends.tolist(), self._parts, self.sources, strict=True):
            yield first, end, part, source
            first = end


def digest(*vectors: Vectors) -> str:
    """16 hexadecimal digits of all values of the vectors, in order."""
    found = hashlib.sha256()
    for each in vectors:
        for _, block in each.blocks():
            found.update(block.tobytes())
    return found.hexdigest()[:16]


def _rows(file: GlobalFile, rows: np.ndarray) -> np.ndarray:
    """Rows through HDF5, one by one: for a list of rows it takes longer."""
    with open_hdf5(file.path) as opened:
        features = opened["features"]
        return np.stack([features[int(row)] for row in rows]).astype(np.float32)
