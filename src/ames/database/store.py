"""The compact database: local and global codes and names of a collection, in one folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ames.database.manifest import NAME, File, Manifest
from ames.database.segment import HAS_GLOBAL, ROW_HEAD, Segment
from ames.descriptors.provenance import check_one_space
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.io.gather import Memory
from ames.models.base import Similarity

if TYPE_CHECKING:  # h5py is not loaded for a search
    from ames.descriptors.local import DescriptorFile

_OPENINGS = 5  # while a writer replaces the files


class Database:
    """A snapshot of a database, read through memory maps; changes made after opening are not seen.

    Images are numbered 0 ... ``len`` - 1 in the order in which they were added, deleted ones left out.
    ``slots``: local codes per image at most; ``codes``: "bits" or "float16"; ``width``: dimensions of a code;
    ``image_bytes``: of a row; ``provenance``: of the descriptors. AmesError for a folder without a database,
    and for one that is damaged or incomplete (unless ``allow_partial``).
    """

    packed = True  # what ``read`` gives are codes, as from a packed descriptor file

    def __init__(self, path: Path | str, *, allow_partial: bool = False) -> None:
        self.path = Path(path)
        for left in reversed(range(_OPENINGS)):
            self.manifest = Manifest.load(self.path)
            try:
                self.segments = [Segment(self.path / file.name) for file in self.manifest.segments]
                self._alive = self._read_alive()
                break
            except FileNotFoundError as error:
                # A writer may have replaced the manifest, and removed old files, in between.
                if not left or Manifest.load(self.path).generation == self.manifest.generation:
                    raise AmesError(f"{error.filename}: missing; the database is not whole") from error
        if self.manifest.building is not None and not allow_partial:
            raise AmesError(
                f"{self.path}: {self.rows:,} of {self.manifest.building:,} images; its building was "
                "interrupted: call the same ames compress again to resume"
            )
        for segment, rows in zip(self.segments, self.manifest.rows, strict=True):
            if segment.rows != rows or segment.layout != self.manifest.layout:
                raise AmesError(f"{segment.path}: does not fit the manifest of the database")
        self.slots, self.codes = self.manifest.slots, self.manifest.codes
        self.width = self.manifest.code_bytes * 8 if self.codes == "bits" else self.manifest.code_bytes // 2
        self.image_bytes = self.manifest.layout.row_bytes
        self.provenance = self.manifest.provenance
        self.bytes_read = 0
        self._memory = Memory()

    def _read_alive(self) -> np.ndarray | None:
        """Return int64 rows of the images that are not deleted; None: all."""
        file = self.manifest.deleted
        if file is None:
            return None
        bits = np.unpackbits(np.frombuffer(_checked(self.path, file), np.uint8), count=self.rows)
        return np.flatnonzero(bits == 0)

    # ---- what it is -----------------------------------------------------------------------------

    @property
    def rows(self) -> int:
        """Rows of all segments, deleted images included."""
        return sum(self.manifest.rows)

    def __len__(self) -> int:
        return self.rows if self._alive is None else len(self._alive)

    @property
    def bytes_per_image(self) -> float:
        """Size of all files divided by the number of images."""
        manifest = (self.path / NAME).stat().st_size
        return (self.manifest.file_bytes + manifest) / max(len(self), 1)

    @cached_property
    def names(self) -> list[str]:
        """Names of the images, read at first use."""
        names = [name for segment in self.segments for name in segment.names()]
        return names if self._alive is None else [names[row] for row in self._alive]

    @property
    def is_named(self) -> bool:
        """Whether the images have names of their own, not their numbers."""
        return bool(self.manifest.source.get("named", True))

    @property
    def space(self) -> str | None:
        """Of the embedder that made the global vectors; None: none did."""
        return self.provenance.get("space")

    def check_space(self, space: str | None, source: object) -> None:
        """AmesError unless vectors of a source, of this space, can be compared with the database's."""
        check_one_space(space, source, self.space, self.path)

    # ---- reading --------------------------------------------------------------------------------

    def read(
        self, rows: Sequence[int] | np.ndarray, count: int | None = None, *, locations: bool = False
    ) -> LocalFeatures:
        """Return the ``count`` strongest local codes (None: all) of some images, in any order: uint8
        [len(rows), count, bytes] or float16 [len(rows), count, d], for ``Similarity.expand``.

        A database has no ``locations``. AmesError for images that do not exist or are damaged.
        """
        table = self.rows_as_stored(rows)
        count = self.slots if count is None else min(count, self.slots)
        counts = table[:, :2].copy().view("<u2")[:, 0].astype(np.int64)
        codes = table[:, ROW_HEAD : ROW_HEAD + count * self.manifest.code_bytes]
        if self.codes != "bits":
            codes = np.ascontiguousarray(codes).view("<f2")
        valid = torch.arange(count) < torch.from_numpy(counts)[:, None]
        width = self.manifest.code_bytes if self.codes == "bits" else self.width
        return LocalFeatures(torch.from_numpy(codes.reshape(len(counts), count, width)), valid, coded=True)

    def global_codes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return global codes uint8 [n, bytes] of all images, and bool [n]: which of them have one."""
        if not self.manifest.global_bytes:
            raise AmesError(f"{self.path}: holds no global descriptors; it was made without --global")
        parts = [np.empty((0, self.manifest.global_bytes), np.uint8)]  # there may be no segment
        present = [np.empty(0, bool)]
        for segment in self.segments:
            for block in segment.blocks():
                parts.append(block[:, ROW_HEAD + self.manifest.layout.local_bytes :].copy())
                present.append(block[:, 2] & HAS_GLOBAL != 0)
        codes, has_global = np.concatenate(parts), np.concatenate(present)
        return (codes, has_global) if self._alive is None else (codes[self._alive], has_global[self._alive])

    def empty_rows(self) -> np.ndarray:
        """Return int64: the images with neither local codes nor a global one, which no search finds."""
        heads = [np.array(segment.table[:, :3]) for segment in self.segments]
        head = np.concatenate([np.empty((0, 3), np.uint8), *heads])
        empty = (head[:, :2] == 0).all(1) & (head[:, 2] & HAS_GLOBAL == 0)
        return np.flatnonzero(empty if self._alive is None else empty[self._alive])

    def rows_as_stored(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return uint8 [n, row_bytes] of some images, checked, as their segments store them."""
        stored = self.stored_rows(rows)
        self.bytes_read += len(stored) * self.image_bytes
        if len(self.segments) == 1:
            return self.segments[0].read(stored, self._memory)
        starts = np.cumsum([0, *self.manifest.rows])
        where = np.searchsorted(starts, stored, side="right") - 1
        table = np.empty((len(stored), self.image_bytes), np.uint8)
        for i in np.unique(where):
            here = np.flatnonzero(where == i)
            table[here] = self.segments[i].read(stored[here] - starts[i], self._memory)
        return table

    def stored_rows(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return int64 [n]: the rows of all segments at which some images are stored."""
        wanted = np.asarray(rows, np.int64)
        outside = (wanted < 0) | (wanted >= len(self))
        if outside.any():
            raise AmesError(f"{self.path}: holds {len(self)} images, there is no image {wanted[outside][0]}")
        return wanted if self._alive is None else self._alive[wanted]

    def deleted_rows(self) -> np.ndarray:
        """Return int64: the rows of deleted images."""
        return np.setdiff1d(np.arange(self.rows), self.stored_rows(np.arange(len(self))))

    # ---- checking -------------------------------------------------------------------------------

    def verify(self) -> None:
        """Read everything and compare all checksums; AmesError names the first that is wrong."""
        for segment in self.segments:
            for _ in segment.blocks():
                pass
            if len(segment.names()) != segment.rows:
                raise AmesError(f"{segment.path}: {len(segment.names())} names for {segment.rows} rows")
        if self.manifest.codec is not None:  # the deleted rows were checked when this was opened
            read_file(self.path, self.manifest.codec)

    def check_model(self, model: Similarity) -> None:
        """Refuse a model whose projection did not make the codes."""
        found = model.fingerprint()
        if found != self.manifest.projection:
            maker = self.manifest.model.get("name") or "another model"
            raise AmesError(
                f"{self.path}: its codes were made by another projection ({maker}, fingerprint "
                f"{self.manifest.projection[:12]}; the model's: {found[:12]}): use the model that made "
                "it, or compress the descriptors, or index the photos, again to a new folder"
            )


def read_file(folder: Path, file: File) -> bytes:
    """Read a file of the manifest; AmesError if it is missing or its checksum is wrong."""
    try:
        return _checked(folder, file)
    except FileNotFoundError as error:
        raise AmesError(f"{folder / file.name}: missing; the database is not whole") from error


def _checked(folder: Path, file: File) -> bytes:
    data = (folder / file.name).read_bytes()
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise AmesError(f"{folder / file.name}: damaged (its checksum is wrong)")
    return data


def slots_read(model: Similarity, file: DescriptorFile | Database, count: int) -> int:
    """Return the slots that ``count`` descriptors of an image take in a file, which may hold codes."""
    return model.slots_of(count, coded=isinstance(file, Database) or file.packed)


def check_codes(model: Similarity, file: DescriptorFile | Database) -> None:
    """Refuse a database or packed descriptors whose codes this model did not make; other files pass."""
    if isinstance(file, Database):
        file.check_model(model)
        return
    if not file.packed or file.width == model.code_bits:
        return
    takes = "takes no packed bits" if model.code_bits is None else f"takes {model.code_bits}"
    raise AmesError(
        f"{file.path}: holds descriptors packed to {file.width} bits, but the model {takes}; "
        "use a binary model of that many bits, or descriptors that are not packed"
    )
