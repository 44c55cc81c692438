"""Read numpy's archives (.npz); every damage is an error of one line."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ames.errors import AmesError
from ames.io.claims import check_npz

# Of zipfile, zlib and numpy's parser of headers, which is Python's own.
_DAMAGE = (
    *(OSError, ValueError, LookupError, EOFError, TypeError, AttributeError, ArithmeticError, MemoryError),
    *(RuntimeError, SyntaxError, tokenize.TokenError, struct.error, zipfile.BadZipFile, zlib.error),
)


@contextmanager
def reading_npz(path: Path | str, what: str) -> Iterator[None]:
    """Turn every error of an archive into an AmesError: "PATH: broken, or not WHAT".

    Sizes that the file claims are checked before the block. AmesError of the block is left as it is.
    """
    if not Path(path).is_file():
        raise AmesError(f"{path}: no such file")
    try:
        check_npz(path)
        yield
    except AmesError:
        raise
    except _DAMAGE as error:
        raise AmesError(f"{path}: broken, or not {what}: make the file again") from error
