"""Write shortlists that do not fit into memory, block by block."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import DTypeLike

from ames.errors import AmesError
from ames.io.atomic import atomic_path
from ames.io.text import size_text

Write = Callable[[np.ndarray, np.ndarray], None]
_COPIED = 1 << 22  # bytes at a time
_EXACT = 2**24  # float32 tells whole numbers apart up to here


@contextmanager
def write_npz(path: Path, queries: int, entries: int, *, meta: Mapping[str, Any]) -> Iterator[Write]:
    """Write the ``.npz`` of ``Shortlist.save`` with ``queries`` rows of ``entries``; yields a function that
    takes the next rows: ids int64 [n, entries], similarities float32 [n, entries].

    No rows are kept in memory. The members are not compressed, so that ``training.data.neighbours`` can map
    them. Similarities are first written to a temporary file, because a member of an archive must be complete
    before the next one. AmesError for missing or surplus rows, and before writing if the disk is too small.
    """
    with ExitStack() as files:
        temporary = files.enter_context(atomic_path(path))
        _check_space(path, 16 * queries * entries)  # similarities lie there twice
        spool = files.enter_context(TemporaryFile(dir=path.parent))
        archive = files.enter_context(zipfile.ZipFile(temporary, "w"))
        rows = _Rows(path, queries, entries)
        with archive.open("ids.npy", "w", force_zip64=True) as member:
            _head(member, np.dtype(np.int64), queries, entries)

            def write(ids: np.ndarray, similarities: np.ndarray) -> None:
                rows.take(ids, similarities)
                member.write(_bytes(ids, np.int64))
                spool.write(_bytes(similarities, np.float32))

            yield write
        rows.check()
        spool.seek(0)
        with archive.open("similarities.npy", "w", force_zip64=True) as member:
            _head(member, np.dtype(np.float32), queries, entries)
            shutil.copyfileobj(spool, member, _COPIED)
        with archive.open("meta.npy", "w") as member:
            np.lib.format.write_array(member, np.array(json.dumps(dict(meta))), allow_pickle=False)


@contextmanager
def write_pkl(
    path: Path, queries: int, entries: int, *, training: bool, gallery_size: int
) -> Iterator[Write]:
    """As ``write_npz``, in the layout of the published pickles: axis 0 = [similarity, id].

    training: numpy float64 (2, images, entries), in a temporary file until it is pickled; else a torch
    tensor float32 (2, queries, entries), in memory. AmesError also if float32 cannot hold a gallery's ids.
    """
    if not training and gallery_size > _EXACT:
        raise AmesError(
            f"{path}: the published layout has ids as float32, exact up to {_EXACT}, and the gallery has "
            f"{gallery_size} images: write .npz"
        )
    with ExitStack() as files:
        temporary = files.enter_context(atomic_path(path))
        _check_space(path, (32 if training else 8) * queries * entries)
        shape, rows = (2, queries, entries), _Rows(path, queries, entries)
        mapped = training and queries * entries > 0  # nothing cannot be mapped
        table = np.empty((2, 0, entries) if mapped else shape, np.float64 if training else np.float32)
        if mapped:
            spool = files.enter_context(TemporaryFile(dir=path.parent))

        def write(ids: np.ndarray, similarities: np.ndarray) -> None:
            part = rows.take(ids, similarities)
            for axis, values in enumerate((similarities, ids)):
                if mapped:  # not through the map, which on a full disk would kill the process
                    spool.seek(8 * entries * (axis * queries + part.start))
                    spool.write(_bytes(values, np.float64))
                else:
                    table[axis, part] = values

        yield write
        rows.check()
        if mapped:
            spool.flush()
            table = np.memmap(spool, np.float64, "r", shape=shape)
        with open(temporary, "xb") as file:
            # Protocol 5 writes the mapped bytes without a copy.
            content = table.view(np.ndarray) if training else torch.from_numpy(table)
            pickle.dump(content, file, protocol=5)


class _Rows:
    """Counts the written rows of a file."""

    def __init__(self, path: Path, queries: int, entries: int) -> None:
        self._path, self._queries, self._entries, self._done = path, queries, entries, 0

    def take(self, ids: np.ndarray, similarities: np.ndarray) -> slice:
        """Return the place of the next rows."""
        part = slice(self._done, self._done + len(ids))
        if ids.shape != similarities.shape or ids.shape[1:] != (self._entries,) or part.stop > self._queries:
            raise AmesError(
                f"{self._path}: rows {ids.shape} and {similarities.shape} behind row {self._done} do not fit "
                f"({self._queries}, {self._entries})"
            )
        self._done = part.stop
        return part

    def check(self) -> None:
        if self._done != self._queries:
            raise AmesError(f"{self._path}: {self._done} of {self._queries} rows were written")


def _check_space(path: Path, needed: int) -> None:
    """Check the disk before hours of work."""
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise AmesError(
            f"{path}: {size_text(needed)} are needed while it is written, {size_text(free)} are free; take "
            "fewer entries a query, or another disk"
        )


def _bytes(values: np.ndarray, dtype: DTypeLike) -> memoryview:
    return np.ascontiguousarray(values, dtype).reshape(-1).view(np.uint8).data


def _head(member: IO[bytes], dtype: np.dtype, rows: int, columns: int) -> None:
    description = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(
        member, {"descr": description, "fortran_order": False, "shape": (rows, columns)}
    )
