"""What a worker process does: decode files that may be hostile, with limits of memory and of time.

It takes tasks from its parent and sends JSON and raw bytes: a decoder that was taken over cannot make the
parent run anything. It writes no file, and it ends when its parent has ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from ames.datasets.image_headers import HEAD, JPEG, is_image, size_of
from ames.datasets.images import UnreadableImage, decode

_QUALITY = 82  # of JPEGs that are made here
_SHORT = 0.5  # seconds after which the process ends itself where its parent should have ended it


class Task(NamedTuple):
    """A file to decode: its bytes, or its path.

    side: pixels of the longer side of a JPEG that is made of it; None: its pixels are sent. max_pixels: of a
    file that is decoded.
    """

    data: bytes | None
    path: str | None
    side: int | None
    max_pixels: int


class Found(NamedTuple):
    """What is sent back. status: 200, or that of a refusal, whose line is ``problem``; height, width: of the
    upright photo."""

    status: int
    problem: str = ""
    height: int = 0
    width: int = 0


def run(connection: Connection, memory: int, seconds: float) -> None:
    """Work until the parent closes the connection. memory: bytes beyond what the process begins with."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is for the parent
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    decode(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())  # opens what decoding needs
    _confine(memory)
    connection.send_bytes(b"ready")
    while True:
        try:
            task: Task = connection.recv()
        except EOFError:
            return
        _end_after(seconds + _SHORT)
        found, body = _answer(task)
        connection.send_bytes(json.dumps(found._asdict()).encode())
        connection.send_bytes(body)
        del task, body
        _end_after(0)


def _confine(memory: int) -> None:
    """No more memory, no file written, no core dumped."""
    with suppress(ImportError):  # there is none on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (_taken() + memory,) * 2)


def _taken() -> int:
    """Bytes of address space that this process has."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):  # not Linux
        return 1 << 32
    return pages * os.sysconf("SC_PAGE_SIZE")


def _end_after(seconds: float) -> None:
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_REAL, seconds)  # its signal ends a process that has no handler


def _answer(task: Task) -> tuple[Found, Any]:
    try:
        data = task.data if task.path is None else Path(task.path).read_bytes()
        assert data is not None
        _check(data, task.max_pixels)
        if task.side is None:
            image = decode(data, max_pixels=task.max_pixels)
            return Found(200, "", *image.shape[:2]), np.ascontiguousarray(image).data.cast("B")
        return _picture(data, task.side, task.max_pixels)
    except Problem as problem:
        return Found(problem.status, str(problem)), b""
    except UnreadableImage as error:
        return Found(422, f"the photo cannot be read: {error}"), b""
    except OSError:
        return Found(404, "this photo is no longer in its folder"), b""
    except (MemoryError, cv2.error):
        return Found(422, "the photo takes too much memory to decode"), b""


class Problem(Exception):  # noqa: N818 - it is a finding about a file
    """Why a file is not decoded, with the status of the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _check(data: bytes, max_pixels: int) -> None:
    """By the header alone."""
    if not data:
        raise Problem(400, "no photo: the request has no body")
    if not is_image(data[:HEAD]):
        raise Problem(415, "not a photo of a known format: give JPEG, PNG, WebP, AVIF, TIFF, BMP or GIF")
    size = size_of(data)
    if size is not None and size[0] * size[1] > max_pixels:
        raise Problem(413, f"the photo has {size[1]} x {size[0]} pixels, more than {max_pixels:,}")


def _picture(data: bytes, side: int, max_pixels: int) -> tuple[Found, Any]:
    """A JPEG of at most so many pixels a side, upright, without the file's other contents (such as GPS)."""
    size = size_of(data)
    reduced = _reduced(data, side, max(size)) if size is not None else None
    image = decode(data, max_pixels=max_pixels) if reduced is None else reduced[0]
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale < 1:
        smaller = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    done, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise UnreadableImage("it cannot be shown")
    whole = (height, width) if reduced is None else _upright(size, reduced[0])  # type: ignore[arg-type]
    return Found(200, "", *whole), encoded.tobytes()


def _reduced(data: bytes, side: int, longest: int) -> tuple[np.ndarray] | None:
    """A JPEG that is decoded at an eighth, a quarter or a half of its size, which takes less time."""
    flags = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
    for factor, flag in flags.items():
        if data.startswith(JPEG) and longest >= side * factor:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
            return None if image is None else (image,)
    return None


def _upright(stored: tuple[int, int], image: np.ndarray) -> tuple[int, int]:
    """(height, width) of a photo as it is shown: a smaller copy of it says whether it lies on its side."""
    is_turned = (stored[0] > stored[1]) != (image.shape[0] > image.shape[1])
    return (stored[1], stored[0]) if is_turned else stored
