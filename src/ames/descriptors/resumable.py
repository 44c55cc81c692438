"""HDF5 files that are filled from the first row on; a process resumes where an earlier one was killed.

Unfinished files are NAME.partial, in their full (sparse) size, with names and provenance. HDF5 does not hold
them open: rows are plain bytes at a known offset, so no crash can damage the file. After each block the bytes
are synced, then a small JSON file, the state, is replaced, which counts the rows. A killed process loses the
rows after that; the next one writes them to the same place.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ames.descriptors.encoding import LocalRows, VectorRows, row_bytes
from ames.descriptors.local import recorded
from ames.descriptors.metadata import describe, write_missing
from ames.descriptors.plan import OutputPlan
from ames.descriptors.provenance import difference
from ames.errors import AmesError
from ames.io.atomic import atomic_file
from ames.io.claims import parsed
from ames.io.hdf5 import open_hdf5
from ames.io.text import size_text


@dataclass
class WriteState:
    """done: number of rows on the disk. unreadable: (row, reason); empty: rows without descriptors."""

    done: int = 0
    unreadable: list[tuple[int, str]] = field(default_factory=list)
    empty: list[int] = field(default_factory=list)

    def check(self, images: int) -> None:
        """ValueError or TypeError if this is no state of ``images`` images."""
        if type(self.done) is not int or not 0 <= self.done <= images:
            raise ValueError(f"done is {self.done!r} of {images} images")
        for row in [*(row for row, _ in self.unreadable), *self.empty]:
            if type(row) is not int or not 0 <= row < self.done:
                raise ValueError(f"row {row!r} is none of the {self.done} that are done")
        if not all(isinstance(why, str) for _, why in self.unreadable):
            raise TypeError("a reason is no text")


class ResumableFiles:
    """The files of a plan, of which ``state.done`` rows exist already. Used under ``io.locks``.

    discard: start again if the existing files were made with other settings, which is an AmesError without
    it.
    """

    def __init__(self, plan: OutputPlan, *, discard: bool = False) -> None:
        self.plan, self._files = plan, plan.files
        self._offsets: dict[Path, int] = {}
        self.state = self._resume(discard) or self._start()

    def check_space(self) -> None:
        """AmesError if the disk has no room for the missing rows of this machine's processes."""
        missing = len(self.plan.names) - self.state.done
        needed = missing * self.plan.image_bytes * self.plan.shard.local_count
        folder = self.plan.state.parent
        free = shutil.disk_usage(folder).free
        if needed > free:
            if not self.state.done:
                self.remove()
            raise AmesError(
                f"{folder}: {size_text(needed)} are needed there, {size_text(free)} are free; take fewer "
                "descriptors, packed ones, or another disk"
            )

    def append(
        self, blocks: Sequence[np.ndarray], unreadable: Sequence[tuple[int, str]], empty: Sequence[int]
    ) -> None:
        """Write the next rows of each file, durable when this returns; rows count from the first image."""
        try:
            for path, block in zip(self._files, blocks, strict=True):
                with open(partial_path(path), "r+b") as file:
                    file.seek(self._offsets[path] + self.state.done * row_bytes(self._files[path]))
                    file.write(np.ascontiguousarray(block).view(np.uint8).data)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise AmesError(
                f"{path}: cannot be written ({error.strerror or error}); finished rows are kept, the "
                "same command resumes"
            ) from error
        self.state.done += len(blocks[0])
        self.state.unreadable += unreadable
        self.state.empty += empty
        self._save()

    def finish(self) -> None:
        """Rename all files to their names. After a kill, the next call renames the rest."""
        for path in self._files:
            if partial_path(path).exists():
                os.replace(partial_path(path), path)
        self.plan.state.unlink()

    def remove(self) -> None:
        """Remove the unfinished files and their state."""
        self.plan.state.unlink(missing_ok=True)
        for path in self._files:
            partial_path(path).unlink(missing_ok=True)

    def _resume(self, discard: bool) -> WriteState | None:
        if not self.plan.state.is_file():
            return None
        try:
            content = parsed(self.plan.state.read_text())
            state = WriteState(content["done"], [(r, w) for r, w in content["unreadable"]], content["empty"])
            state.check(len(self.plan.names))
            made = content["made"]
        except (ValueError, KeyError, TypeError) as error:
            raise AmesError(f"{self.plan.state}: cannot be read; remove it to start again") from error
        other = difference(made, self._made())
        if other is not None:
            if discard:
                return None
            raise AmesError(
                f"{self.plan.state}: a partial extraction with different settings ({other}); give the "
                "same settings to resume, or use --overwrite to start again"
            )
        for path in self._files:
            if partial_path(path).exists():
                self._offsets[path] = _offset(partial_path(path))
                if recorded(partial_path(path))[0] != self.plan.written_names:
                    if discard:
                        return None
                    raise AmesError(
                        f"{partial_path(path)}: of other images, or in another order; give the same list to "
                        "resume, or use --overwrite to start again"
                    )
            elif state.done < len(self.plan.names) or not path.exists():
                raise AmesError(f"{partial_path(path)}: is missing; remove {self.plan.state} to start again")
        return state

    def _start(self) -> WriteState:
        self.state = WriteState()
        try:
            self.plan.state.unlink(missing_ok=True)
            for path, rows in self._files.items():
                self._offsets[path] = _create(partial_path(path), rows, self.plan)
        except (OSError, RuntimeError, ValueError, OverflowError) as error:  # what HDF5 raises differs
            self.remove()
            raise AmesError(f"{path}: cannot be written ({_why(error)})") from error
        self._save()
        return self.state

    def _made(self) -> dict[str, Any]:
        """The settings that must be equal to resume."""
        files = {path.name: [str(x.stored), list(x.shape)] for path, x in self._files.items()}
        made = {"images": len(self.plan.names), "files": files} | self.plan.provenance.to_dict()
        return json.loads(json.dumps(made))

    def _save(self) -> None:
        with atomic_file(self.plan.state) as file:
            file.write(json.dumps({"made": self._made()} | vars(self.state)).encode())


def partial_path(path: Path) -> Path:
    """The name of an unfinished file."""
    return path.with_name(path.name + ".partial")


def _create(path: Path, rows: LocalRows | VectorRows, plan: OutputPlan) -> int:
    """Create a file in its full size, its rows not written; return the offset of the rows."""
    with h5py.File(path, "w") as file:
        describe(file, plan.written_names, plan.provenance.to_dict())
        write_missing(file, plan.missing if isinstance(rows, LocalRows) else ())
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_layout(h5py.h5d.CONTIGUOUS)
        creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)  # else all of it would be written twice
        creation.set_obj_track_times(False)  # the same rows are the same bytes
        space = h5py.h5s.create_simple((len(plan.names), *rows.shape))
        kind = h5py.h5t.py_create(rows.stored, logical=True)
        h5py.h5d.create(file.id, b"features", kind, space, creation)
    with open(path, "rb+") as written:
        os.fsync(written.fileno())
    return _offset(path)


def _offset(path: Path) -> int:
    try:
        with open_hdf5(path) as file:
            return file["features"].id.get_offset()
    except AmesError as error:
        raise AmesError(f"{path}: damaged ({error}); remove it and its state to start again") from error


def _why(error: Exception) -> str:
    """One line: the system's message if HDF5 quotes one."""
    text = getattr(error, "strerror", None) or str(error)
    quoted = re.search(r"error message = '([^']+)'", text)
    return quoted[1] if quoted else text.splitlines()[0]
