"""Segments: the files in which a database keeps its images, one row of fixed width an image.

A segment is written once and never changed. docs/database.md describes it byte by byte; in short, a header
of 64 bytes, the rows, the names. A row is: number of descriptors (u16), flags (u8), 0 (u8), CRC-32 of the
rest of the row (u32), local codes, global code. All numbers are little-endian.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np

from ames.errors import AmesError
from ames.io.gather import Memory, gather

MAGIC, VERSION = b"AMESSEG\0", 1
_HEADER = struct.Struct("<8sIIIIIQQI")  # magic, version, row bytes, slots, code bytes, global bytes, rows,
HEADER_BYTES = 64  # bytes of names, CRC-32 of the header up to here; zeros up to 64
ROW_HEAD = 8
HAS_GLOBAL = 1  # flag: the image has a global descriptor (one without keypoints has none)


class Batch(NamedTuple):
    """Images to be added: names, counts int [n], local codes uint8 [n, slots, code_bytes], global codes uint8
    [n, global_bytes] (None: the database has none) and bool [n], which images have one.
    """

    names: Sequence[str]
    counts: np.ndarray
    local: np.ndarray
    vectors: np.ndarray | None = None
    present: np.ndarray | None = None


@dataclass(frozen=True)
class RowLayout:
    """Widths of a row: ``slots`` local codes of ``code_bytes`` each, and a global code (0: there is none)."""

    slots: int
    code_bytes: int
    global_bytes: int

    @property
    def local_bytes(self) -> int:
        return self.slots * self.code_bytes

    @property
    def row_bytes(self) -> int:
        return ROW_HEAD + self.local_bytes + self.global_bytes

    def rows(self, counts: np.ndarray, local: np.ndarray, vectors: np.ndarray | None) -> np.ndarray:
        """uint8 [n, row_bytes] from counts int [n], local codes uint8 [n, slots, code_bytes] and global codes
        uint8 [n, global_bytes] (None: no image of these has one).
        """
        rows = np.zeros((len(counts), self.row_bytes), np.uint8)
        rows[:, :2] = counts.astype("<u2").view(np.uint8).reshape(-1, 2)
        rows[:, ROW_HEAD : ROW_HEAD + self.local_bytes] = local.reshape(len(counts), -1)
        if vectors is not None:
            rows[:, ROW_HEAD + self.local_bytes :] = vectors
        return rows

    def table(self, batch: Batch) -> np.ndarray:
        """uint8 [n, row_bytes]: the rows of images as a segment holds them, checksums included."""
        rows = self.rows(batch.counts, batch.local, batch.vectors)
        if batch.present is not None:
            rows[:, 2] = np.where(batch.present, HAS_GLOBAL, 0)
        return sealed(rows)


def sealed(rows: np.ndarray) -> np.ndarray:
    """The same rows with their checksums in place."""
    rows[:, 4:8] = checksums(rows).astype("<u4").view(np.uint8).reshape(-1, 4)
    return rows


def checksums(rows: np.ndarray) -> np.ndarray:
    """uint32 [n]: CRC-32 of each row uint8 [n, row_bytes] but for the checksum itself."""
    return np.fromiter((zlib.crc32(row[8:], zlib.crc32(row[:4])) for row in rows), np.uint32, len(rows))


class SegmentWriter:
    """Writes a segment, block by block, to a path that nobody reads yet; ``finish`` makes it durable.

    Used as a context manager: what was not finished is removed.
    """

    def __init__(self, path: Path, layout: RowLayout) -> None:
        self.path, self.layout = path, layout
        self._names: list[bytes] = []

    def __enter__(self) -> SegmentWriter:
        self._file = self.path.open("xb")
        self._file.write(bytes(HEADER_BYTES))
        self._finished = False
        return self

    def add(self, rows: np.ndarray, names: Sequence[str]) -> None:
        """Rows uint8 [n, row_bytes] of ``RowLayout.rows`` with the images' names."""
        assert rows.shape == (len(names), self.layout.row_bytes), rows.shape
        self._file.write(sealed(rows).tobytes())
        self._names += [name.encode() for name in names]

    def finish(self) -> int:
        """Writes names and header, syncs; returns the file's size."""
        ends = np.cumsum([0, *map(len, self._names)]).astype("<u4")
        names = ends.tobytes() + b"".join(self._names)
        self._file.write(names + struct.pack("<I", zlib.crc32(names)))
        layout = self.layout
        sizes = layout.row_bytes, layout.slots, layout.code_bytes, layout.global_bytes, len(self._names)
        head = _HEADER.pack(MAGIC, VERSION, *sizes, len(names), 0)[:-4]
        self._file.seek(0)
        self._file.write(head + struct.pack("<I", zlib.crc32(head)))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._finished = True
        return self.path.stat().st_size

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if not self._finished:
            self.path.unlink(missing_ok=True)


class Segment:
    """Reads a segment through a memory map; nothing but its header is touched before it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            head, size = file.read(HEADER_BYTES), path.stat().st_size
        if len(head) < HEADER_BYTES or head[:8] != MAGIC:
            raise AmesError(f"{path}: not a segment of a database")
        _, version, row_bytes, slots, code, vector, rows, names, crc = _HEADER.unpack_from(head)
        if version != VERSION:
            raise AmesError(f"{path}: version {version} of the format, this library reads {VERSION}")
        if crc != zlib.crc32(head[: _HEADER.size - 4]):
            raise AmesError(f"{path}: its header is damaged")
        self.layout, self.rows = RowLayout(slots, code, vector), rows
        self._names_at = HEADER_BYTES + rows * row_bytes
        self._names_bytes = names
        expected = self._names_at + names + 4
        if size != expected:
            raise AmesError(f"{path}: {size} bytes, should be {expected}: cut off or damaged")
        # The whole file: a compaction may take its name away, but not what is mapped.
        self._data = np.memmap(path, np.uint8, "r").view(np.ndarray)
        self.table = self._data[HEADER_BYTES : self._names_at].reshape(rows, row_bytes)

    def read(self, rows: np.ndarray, memory: Memory) -> np.ndarray:
        """uint8 [n, row_bytes] of rows int64 [n]; AmesError where a row's checksum is wrong."""
        found = gather(self.table, rows, 0, self.layout.row_bytes, memory)
        self._check(found, rows)
        return found

    def names(self) -> list[str]:
        """The images' names, in the order of the rows; AmesError if they are damaged."""
        data = self._data[self._names_at : self._names_at + self._names_bytes].tobytes()
        (crc,) = struct.unpack("<I", self._data[-4:].tobytes())
        if zlib.crc32(data) != crc:
            raise AmesError(f"{self.path}: the names are damaged")
        ends = np.frombuffer(data, "<u4", self.rows + 1).tolist()
        text = data[4 * (self.rows + 1) :]
        return [text[a:b].decode() for a, b in pairwise(ends)]

    def blocks(self, size: int = 1 << 14) -> Iterator[np.ndarray]:
        """All rows in order, checked, in blocks uint8 [<= size, row_bytes]."""
        for start in range(0, self.rows, size):
            rows = min(size, self.rows - start)
            block = self._scan(HEADER_BYTES + start * self.layout.row_bytes, rows * self.layout.row_bytes)
            block = block.reshape(rows, self.layout.row_bytes)
            self._check(block, np.arange(start, start + rows))
            yield block

    def _scan(self, start: int, size: int) -> np.ndarray:
        """Bytes that are gone through once: not through the map, in which they would stay in memory."""
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                return np.frombuffer(file.read(size), np.uint8)
        except FileNotFoundError:  # compacted since; the map still has it
            return self._data[start : start + size]

    def _check(self, found: np.ndarray, rows: np.ndarray) -> None:
        stored = np.ascontiguousarray(found[:, 4:8]).view("<u4")[:, 0]
        bad = np.flatnonzero(checksums(found) != stored)
        if len(bad):
            raise AmesError(
                f"{self.path}: row {rows[bad[0]]} is damaged (its checksum is wrong); restore the file, or "
                "delete the image and add it again"
            )
