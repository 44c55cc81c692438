"""Metadata of an HDF5 file: the names of its images, and its provenance.

Files that are written here hold text of fixed length. Text of variable length is in HDF5's global heap, and a
damaged heap makes HDF5 loop forever. So the heap is checked before such text is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from ames import __version__
from ames.errors import AmesError
from ames.io.claims import parsed

_LONG = 60_000  # bytes of an attribute; HDF5 has no place for more than 64 kB of a fixed length
_WASTE = 4  # times the names' own bytes that names of one length may take
_COLLECTION, _HEADER = b"GCOL\1", 16  # of the heap: how it begins, bytes before its objects and of each
_SEARCHED = 1 << 28  # bytes in which collections are looked for


def describe(file: h5py.File, names: Sequence[str] | None, provenance: dict[str, Any] | None) -> None:
    """Write the images' names, if there are any, and how the file was made."""
    if names is not None:
        encoded = [name.encode() for name in names]
        longest = max(map(len, encoded), default=1) or 1
        fixed = longest * len(encoded) <= _WASTE * sum(map(len, encoded)) + 4096
        kind = h5py.string_dtype("utf-8", longest if fixed else None)
        file.create_dataset("names", data=np.array(encoded, kind), dtype=kind)
    text = json.dumps({"ames": __version__} | (provenance or {})).encode()
    fixed_text = h5py.string_dtype("utf-8", len(text))
    file.attrs.create("provenance", text, dtype=fixed_text if len(text) <= _LONG else h5py.string_dtype())


def write_missing(file: h5py.File, missing: Iterable[str]) -> None:
    """Note which of positions, scale and weight the images do not have: their columns are zeros."""
    text = ",".join(sorted(missing))
    if text:
        file.attrs.create("missing", text, dtype=h5py.string_dtype("utf-8", len(text)))


def read_missing(file: h5py.File) -> frozenset[str]:
    """Return what ``write_missing`` noted; nothing of files by others."""
    found = file.attrs.get("missing", "")
    text = found.decode(errors="replace") if isinstance(found, bytes) else str(found)
    return frozenset(text.split(",")) - {""}


class Description(NamedTuple):
    """names: one per row, or None; provenance: the writer's record, or {}."""

    names: list[str] | None
    provenance: dict[str, Any]


def read_description(file: h5py.File, features: h5py.Dataset) -> Description:
    """Read what ``describe`` wrote; None and {} where that is missing or of another kind.

    AmesError if the names are not UTF-8, or not one per row of ``features``.
    """
    names = file.get("names")
    if not isinstance(names, h5py.Dataset) or h5py.check_string_dtype(names.dtype) is None or names.ndim != 1:
        names = None
    provenance = file.attrs.get_id("provenance") if "provenance" in file.attrs else None
    if any(one is not None and one.dtype.kind == "O" for one in (names, provenance)):
        _check_heap(file, features)
    return Description(_names(names, len(features)), _provenance(file))


def _names(names: h5py.Dataset | None, images: int) -> list[str] | None:
    if names is None:
        return None
    if len(names) != images:
        raise AmesError(
            f"{names.file.filename}: holds {len(names)} names for {images} images; write one name for each "
            "image, or remove 'names'"
        )
    try:
        return list(names.asstr()[:])
    except UnicodeDecodeError as error:
        raise AmesError(f"{names.file.filename}: its names are not UTF-8; write them again") from error


def _provenance(file: h5py.File) -> dict[str, Any]:
    try:
        found = parsed(file.attrs.get("provenance", "{}"))
    except (ValueError, TypeError):  # not JSON, or no text
        return {}
    return found if isinstance(found, dict) else {}


# ---- the global heap --------------------------------------------------------------------------------


def _check_heap(file: h5py.File, features: h5py.Dataset) -> None:
    """AmesError if a collection of the heap would make HDF5 loop.

    Collections are found by their signature, outside of the features. Large files of chunked features are not
    searched.
    """
    length = Path(file.filename).stat().st_size
    start = end = length
    offset = features.id.get_offset()
    if offset is not None and features.file.filename == file.filename:
        start, end = min(offset, length), min(offset + features.nbytes, length)
    if start + length - end > _SEARCHED:
        return
    with open(file.filename, "rb") as raw, mmap(raw.fileno(), 0, access=ACCESS_READ) as content:
        for first, last in ((0, start), (end, length)):
            place = content.find(_COLLECTION, first, last)
            while place >= 0:
                if not _ends(content, place):
                    raise AmesError(
                        f"{file.filename}: its names or its provenance are damaged; write it again"
                    )
                place = content.find(_COLLECTION, place + 1, last)


def _ends(content: mmap, start: int) -> bool:
    """Return whether HDF5's walk over a collection's objects ends."""
    size = int.from_bytes(content[start + 8 : start + _HEADER], "little")
    end = start + size
    if size < _HEADER or end > len(content):
        return True  # HDF5 refuses it
    place = start + _HEADER
    while place <= end - _HEADER:
        length = int.from_bytes(content[place + 8 : place + _HEADER], "little")
        free = content[place : place + 2] == b"\0\0"
        step = (length if free else _HEADER + -(-length // 8) * 8) % 2**64  # as in 64 bits
        if not step:
            return False
        place += step
    return True
