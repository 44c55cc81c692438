"""An inverted file on disk: one file that is mapped into memory, with a checksum of all that it holds.

Bytes: 8 of a mark, 32 of the SHA-256 of what follows them, 8 of the length of the description, this
description (JSON), then arrays, each beginning at a multiple of 64. Numbers are little-endian.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ames.errors import AmesError, first_line
from ames.io.atomic import atomic_file
from ames.io.claims import parsed
from ames.local_search.codebook import Codebook
from ames.local_search.kernel import Kernel
from ames.local_search.postings import Postings

_MARK = b"AMESIVF1"
_ALIGNED = 64
_READ = 1 << 22  # bytes at a time
_HEAD = len(_MARK) + 32


@dataclass(frozen=True, eq=False, kw_only=True)
class Stored:
    """What a file holds. counts: int32 [n], words of each image, -1 where no image has the id."""

    kernel: Kernel
    half: bool
    meta: Mapping[str, Any]
    codebook: Codebook
    counts: np.ndarray
    postings: Postings


def code_form(width: int, *, binary: bool, half: bool) -> tuple[int, DTypeLike]:
    """Return the numbers of an entry's code and their type, for ``width`` dimensions."""
    if binary:
        return -(-width // 8), np.uint8
    return width, np.float16 if half else np.float32


def write(path: Path | str, stored: Stored) -> Path:
    """Write the file, whole or not at all; return its path."""
    path = Path(path)
    held = stored.postings
    about = {
        "kernel": asdict(stored.kernel),
        "half": stored.half,
        "words": stored.codebook.words,
        "width": stored.codebook.width,
        "images": len(stored.counts),
        "entries": len(held.images),
        "codebook": dict(stored.codebook.meta),
        "meta": dict(stored.meta),
    }
    text = json.dumps(about).encode()
    arrays = (stored.codebook.centroids, held.offsets, stored.counts, held.images, held.codes)

    def pieces() -> Iterator[bytes | memoryview]:
        yield struct.pack("<Q", len(text)) + text
        place = _HEAD + 8 + len(text)
        for array in arrays:
            yield bytes(-place % _ALIGNED)
            if array.size:
                yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            place += -place % _ALIGNED + array.nbytes

    digest = hashlib.sha256()
    for piece in pieces():
        digest.update(piece)
    with atomic_file(path) as file:
        file.write(_MARK + digest.digest())
        for piece in pieces():
            file.write(piece)
    return path


def read(path: Path | str, *, check: bool) -> Stored:
    """Map a file. check: compare its checksum. AmesError for one that ``write`` did not write."""
    path = Path(path)
    about, begin = _describe(path, check)
    try:
        settings, half = Kernel(**about["kernel"]), about["half"]
        words, width, images, entries = (_natural(about[x]) for x in ("words", "width", "images", "entries"))
        if type(half) is not bool or (half and settings.binary):
            raise ValueError(f"half is {half!r}")
        columns, dtype = code_form(width, binary=settings.binary, half=half)
        shapes: list[tuple[DTypeLike, tuple[int, ...]]] = [
            (np.float32, (words, width)),
            (np.int64, (words + 1,)),
            (np.int32, (images,)),
            (np.uint32, (entries,)),
            (dtype, (entries, columns)),
        ]
        centroids, offsets, counts, owners, codes = _mapped(path, begin, shapes)
        codebook, meta = Codebook(np.array(centroids), dict(about["codebook"])), dict(about["meta"])
    except (AmesError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, first_line(error)) from error
    whole = offsets[0] == 0 and offsets[-1] == entries and bool((np.diff(offsets) >= 0).all())
    if not whole or (check and entries and int(owners.max()) >= images):
        raise _damaged(path, "its lists do not fit together")
    postings = Postings(np.array(offsets), owners, codes)
    return Stored(
        kernel=settings, half=half, meta=meta, codebook=codebook, counts=np.array(counts), postings=postings
    )


def _describe(path: Path, check: bool) -> tuple[dict[str, Any], int]:
    """Return the description, and where the arrays begin."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
            if not head.startswith(_MARK) or len(head) < _HEAD:
                raise AmesError(f"{path}: no inverted file: make one with ames asmk --index")
            if check:
                digest = hashlib.sha256()
                while piece := file.read(_READ):
                    digest.update(piece)
                if digest.digest() != head[len(_MARK) :]:
                    raise _damaged(path, "its checksum is wrong")
                file.seek(_HEAD)
            (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
            if length > path.stat().st_size:
                raise _damaged(path, "it ends too early")
            about = parsed(file.read(length))
    except OSError as error:
        raise AmesError(f"{path}: cannot be read ({error.strerror or error})") from error
    except AmesError:
        raise
    except ValueError as error:
        raise _damaged(path, "its description is no JSON") from error
    if not isinstance(about, dict):
        raise _damaged(path, "its description is no JSON object")
    return about, _HEAD + 8 + length


def _mapped(path: Path, place: int, shapes: list[tuple[DTypeLike, tuple[int, ...]]]) -> list[np.ndarray]:
    """Map the arrays, one behind the other; AmesError unless the file ends with the last one."""
    size, found = path.stat().st_size, []
    for dtype, shape in shapes:
        place += -place % _ALIGNED
        count = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        if place + count > size:
            raise AmesError("it ends too early")
        found.append(np.memmap(path, dtype, "r", place, shape) if count else np.empty(shape, dtype))
        place += count
    if place != size:
        raise AmesError("more follows behind its end")
    return [x.view(np.ndarray) for x in found]


def _natural(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _damaged(path: Path, what: str) -> AmesError:
    return AmesError(f"{path}: damaged, or of another version ({what}); make it again")
