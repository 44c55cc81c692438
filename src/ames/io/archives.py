"""numpy's archives (.npz): one place that turns what a damaged one raises into a single line."""

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
    """Turns whatever is wrong with an archive into an AmesError: "PATH: broken, or not WHAT".

    Sizes that the file claims are checked before the block. AmesError of the block is left as it is.
    """
    if not Path(path).is_file():
        raise AmesError(f"{path}: there is no such file")
    try:
        check_npz(path)
        yield
    except AmesError:
        raise
    except _DAMAGE as error:
        raise AmesError(f"{path}: broken, or not {what}: make the file anew") from error
