"""Segments: the files in which a database stores its images, one row of fixed width per image.

A segment is written once and never changed. docs/database.md describes each byte: a header of 64 bytes, the
rows, the names. A row is: number of descriptors (u16), flags (u8), 0 (u8), CRC-32 of the
rest of the row (u32), local codes, global code. All numbers are little-endian.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
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
    """Images to add: names, counts int [n], local codes uint8 [n, slots, code_bytes], global codes uint8
    [n, global_bytes] (None: the database has none) and bool [n], which images have one.
    """

    names: Sequence[str]
    counts: np.ndarray
    local: np.ndarray
    vectors: np.ndarray | None = None
    present: np.ndarray | None = None


@dataclass(frozen=True)
class RowLayout:
    """Widths of a row: ``slots`` local codes of ``code_bytes`` each, and a global code (0: none)."""

    slots: int
    code_bytes: int
    global_bytes: int

    @property
    def local_bytes(self) -> int:
        return self.slots * self.code_bytes

    @property
    def row_bytes(self) -> int:
        return ROW_HEAD + self.local_bytes + self.global_bytes

    def table(self, batch: Batch) -> np.ndarray:
        """Return rows uint8 [n, row_bytes] of images, as a segment stores them, checksums included."""
        rows = np.zeros((len(batch.counts), self.row_bytes), np.uint8)
        rows[:, :2] = batch.counts.astype("<u2").view(np.uint8).reshape(-1, 2)
        if batch.present is not None:
            rows[:, 2] = np.where(batch.present, HAS_GLOBAL, 0)
        rows[:, ROW_HEAD : ROW_HEAD + self.local_bytes] = batch.local.reshape(len(rows), -1)
        if batch.vectors is not None:
            rows[:, ROW_HEAD + self.local_bytes :] = batch.vectors
        rows[:, 4:8] = checksums(rows).astype("<u4").view(np.uint8).reshape(-1, 4)
        return rows


def checksums(rows: np.ndarray) -> np.ndarray:
    """Return uint32 [n]: CRC-32 of each row uint8 [n, row_bytes] except for the checksum itself."""
    return np.fromiter((zlib.crc32(row[8:], zlib.crc32(row[:4])) for row in rows), np.uint32, len(rows))


class SegmentWriter:
    """Writes a segment, block by block, to a path that nobody reads yet; ``finish`` makes it durable.

    A context manager, which removes a file that was not finished.
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
        """Write rows uint8 [n, row_bytes] of ``RowLayout.table``, and remember the images' names."""
        assert rows.shape == (len(names), self.layout.row_bytes), rows.shape
        self._file.write(rows.tobytes())
        self._names += [name.encode() for name in names]

    def finish(self) -> int:
        """Write names and header, sync, and return the file's size."""
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
    """Reads a segment through a memory map; opening it reads only the header."""

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
        # The whole file: a compaction may remove it, but not the mapped bytes.
        self._data = np.memmap(path, np.uint8, "r").view(np.ndarray)
        self.table = self._data[HEADER_BYTES : self._names_at].reshape(rows, row_bytes)

    def read(self, rows: np.ndarray, memory: Memory) -> np.ndarray:
        """Return uint8 [n, row_bytes] of rows int64 [n]; AmesError where a row's checksum is wrong."""
        found = gather(self.table, rows, 0, self.layout.row_bytes, memory)
        self._check(found, rows)
        return found

    def names(self) -> list[str]:
        """Return the images' names, in the order of the rows; AmesError if they are damaged."""
        data = self._data[self._names_at : self._names_at + self._names_bytes].tobytes()
        (crc,) = struct.unpack("<I", self._data[-4:].tobytes())
        if zlib.crc32(data) != crc:
            raise AmesError(f"{self.path}: the names are damaged")
        ends = np.frombuffer(data, "<u4", self.rows + 1).tolist()
        text = data[4 * (self.rows + 1) :]
        return [text[a:b].decode() for a, b in pairwise(ends)]

    def blocks(self, size: int = 1 << 14) -> Iterator[np.ndarray]:
        """Yield all rows in order, checked, in blocks uint8 [<= size, row_bytes]."""
        for start in range(0, self.rows, size):
            block = self.table[start : start + size]
            with suppress(FileNotFoundError), self.path.open("rb") as file:  # compacted since: the map has it
                # Not through the map, whose pages would stay in memory.
                file.seek(HEADER_BYTES + start * self.layout.row_bytes)
                block = np.frombuffer(file.read(block.size), np.uint8).reshape(block.shape)
            self._check(block, np.arange(start, start + len(block)))
            yield block

    def _check(self, found: np.ndarray, rows: np.ndarray) -> None:
        stored = np.ascontiguousarray(found[:, 4:8]).view("<u4")[:, 0]
        bad = np.flatnonzero(checksums(found) != stored)
        if len(bad):
            raise AmesError(
                f"{self.path}: row {rows[bad[0]]} is damaged (its checksum is wrong); restore the file, or "
                "delete the image and add it again"
            )
