"""Changes of a database: building, appending, deleting, compacting; each of them whole or not at all.

New files are written beside the old ones and made durable; then the manifest is replaced, which is the
change; then files that are no longer named are removed. A crash leaves the old database or the new one, and
perhaps files that nobody names, which the next change removes.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from ames.database.manifest import NAME, File, Manifest
from ames.database.segment import Batch, RowLayout, SegmentWriter
from ames.database.store import Database
from ames.errors import AmesError
from ames.io.atomic import atomic_file
from ames.io.locks import locked

_LOCK = "lock"
# What a change makes (Writer._new), and temporary files of ames.io.atomic on the way to it or the manifest.
_OURS = re.compile(
    r"(segment-\d{6,}-\d{3,}\.rows|(deleted|codec)-\d{6,}-\d{3,}\.bin"
    r"|\.(manifest\.json|(deleted|codec)-\d{6,}-\d{3,}\.bin)\.\d+\.part)"
)
_ROWS = 1 << 18  # rows of a segment at most, when they come by compacting
_COPIED = 1 << 14  # rows copied at a time
FINISHED = "finished"  # of the manifest's source: the generation in which the build came to its end
_DELETED, _CALLS = "deleted", 100  # there: digests of the names that each of the last calls has deleted


class Writer:
    """The one who may change a database; made by ``writing``."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest

    @property
    def layout(self) -> RowLayout:
        return RowLayout(self.manifest.slots, self.manifest.code_bytes, self.manifest.global_bytes)

    def commit(self, manifest: Manifest) -> None:
        """Makes ``manifest`` the database; removes what it does not name."""
        manifest = replace(manifest, generation=self.manifest.generation + 1)
        with _clear(self.folder):
            _sync_folder(self.folder)
            manifest.save(self.folder)
        with suppress(OSError):  # the change is made; at worst a crash takes it back
            _sync_folder(self.folder)
        self.manifest = manifest
        remove_orphans(self.folder, manifest)

    def append(self, batches: Iterable[Batch], *, building: int | None = None) -> int:
        """Adds images as one new segment; returns how many. Memory is that of a batch, and the names.

        building: rows that the build will have at its end (None: the database is whole afterwards).
        """
        path = self._new("segment", ".rows")
        rows = 0
        with _clear(self.folder), SegmentWriter(path, self.layout) as writer:
            for batch in batches:
                writer.add(self.layout.table(batch), batch.names)
                rows += len(batch.names)
            size = writer.finish()
            file = File(path.name, size)
            old = self.manifest
            self.commit(
                replace(
                    old,
                    segments=(*old.segments, file),
                    rows=(*old.rows, rows),
                    deleted=self._bitmap(self._deleted(), sum(old.rows) + rows) if old.deleted else None,
                    building=building,
                )
            )
        return rows

    def finish(self) -> None:
        """A build that has all its rows becomes a database, which notes the generation that this is."""
        noted = self.manifest.source | {FINISHED: self.manifest.generation + 1}
        self.commit(replace(self.manifest, building=None, source=noted))

    def delete(self, names: Sequence[str]) -> int:
        """Deletes images by name, and returns how many: 0 where an earlier call has deleted the same ones.
        Their rows stay until ``compact``.

        AmesError, and nothing is deleted, where one is not there.
        """
        database = Database(self.folder)
        wanted = set(names)
        rows = [row for row, name in enumerate(database.names) if name in wanted]
        missing = wanted - {database.names[row] for row in rows}
        noted, digest = self.manifest.source.get(_DELETED, []), _digest(wanted)
        if not rows and digest in noted:
            return 0
        if missing:
            raise AmesError(f"{self.folder}: no image {min(missing)!r} in it; nothing was deleted")
        if not rows:
            return 0
        gone = np.concatenate((self._deleted(), database._raw(rows)))
        with _clear(self.folder):
            about = self.manifest.source | {_DELETED: [*noted, digest][-_CALLS:]}
            self.commit(replace(self.manifest, deleted=self._bitmap(gone, database.rows), source=about))
        return len(rows)

    def compact(self) -> int:
        """Writes the images that are left into new segments, full ones; returns how many rows went away.

        Nothing is written where all rows are images, in as few segments as they need.
        """
        database = Database(self.folder)
        if self.manifest.deleted is None and len(self.manifest.segments) <= -(-database.rows // _ROWS):
            return 0
        alive = database._raw(np.arange(len(database)))
        names = database.names
        segments, rows = [], []
        with _clear(self.folder):
            for start in range(0, len(alive), _ROWS):
                path = self._new("segment", ".rows", start // _ROWS)
                with SegmentWriter(path, self.layout) as writer:
                    for first in range(start, min(start + _ROWS, len(alive)), _COPIED):
                        part = slice(first, min(first + _COPIED, start + _ROWS, len(alive)))
                        writer.add(database._rows_of(alive[part]), names[part])
                    segments.append(File(path.name, writer.finish()))
                    rows.append(min(_ROWS, len(alive) - start))
            self.commit(replace(self.manifest, segments=tuple(segments), rows=tuple(rows), deleted=None))
        return database.rows - len(alive)

    def add_file(self, kind: str, data: bytes) -> File:
        """A new file of the database, durable, not yet named by the manifest."""
        path = self._new(kind, ".bin")
        with atomic_file(path) as file:
            file.write(data)
        return File(path.name, len(data), hashlib.sha256(data).hexdigest())

    def _deleted(self) -> np.ndarray:
        """Rows that are deleted."""
        database = Database(self.folder, unfinished=True)
        return np.setdiff1d(np.arange(database.rows), database._raw(np.arange(len(database))))

    def _bitmap(self, deleted: np.ndarray, rows: int) -> File:
        bits = np.zeros(rows, np.uint8)
        bits[deleted] = 1
        return self.add_file("deleted", np.packbits(bits).tobytes())

    def _new(self, kind: str, ending: str, number: int = 0) -> Path:
        return self.folder / f"{kind}-{self.manifest.generation + 1:06}-{number:03}{ending}"


def _digest(names: set[str]) -> str:
    return hashlib.sha256("\n".join(sorted(names)).encode(errors="surrogatepass")).hexdigest()[:16]


@contextmanager
def writing(folder: Path | str) -> Iterator[Writer]:
    """The right to change a database; AmesError if another process has it. Readers are not disturbed."""
    folder = Path(folder)
    Manifest.load(folder)  # before a lock is left in a folder that is no database
    with writer_lock(folder):
        manifest = Manifest.load(folder)
        remove_orphans(folder, manifest)
        yield Writer(folder, manifest)


def writer_lock(folder: Path) -> AbstractContextManager[None]:
    """Keeps other writers away from a database."""
    busy = "another process is changing this database; wait for it to end"
    return locked(folder / _LOCK, folder, busy, leave=True)


def remove_orphans(folder: Path, manifest: Manifest) -> None:
    """Removes files of a change that was not finished, or that a change has left behind."""
    for path in folder.iterdir():
        if _is_ours(path.name) and path.name not in manifest.files:
            try:
                path.unlink()
            except OSError:  # in use, where the system forbids that: the next change tries again
                continue


def _is_ours(name: str) -> bool:
    """A file that a change makes, by its full name: all else in the folder is the user's, and stays."""
    return _OURS.fullmatch(name) is not None


@contextmanager
def _clear(folder: Path) -> Iterator[None]:
    """A full disk, or a folder that cannot be written, in one line."""
    try:
        yield
    except OSError as error:
        raise AmesError(
            f"{folder}: cannot be written ({error.strerror or error}); the database is as it was"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Makes the names of new files durable, where the system can."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_free(folder: Path) -> None:
    """Refuses a folder that holds a database, or anything else but what is left of a build."""
    strangers = [path.name for path in folder.iterdir() if path.name != _LOCK and not _is_ours(path.name)]
    if strangers:
        what = "a database already" if NAME in strangers else f"other files ({strangers[0]})"
        raise AmesError(f"{folder}: holds {what}; give a new folder")
