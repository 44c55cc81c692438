"""Headers of image files, read before decoding: format, size, whether the file is complete."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

from ames.datasets import heif

JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_TIFF = {b"II*\0": "<", b"MM\0*": ">"}
HEAD = 128  # bytes of a file that say what it is
# Formats that OpenCV decodes, some only if it was built so. A BMP's second header has one of eight lengths.
_IMAGE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|II[*+]\0|MM\0[*+]|"
    rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0|"
    rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51|\x59\xa6\x6a\x95|#\?(?:RADIANCE|RGBE)\s|"
    rb"P[1-6]\s+(?:#|\d+\s)|P7\n(?:#|WIDTH|HEIGHT|DEPTH|MAXVAL|TUPLTYPE)",
    re.DOTALL,
)
_ORIENTATION = 274  # tag of a TIFF, and of EXIF, which is one
_APP1, _EXIF = 0xE1, b"Exif\0\0"
_REDUCED, _DNG = 254, 50706  # tags of a TIFF: the kind of picture, bit 0 a smaller copy; the version of DNG
# Within a scan 0xFF is followed by 0 (the byte itself) or by a restart marker; anything else ends the scan.
_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
# Markers that have no content are passed over with what is no marker, filling or garbage, as decoders do.
_MARKER = re.compile(rb"\xff[^\xff\x01\xd0-\xd8]", re.DOTALL)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # those of a frame's header
START_OF_SCAN, END = 0xDA, 0xD9


def is_image(head: bytes) -> bool:
    """Return whether the first ``HEAD`` bytes of a file are of a decodable format (HEIC: by pillow-heif)."""
    return _IMAGE.match(head) is not None or heif.kind_of(head) is not None


def size_of(data: bytes) -> tuple[int, int] | None:
    """(height, width) as stored, before rotation; None if the format is unknown or the header damaged."""
    for magic, read in (
        (JPEG, _size_of_jpeg),
        (_PNG, lambda x: struct.unpack_from(">II", x, 16)[::-1]),
        (b"GIF8", lambda x: struct.unpack_from("<HH", x, 6)[::-1]),
        (b"BM", _size_of_bmp),
        (b"RIFF", _size_of_webp),
        (b"\xff\x4f\xff\x51", lambda x: struct.unpack_from(">II", x, 8)[::-1]),
        (data[:4] + b"ftyp", heif.size_of),
        (b"\0\0\0\x0cjP  ", heif.size_of_jp2),
        *((magic, _size_of_tiff) for magic in _TIFF),
    ):
        if data.startswith(magic):
            try:
                found = read(data)
            except (struct.error, IndexError, KeyError):
                return None
            return None if found is None else (int(found[0]), int(found[1]))
    return None


def exif_orientation(data: bytes) -> int:
    """Return the orientation that the EXIF of a JPEG says, 1 ... 8; 1 without one."""
    for segment in segments(data):
        if segment.marker == START_OF_SCAN:
            break
        if segment.marker == _APP1 and data.startswith(_EXIF, segment.start):
            start, length = segment.start, int.from_bytes(data[segment.start - 2 : segment.start], "big")
            exif = data[start + len(_EXIF) : start + length - 2]
            try:
                found = _tiff_tags(exif).get(_ORIENTATION, 1)
            except (struct.error, KeyError):
                return 1
            return found if 1 <= found <= 8 else 1
    return 1


def is_cut_off(data: bytes) -> bool:
    """Return whether a JPEG, PNG, WebP, AVIF or HEIC is truncated; some decoders fill the rest with grey."""
    if data.startswith(JPEG):
        return not any(segment.marker == END for segment in segments(data))
    if data.startswith(_PNG):
        return b"IEND" not in data
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    return heif.kind_of(data[:HEAD]) is not None and heif.is_cut_off(data)


def is_preview(data: bytes | mmap) -> bool:
    """Return whether it is a camera's raw file in TIFF format (DNG, NEF, CR2, ARW ...).

    Its first picture, which a decoder reads, is a preview, or its pixels are no colours.
    """
    if data[:4] not in _TIFF:
        return False
    try:
        tags = _tiff_tags(data)
    except struct.error:
        return False
    return data[8:10] == b"CR" or _DNG in tags or bool(tags.get(_REDUCED, 0) & 1)


class Segment(NamedTuple):
    marker: int
    start: int  # of its content, after the length


def segments(data: bytes) -> Iterator[Segment]:
    """Markers of a JPEG in order, up to its end marker, without those of thumbnails within a segment."""
    position = 2
    while found := _MARKER.search(data, position):
        position = found.end()
        marker = data[position - 1]
        yield Segment(marker, position + 2)
        if marker == END:
            return
        position += int.from_bytes(data[position : position + 2], "big")
        if marker == START_OF_SCAN:
            end = _SCAN_END.search(data, position)
            if end is None:
                return
            position = end.end() - 2


def _size_of_jpeg(data: bytes) -> tuple[int, int] | None:
    for segment in segments(data):
        if segment.marker in _FRAMES:
            return struct.unpack_from(">HH", data, segment.start + 1)
        if segment.marker == START_OF_SCAN:
            break
    return None


def _size_of_bmp(data: bytes) -> tuple[int, int]:
    if int.from_bytes(data[14:18], "little") == 12:  # the first version's header
        return struct.unpack_from("<HH", data, 18)[::-1]
    width, height = struct.unpack_from("<ii", data, 18)
    return abs(height), abs(width)  # a negative height: the first row comes first


def _size_of_webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[start : start + 3], "little") for start in (24, 27))
        return height, width
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return height & 0x3FFF, width & 0x3FFF
    return None


def _size_of_tiff(data: bytes) -> tuple[int, int]:
    found = _tiff_tags(data)
    return found[257], found[256]


def _tiff_tags(data: bytes | mmap) -> dict[int, int]:
    """Tags of the first picture; values are right for tags of one number."""
    order = _TIFF[bytes(data[:4])]
    (first,) = struct.unpack_from(order + "I", data, 4)
    (entries,) = struct.unpack_from(order + "H", data, first)
    found = {}
    for entry in range(first + 2, first + 2 + 12 * entries, 12):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        found[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)[0]
    return found
