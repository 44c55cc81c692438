"""Check the sizes that files claim against their lengths before allocating memory.

A damaged or forged number makes a reader ask for terabytes: it fails after a minute, or takes the machine
with it. Nothing here reads the content of an array, so that large files cost no more than small ones.
"""

from __future__ import annotations

import json
import math
import mmap
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ames.errors import first_line

# Pickle's operations that carry neither a large length nor a large number, many in a row. No possessive
# quantifier, which Python 3.11.2 (of Debian 12) matches wrongly: so the number bounds what a match remembers.
_SHORT = b"|".join(re.escape(bytes([n])) + b".{%d}" % n for n in range(64))
_TEXT = b"|".join(re.escape(n.to_bytes(4, "little")) + b".{%d}" % n for n in range(64))
_PLAIN = re.compile(
    rb"(?s)(?:[N\x88\x89\]ael)t\x85\x86\x87}dsu\x8f\x90\x910(21\x94\x93Rbo\x81\x92Q\x97\x98]"
    rb"|[Khq\x80\x82].|[M\x83]..|[Jj\x84].{4}|G.{8}"
    rb"|r..[\x00-\x0f]\x00|p\d{1,6}\n"  # places in the memo of a few megabytes
    rb"|[ISVFLgP][^\n]*\n|[ci][^\n]*\n[^\n]*\n"
    rb"|[\x8aUC\x8c](?:" + _SHORT + rb")|[TBX](?:" + _TEXT + rb")){1,4096}"
)
# Those with a length before their content, and how it is written.
_LENGTHS = {
    **dict.fromkeys(b"\x8aUC\x8c", "<B"),
    **dict.fromkeys(b"\x8bTBX", "<I"),
    **dict.fromkeys(b"\x8e\x96\x8d", "<Q"),
}
_FRAME, _LONG_BINPUT, _PUT = b"\x95rp"
_INFLATED = 1032  # bytes that one byte of deflate can stand for, at most


def parsed(text: str | bytes) -> Any:
    """``json.loads`` that raises ValueError, not RecursionError, where lists are nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def check_pickle(path: Path | str) -> None:
    """ValueError where a pickle claims more bytes than follow, or a place in the unpickler's memo that its
    operations cannot have filled (the memo is an array, which grows up to the highest place).

    Other damage passes: the unpickler refuses it.
    """
    with open(path, "rb") as file:
        if not file.seek(0, 2):
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _check_operations(data)


def _check_operations(data: mmap.mmap) -> None:
    position = content = 0  # content: bytes so far that are no operations
    while True:
        while run := _PLAIN.match(data, position):
            position = run.end()
        if position >= len(data):
            return
        code = data[position]
        form = _LENGTHS.get(code)
        if code == _FRAME or form is not None:
            begin = position + 1 + struct.calcsize(form or "<Q")
            if begin > len(data):
                return
            (length,) = struct.unpack_from(form or "<Q", data, position + 1)
            if length > len(data) - begin:
                rest = len(data) - begin
                raise ValueError(f"at byte {position} it claims {length} bytes, {rest} are left of the file")
            position = begin
            if form is not None:  # a frame's content is operations
                position, content = position + length, content + length
        elif code in (_LONG_BINPUT, _PUT):
            end = position + 5 if code == _LONG_BINPUT else data.find(b"\n", position) + 1
            if not position < end <= len(data):
                return
            written = data[position + 1 : end]
            place = int(written) if code == _PUT else int.from_bytes(written, "little")
            if place > position - content:
                raise ValueError(f"at byte {position} it claims {place} objects before it")
            position = end
        else:  # the end of the pickle, or of what is one
            return


def check_zip(path: Path | str) -> None:
    """ValueError or BadZipFile where an entry of a zip file claims more than the file holds or expands to."""
    length = Path(path).stat().st_size
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    for entry in entries:
        if entry.compress_type == zipfile.ZIP_STORED:
            most = entry.compress_size
        elif entry.compress_type == zipfile.ZIP_DEFLATED:
            most = _INFLATED * entry.compress_size
        else:
            raise ValueError(f"{entry.filename} is compressed in a way that numpy and torch do not write")
        if entry.file_size > most or entry.compress_size > length - entry.header_offset:
            raise ValueError(
                f"{entry.filename} claims {entry.file_size} bytes ({entry.compress_size} stored) "
                f"in a file of {length}"
            )
    if sum(entry.compress_size for entry in entries) > length:
        raise ValueError(f"the entries claim more bytes together than the file has ({length})")


def check_npz(path: Path | str) -> None:
    """As ``check_zip``; also where the header of an array claims another size than its entry has."""
    check_zip(path)
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith(".npy"):
                _check_array(archive, entry)


def _check_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    try:
        with archive.open(entry) as file:
            one = np.lib.format.read_magic(file) == (1, 0)
            read = np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            start = file.tell()
    except Exception as error:  # zipfile, zlib and numpy's parser of Python text raise what they like
        raise ValueError(f"{entry.filename}: {first_line(error)}") from error
    claimed = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or (not dtype.hasobject and start + claimed != entry.file_size):
        has = entry.file_size - start
        raise ValueError(f"{entry.filename} claims {dtype} {shape}, {claimed} bytes; it has {has}")
