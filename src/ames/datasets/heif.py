"""HEIF files (AVIF, HEIC): their boxes, and decoding of HEIC by pillow-heif.

A file is a row of boxes: length, kind of four letters, content, which may be boxes again. The box ``meta``
says which item is the picture and which properties it has, its size and how it is turned among them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np

_AVIF = {b"avif", b"avis"}
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_TOP = {b"ftyp", b"meta", b"mdat", b"moov"}  # what a file needs; anything can follow its end


class HeicError(Exception):
    """A HEIC that cannot be decoded; the message says why."""


class _Box(NamedTuple):
    kind: bytes
    start: int  # of its content
    end: int
    whole: bool  # False: the file ends within it


def kind_of(head: bytes) -> str | None:
    """By the first bytes of a file, which name brands: "avif", "heic" or None."""
    if head[4:8] != b"ftyp":
        return None
    listed = head[16 : int.from_bytes(head[:4], "big")]
    brands = {head[8:12], *(listed[i : i + 4] for i in range(0, len(listed), 4))}
    return "avif" if brands & _AVIF else "heic" if brands & _HEIC else None


def size_of(data: bytes) -> tuple[int, int] | None:
    """(height, width) of the shown part before rotation; None if the file does not say."""
    found = None
    for kind, start in _properties(data):
        if kind == b"ispe":
            found = _number(data, start + 8, 4), _number(data, start + 4, 4)
        elif kind == b"clap" and found is not None and (part := _aperture(data, start, *found)):
            found = part[1] - part[0], part[3] - part[2]
    return found


def size_of_jp2(data: bytes) -> tuple[int, int] | None:
    """(height, width) of a JPEG 2000 file, which is a row of boxes too."""
    box = next(_children(data, [b"jp2h", b"ihdr"]), None)
    return box and (_number(data, box.start, 4), _number(data, box.start + 4, 4))


def is_cut_off(data: bytes) -> bool:
    """Return whether the file ends within a box that it needs."""
    return any(not box.whole and box.kind in _TOP for box in _boxes(data, 0, len(data)))


def upright(image: np.ndarray, data: bytes) -> np.ndarray:
    """The stored image [H, W, 3] cropped, rotated and mirrored by the file's properties, in their order.

    OpenCV's AVIF decoder does not apply them. An EXIF orientation does not count in a HEIF file.
    """
    for kind, start in _properties(data):
        if kind == b"clap" and (part := _aperture(data, start, *image.shape[:2])):
            image = image[part[0] : part[1], part[2] : part[3]]
        elif kind == b"irot":
            image = np.rot90(image, _number(data, start, 1) & 3)  # quarters, anticlockwise
        elif kind == b"imir":
            image = image[:, ::-1] if _number(data, start, 1) & 1 else image[::-1]
    return np.ascontiguousarray(image)


def decode_heic(data: bytes) -> np.ndarray:
    """uint8 [H, W, 3], BGR, upright; or HeicError."""
    try:
        import pillow_heif
    except ImportError as error:
        raise HeicError("HEIC, which needs pillow-heif: pip install 'ames-retrieval[heif]'") from error
    try:
        file = pillow_heif.open_heif(data, convert_hdr_to_8bit=True, bgr_mode=True)
        image = np.array(file)  # a copy: the memory belongs to the file object
    except (ValueError, EOFError, SyntaxError, RuntimeError, OSError) as error:  # those that it documents
        raise HeicError(f"HEIC that pillow-heif cannot decode ({error})") from error
    if image.dtype != np.uint8:  # it leaves deep grey images as they are, 16 bits
        image = (image >> 8).astype(np.uint8)
    image = image.reshape(*image.shape[:2], -1)
    colours = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, 2)
    return np.ascontiguousarray(colours)


def _number(data: bytes, start: int, length: int) -> int:
    return int.from_bytes(data[start : start + length], "big")


def _aperture(data: bytes, start: int, height: int, width: int) -> tuple[int, int, int, int] | None:
    """(top, bottom, left, right) of the part that is shown; None where it is no part of the image.

    Four fractions: its width and height, and how far its middle lies right of and below the image's.
    """
    signed = struct.unpack(">8i", data[start : start + 32].ljust(32, b"\0"))
    if 0 in signed[1::2]:
        return None
    columns, rows, right, down = (Fraction(a, b) for a, b in zip(signed[::2], signed[1::2], strict=True))
    top, left = round(down + (height - rows) / 2), round(right + (width - columns) / 2)
    bottom, end = top + round(rows), left + round(columns)
    inside = 0 <= top < bottom <= height and 0 <= left < end <= width
    return (top, bottom, left, end) if inside else None


def _boxes(data: bytes, start: int, end: int) -> Iterator[_Box]:
    while start + 8 <= end:
        size, head = _number(data, start, 4), 8
        if size == 1:
            size, head = _number(data, start + 8, 8), 16
        elif size == 0:  # up to the end
            size = end - start
        if size < head:
            return
        yield _Box(data[start + 4 : start + 8], start + head, min(start + size, end), start + size <= end)
        start += size


def _children(data: bytes, path: list[bytes], start: int = 0, end: int | None = None) -> Iterator[_Box]:
    """Boxes of the last kind of ``path``, each kind within the one before."""
    for box in _boxes(data, start, len(data) if end is None else end):
        if box.kind == path[0]:
            if len(path) == 1:
                yield box
            else:
                version = 4 if box.kind == b"meta" else 0  # before its boxes
                yield from _children(data, path[1:], box.start + version, box.end)


def _properties(data: bytes) -> list[tuple[bytes, int]]:
    """(kind, start of the content) of the picture's properties, in the order in which they apply."""
    main = next(_children(data, [b"meta", b"pitm"]), None)
    shared = next(_children(data, [b"meta", b"iprp", b"ipco"]), None)
    if main is None or shared is None:
        return []
    wanted = _number(data, main.start + 4, 4 if _number(data, main.start, 1) else 2)
    every = [(box.kind, box.start) for box in _boxes(data, shared.start, shared.end)]
    found = []
    for box in _children(data, [b"meta", b"iprp", b"ipma"]):
        for item, numbers in _associations(data, box):
            if item == wanted:
                found += [every[n - 1] for n in numbers if 0 < n <= len(every)]
    return found


def _associations(data: bytes, box: _Box) -> Iterator[tuple[int, list[int]]]:
    """(item, numbers of its properties from 1)."""
    long_item = 4 if _number(data, box.start, 1) else 2
    width = 2 if _number(data, box.start + 3, 1) & 1 else 1
    position = box.start + 8
    for _ in range(_number(data, box.start + 4, 4)):
        if position >= box.end:
            return
        item = _number(data, position, long_item)
        count = _number(data, position + long_item, 1)
        position += long_item + 1
        mask = (1 << (8 * width - 1)) - 1  # the first bit: whether it must be understood
        yield item, [_number(data, position + width * i, width) & mask for i in range(count)]
        position += width * count
