"""What an HDF5 file says of itself: the names of its images, and how it was made.

Text has a fixed length in the files that are written here. Text of variable length lies in HDF5's global
heap, and a damaged heap makes HDF5 loop forever: it is walked here first where it is read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from ames import __version__
from ames.data.claims import parsed
from ames.errors import AmesError

_LONG = 60_000  # bytes of an attribute; HDF5 has no place for more than 64 kB of a fixed length
_WASTE = 4  # times the names' own bytes that names of one length may take
_REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])  # to text in the heap
_HEADER = 16  # bytes, of a collection in the heap and of an object in it


def describe(file: h5py.File, names: Sequence[str] | None, provenance: dict[str, Any] | None) -> None:
    """Writes the images' names (None: none), and how the file was made."""
    if names is not None:
        encoded = [name.encode() for name in names]
        longest = max(map(len, encoded), default=1) or 1
        fixed = longest * len(encoded) <= _WASTE * sum(map(len, encoded)) + 4096
        kind = h5py.string_dtype("utf-8", longest if fixed else None)
        file.create_dataset("names", data=np.array(encoded, kind), dtype=kind)
    text = json.dumps({"ames": __version__} | (provenance or {})).encode()
    fixed_text = h5py.string_dtype("utf-8", len(text))
    file.attrs.create("provenance", text, dtype=fixed_text if len(text) <= _LONG else h5py.string_dtype())


def read_names(file: h5py.File, images: int) -> list[str] | None:
    """The names of the images, one for each row; None where the file has none.

    AmesError where they are not as many as the images, or not UTF-8.
    """
    names = file.get("names")
    if not isinstance(names, h5py.Dataset) or h5py.check_string_dtype(names.dtype) is None:
        return None
    if names.ndim != 1:  # someone else's
        return None
    if len(names) != images:
        raise AmesError(
            f"{file.filename}: holds {len(names)} names for {images} images; write one name for each image, "
            "or remove 'names'"
        )
    _check_heap(names)
    try:
        return list(names.asstr()[:])
    except UnicodeDecodeError as error:
        raise AmesError(f"{file.filename}: its names are not UTF-8; write them anew") from error


def read_provenance(file: h5py.File) -> dict[str, Any]:
    """What the writer recorded; {} where there is nothing, or someone else's attribute."""
    try:
        text = file.attrs.get("provenance", "{}")
        found = parsed(text)
    except (ValueError, TypeError):  # not JSON, or no text
        return {}
    return found if isinstance(found, dict) else {}


def _check_heap(names: h5py.Dataset) -> None:
    """AmesError where the heap's collections that the names lie in would make HDF5 loop."""
    offset, path = names.id.get_offset(), Path(names.file.filename)
    if names.dtype.kind != "O" or offset is None or names.id.get_storage_size() != 16 * len(names):
        return  # of a fixed length; chunked; or a file of short addresses
    with open(path, "rb") as file:
        file.seek(offset)
        references = np.frombuffer(file.read(16 * len(names)), _REFERENCE)
        for address in np.unique(references["address"][references["length"] > 0]).tolist():
            if not _ends(file, address + names.file.userblock_size):
                raise AmesError(f"{path}: its names are damaged; write them anew")


def _ends(file: BinaryIO, start: int) -> bool:
    """Whether a walk over a collection's objects comes to its end, as HDF5 will walk."""
    if start >= 2**63:
        return False
    file.seek(start)
    header = file.read(_HEADER)
    size = int.from_bytes(header[8:], "little")
    if header[:4] != b"GCOL" or size > 2**32:
        return False
    content, place = header + file.read(size - _HEADER), _HEADER
    while place <= size - _HEADER:
        index = content[place : place + 2]
        length = int.from_bytes(content[place + 8 : place + 16], "little")
        step = length if index == b"\0\0" else _HEADER + -(-length // 8) * 8
        if not 0 < step <= size - place:
            return False
        place += step
    return len(content) == size
