"""Locks between processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ames.errors import AmesError


@contextmanager
def locked(lock: Path, what: Path, busy: str, *, wait: bool = False, leave: bool = False) -> Iterator[None]:
    """Keep other processes away from ``what``; the system unlocks it when the process ends, however it ends.

    lock: the file that is held, removed afterwards unless ``leave``. AmesError, "what: busy", where another
    process holds it, unless ``wait``.
    """
    held = FileLock(lock, timeout=-1 if wait else 0)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except Timeout:
        raise AmesError(f"{what}: {busy}") from None
    except OSError as error:
        raise AmesError(f"{what}: cannot be written ({error.strerror or error})") from error
    try:
        yield
    finally:
        if not leave:
            with suppress(OSError):
                lock.unlink()
        held.release()


def exclusively(path: Path, *, wait: bool = False) -> AbstractContextManager[None]:
    """``locked`` for a file, by one beside it that ends in .lock."""
    busy = "another process writes these files; wait for it to end"
    return locked(path.with_suffix(".lock"), path, busy, wait=wait)
