"""Lines of text files as archives have them, with their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ames.errors import AmesError


def read_lines(path: Path, hint: str) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, line without its end) of each line that is not blank, one at a time.

    hint: what to do where the file is missing, for the message. AmesError where it is missing, cannot be read
    or is not UTF-8 text.
    """
    if not path.is_file():
        raise AmesError(f"{path}: no such file; {hint}")
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:  # U+2028 ends no line, a lone \r neither
            for number, line in enumerate(file, 1):
                if "\0" in line:
                    raise AmesError(f"{path}: not a text file (zero bytes in line {number}: UTF-16?)")
                if text := line.strip():
                    yield number, text
    except OSError as error:
        raise AmesError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise AmesError(f"{path}: not a text file ({error.reason})") from error


def malformed(path: Path, number: int, line: str, expected: str) -> AmesError:
    """Return the error about a line that is not as it should be."""
    shown = line if len(line) <= 80 else line[:77] + "..."
    return AmesError(f"{path}: line {number}: {shown!r} is not {expected}")
