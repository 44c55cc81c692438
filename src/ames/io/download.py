"""Download files: resume, check, and name them when they are complete."""

from __future__ import annotations

import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ames.errors import AmesError, first_line
from ames.io.atomic import atomic_file
from ames.io.hashing import sha256

_BLOCK = 1 << 20
_TIMEOUT = 60.0  # seconds without a byte
_WAIT = 1.0  # seconds before the first new try; each further wait is twice as long

Progress = Callable[[int, "int | None"], None]


def download(url: str, path: Path | str, *, tries: int = 5, progress: Progress | None = None) -> int:
    """Fetch ``url`` to ``path`` and return its size in bytes; an existing file is kept.

    ``<path>.part`` holds what has arrived; the next try or call resumes it (HTTP Range), or starts again
    where the server has no ranges. The file takes its name when it has the size that the server states.
    AmesError after ``tries`` tries in a row without a byte, or at once for a wrong address.
    """
    path = Path(path)
    if path.is_file():
        return path.stat().st_size
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        left = tries
        while True:
            before = _size(part)
            try:
                total = _continue(url, part, progress)
                if total is None or _size(part) == total:
                    break
                trouble: object = f"broke off at {_size(part)} of {total} bytes"
            except urllib.error.HTTPError as error:
                if error.code == 416:  # more than the file has: of another version
                    part.unlink(missing_ok=True)
                elif error.code < 500 and error.code not in (408, 429):
                    raise AmesError(f"{url}: HTTP status {error.code} ({error.reason})") from error
                trouble = f"HTTP status {error.code}"
            except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
                trouble = getattr(error, "reason", None) or error
            left = tries if _size(part) > before else left - 1
            if left <= 0:
                have = _size(part)
                again = f"call again to resume from byte {have}" if have else f"or put the file at {path}"
                raise AmesError(f"{url}: {first_line(trouble)}; {again}")
            time.sleep(_WAIT * 2 ** (tries - left))
        os.replace(part, path)
    except OSError as error:
        raise AmesError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path.stat().st_size


def _continue(url: str, part: Path, progress: Progress | None) -> int | None:
    """Append what is missing of ``part``; the size of the whole file, None where the server keeps it."""
    have = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
        start, total = _extent(answer, have)
        with open(part, "r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            done = start
            while block := answer.read(_BLOCK):
                file.write(block)
                done += len(block)
                if progress is not None:
                    progress(done, total)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and _size(part) > total:
        part.unlink()
    return total


def _extent(answer: Any, have: int) -> tuple[int, int | None]:
    """(where the answer's bytes begin, the whole size); a server may ignore Range and send everything."""
    if answer.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != have:
            raise http.client.HTTPException("an answer to Range that does not fit the question")
        return have, int(found[2])
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def pinned(path: Path) -> tuple[str, bool]:
    """Return a file's SHA-256, and whether it was noted just now in ``<file>.sha256``.

    AmesError where the file differs from what was noted when it was first seen.
    """
    note = path.with_name(f"{path.name}.sha256")
    found = sha256(path)
    if not note.is_file():
        with atomic_file(note) as file:
            file.write(f"{found}  {path.name}\n".encode())
        return found, True
    wanted = note.read_text(encoding="utf-8").split()
    if wanted[:1] != [found]:
        raise AmesError(
            f"{path}: its SHA-256 is {found}, not {wanted[0] if wanted else 'anything'} as {note.name} says "
            "of the first download; if the new file is right, remove the note"
        )
    return found, False


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
