"""Decode JPEGs and detect damaged ones.

OpenCV returns an image of a damaged JPEG as if it were whole. Its decoder, libjpeg, notices, but only prints
a line, for which this module listens.
"""

from __future__ import annotations

import re
import threading
from functools import cache

import cv2
import numpy as np

from ames.datasets.image_headers import END, START_OF_SCAN, segments
from ames.io.listening import Ear

_SAID = re.compile(  # all that libjpeg warns of
    rb"Corrupt JPEG data: |Premature end of JPEG file|Inconsistent progression sequence|"
    rb"Invalid SOS parameters|Warning: unknown JFIF revision|Unknown Adobe color transform"
)
_DAMAGE = re.compile(r"Corrupt JPEG data: (?!bad ICC)|Premature end|Inconsistent progression")
_SURPLUS = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0x(..)")
_first = threading.Lock()
_FEW = 4  # bytes that some cameras write after the picture


def decode_jpeg(data: bytes) -> tuple[np.ndarray | None, str | None]:
    """OpenCV's image, uint8 [H, W, 3] BGR or None, and libjpeg's complaint of damage, if there is one.

    May be called in threads.
    """
    ear = _ear()
    if ear is None:
        return decode_by_opencv(data), None
    image, heard = ear.among_others(lambda: decode_by_opencv(data))
    return image, _damage(ear, data) if heard and image is not None else None


def unheard() -> str | None:
    """One line if damage cannot be noticed on this system, or None."""
    if _ear() is not None:
        return None
    return "JPEGs damaged in the middle are not noticed on this system: OpenCV's decoder cannot be heard"


def decode_by_opencv(data: bytes, flags: int = cv2.IMREAD_COLOR) -> np.ndarray | None:
    """uint8 [H, W, 3] BGR; None if OpenCV cannot decode the file."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


def _ear() -> Ear | None:
    if not _tried_ear.cache_info().currsize:
        with _first:  # of several threads, one opens it
            _tried_ear()
    return _tried_ear()


@cache
def _tried_ear() -> Ear | None:
    """None if it does not hear a damaged JPEG."""
    ear = Ear.open(_SAID)
    if ear is None:
        return None
    noise = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    whole = cv2.imencode(".jpg", noise)[1].tobytes()
    return ear if ear.alone(lambda: decode_by_opencv(whole[:-50] + whole[-2:])) else None


def _damage(ear: Ear, data: bytes) -> str | None:
    """libjpeg's complaint about the picture, if there is one.

    It prints only the first one. If that is about headers, a copy without them is decoded to hear the next.
    """

    def complaint() -> str:
        return next(iter(ear.alone(lambda: decode_by_opencv(data))), "")

    said = complaint()
    surplus = _SURPLUS.match(said)
    if not _DAMAGE.match(said) or (surplus and surplus[2] != f"{END:02x}"):
        data = _bare(data)
        said = complaint()
        surplus = _SURPLUS.match(said)
    if not _DAMAGE.match(said) or (surplus and _is_filling(data, int(surplus[1]))):
        return None
    return said


def _is_filling(data: bytes, count: int) -> bool:
    """Return whether a good file may have these ``count`` bytes before its end marker: few, or equal ones."""
    end = next((x.start - 4 for x in segments(data) if x.marker == END), len(data))
    return count <= _FEW or len(set(data[end - count : end])) == 1


def _bare(data: bytes) -> bytes:
    """The JPEG without sources of complaints about headers.

    These are blocks of applications, bytes between blocks, and progressive scan parameters of a sequential
    JPEG.
    """
    parts, sequential, last = [data[:2]], False, None
    for segment in segments(data):
        if last is not None:  # the scan's data lies between its header and this marker
            parts.append(data[last : segment.start - 4])
            last = None
        if segment.marker == END:
            parts.append(bytes([0xFF, END]))
            break
        if 0xE0 <= segment.marker <= 0xEF or segment.marker == 0xFE:
            continue
        length = int.from_bytes(data[segment.start - 2 : segment.start], "big")
        content = data[segment.start : segment.start + length - 2]
        sequential = sequential or segment.marker in (0xC0, 0xC1)
        if segment.marker == START_OF_SCAN:
            last = segment.start + length - 2
            content = content[:-3] + b"\0\x3f\0" if sequential else content
        parts.append(bytes([0xFF, segment.marker]) + data[segment.start - 2 : segment.start] + content)
    return b"".join(parts)
