"""Changes of a database: building, appending, deleting, compacting; each of them is atomic.

New files are written beside the old ones and made durable; then the manifest is replaced, which is the
change; then files that it no longer names are removed. A crash leaves the old database or the new one, and
perhaps files that the manifest does not name, which the next change removes.
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
from ames.database.segment import Batch, SegmentWriter
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
_ROWS = 1 << 18  # rows of a compacted segment at most
_COPIED = 1 << 14  # rows copied at a time
FINISHED = "finished"  # in the manifest's source: the generation in which the build finished
_DELETED, _CALLS = "deleted", 100  # there: digests of the names that the last calls have deleted


class Writer:
    """Changes a database, under the lock that ``writing`` takes."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest

    def commit(self, manifest: Manifest) -> None:
        """Make ``manifest`` the database, and remove files that it does not name."""
        manifest = replace(manifest, generation=self.manifest.generation + 1)
        with _clear(self.folder):
            _sync_folder(self.folder)
            manifest.save(self.folder)
        with suppress(OSError):  # the change is made; at worst a crash reverts it
            _sync_folder(self.folder)
        self.manifest = manifest
        remove_orphans(self.folder, manifest)

    def append(self, batches: Iterable[Batch], *, building: int | None = None) -> int:
        """Add images as one new segment, and return how many. Memory is that of a batch and of the names.

        building: rows that the finished build will have (None: the database is complete after this).
        """
        path, old, added = self._new("segment", ".rows"), self.manifest, 0
        with _clear(self.folder), SegmentWriter(path, old.layout) as writer:
            for batch in batches:
                writer.add(old.layout.table(batch), batch.names)
                added += len(batch.names)
            segments = (*old.segments, File(path.name, writer.finish()))
            rows, deleted = (*old.rows, added), None
            if old.deleted:
                deleted = self._bitmap(Database(self.folder, allow_partial=True).deleted_rows(), sum(rows))
            self.commit(replace(old, segments=segments, rows=rows, deleted=deleted, building=building))
        return added

    def finish(self) -> None:
        """Mark a build as complete, and note the generation in which it was."""
        noted = self.manifest.source | {FINISHED: self.manifest.generation + 1}
        self.commit(replace(self.manifest, building=None, source=noted))

    def delete(self, names: Sequence[str]) -> int:
        """Delete images by name, and return how many: 0 where an earlier call has deleted the same ones.
        Their rows stay until ``compact``.

        AmesError if one does not exist; then none is deleted.
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
        gone = np.concatenate((database.deleted_rows(), database.stored_rows(rows)))
        with _clear(self.folder):
            about = self.manifest.source | {_DELETED: [*noted, digest][-_CALLS:]}
            self.commit(replace(self.manifest, deleted=self._bitmap(gone, database.rows), source=about))
        return len(rows)

    def compact(self) -> int:
        """Write the images that are left into new, full segments, and return how many rows were removed.

        Nothing is written if no image is deleted and there are no more segments than needed.
        """
        database = Database(self.folder)
        if self.manifest.deleted is None and len(self.manifest.segments) <= -(-database.rows // _ROWS):
            return 0
        count, names = len(database), database.names
        segments, rows = [], []
        with _clear(self.folder):
            for start in range(0, count, _ROWS):
                stop = min(start + _ROWS, count)
                path = self._new("segment", ".rows", start // _ROWS)
                with SegmentWriter(path, self.manifest.layout) as writer:
                    for first in range(start, stop, _COPIED):
                        part = range(first, min(first + _COPIED, stop))
                        writer.add(database.rows_as_stored(part), names[part.start : part.stop])
                    segments.append(File(path.name, writer.finish()))
                    rows.append(stop - start)
            self.commit(replace(self.manifest, segments=tuple(segments), rows=tuple(rows), deleted=None))
        return database.rows - count

    def add_file(self, kind: str, data: bytes) -> File:
        """Write a new file, durable, which the manifest does not name yet."""
        path = self._new(kind, ".bin")
        with atomic_file(path) as file:
            file.write(data)
        return File(path.name, len(data), hashlib.sha256(data).hexdigest())

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
    """Take the right to change a database; AmesError if another process has it. Readers are not affected."""
    folder = Path(folder)
    Manifest.load(folder)  # before a lock is left in a folder that is no database
    with writer_lock(folder):
        manifest = Manifest.load(folder)
        remove_orphans(folder, manifest)
        yield Writer(folder, manifest)


def writer_lock(folder: Path) -> AbstractContextManager[None]:
    """Lock a database against other writers."""
    busy = "another process is changing this database; wait for it to end"
    return locked(folder / _LOCK, folder, busy, leave=True)


def remove_orphans(folder: Path, manifest: Manifest) -> None:
    """Remove files of an unfinished change, and files that a change has replaced; others are the user's."""
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name) and path.name not in manifest.files:
            with suppress(OSError):  # in use, where the system forbids that: the next change tries again
                path.unlink()


@contextmanager
def _clear(folder: Path) -> Iterator[None]:
    """Report a full disk, or a folder that cannot be written, in one line."""
    try:
        yield
    except OSError as error:
        raise AmesError(
            f"{folder}: cannot be written ({error.strerror or error}); the database is as it was"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Make the names of new files durable, where the system can."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_free(folder: Path) -> None:
    """Refuse a folder that holds a database, or anything except the remains of a build."""
    names = [path.name for path in folder.iterdir()]
    others = [name for name in names if name != _LOCK and not _OURS.fullmatch(name)]
    if others:
        what = "a database already" if NAME in others else f"other files ({others[0]})"
        raise AmesError(f"{folder}: holds {what}; give a new folder")
