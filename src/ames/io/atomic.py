"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ames.errors import AmesError


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path beside ``path``, for libraries that open files themselves.

    If the block ends without an error, the file is synced and takes its name. If not, it is removed, and
    an earlier file stays. Raises AmesError when the folder cannot be written or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise AmesError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):  # gone already after a success
            temporary.unlink()


def remove_leftovers(path: Path) -> None:
    """Remove temporary files of killed writers of ``path``. Call it only if no process writes it."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.\d+\.part")
    for found in path.parent.iterdir():
        if pattern.fullmatch(found.name):
            found.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: Path | str) -> Iterator[BinaryIO]:
    """As ``atomic_path``, with the temporary file opened for writing bytes."""
    with atomic_path(path) as temporary, open(temporary, "xb") as file:
        yield file
