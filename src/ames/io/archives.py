"""Read numpy's archives (.npz); every damage is an error of one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ames.errors import AmesError
from ames.io.claims import check_npz


@contextmanager
def reading_npz(path: Path | str, what: str) -> Iterator[None]:
    """Check the sizes that an archive claims; an error of the block becomes "PATH: broken, or not WHAT"."""
    if not Path(path).is_file():
        raise AmesError(f"{path}: no such file")
    try:
        check_npz(path)
        yield
    except AmesError:
        raise
    except Exception as error:  # zipfile, zlib and numpy's parser of headers raise what they like
        raise AmesError(f"{path}: broken, or not {what}: make the file again") from error
