"""Pictures of the collection for a browser: made by a worker process, kept in memory within a bound."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from ames.datasets.images import MAX_PIXELS
from ames.web.decoding import Found, Task
from ames.web.refusals import Refusal
from ames.web.worker import Worker

SIDES = {"thumbnail": 320, "image": 1600}  # pixels of the longer side of each kind
CACHE = 64 << 20  # bytes of pictures that are kept


class Pictures:
    """JPEGs of files, by path, side and the file's state. cache: bytes that are kept, the last used ones."""

    def __init__(self, worker: Worker | None = None, cache: int = CACHE) -> None:
        self.worker, self._bound, self.bytes = worker or Worker(), cache, 0
        self._kept: OrderedDict[tuple[str, int, str], bytes] = OrderedDict()

    def kept(self, path: Path, side: int, state: str) -> bytes | None:
        """Return a picture if it is at hand."""
        key = (str(path), side, state)
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def make(self, path: Path, side: int, state: str) -> bytes:
        """Return a picture. Refusal where the file is gone or cannot be decoded."""
        found = self.kept(path, side, state)
        if found is None:
            _, found = self.worker.picture(Task(None, str(path), side, MAX_PIXELS))
            self._keep((str(path), side, state), found)
        return found

    def preview(self, data: bytes, max_pixels: int) -> tuple[Found, bytes]:
        """Return an upload as a JPEG, and the size of the upright photo, for browsers that cannot show it."""
        return self.worker.picture(Task(data, None, SIDES["image"], max_pixels))

    def _keep(self, key: tuple[str, int, str], picture: bytes) -> None:
        self._kept[key] = picture
        self.bytes += len(picture)
        while self.bytes > self._bound:
            self.bytes -= len(self._kept.popitem(last=False)[1])


def state_of(path: Path) -> str:
    """Return what changes with a file. Refusal (404) where it is gone."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        raise Refusal(404, "this photo is no longer in its folder") from None
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"
