"""The peak of this process's own memory over a block of code."""

from __future__ import annotations

import ctypes
import gc
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_STATUS = Path("/proc/self/status")
_INTERVAL = 0.01  # seconds between samples


class PeakMemory:
    """Measures what a block adds to this process's memory at its peak, in megabytes: ``added_mb``.

    Pages of mapped files do not count: they are the system's cache, and stay after a first reading. Memory
    that is free, but not given back, is given back before. The peak is sampled every 10 milliseconds. Linux
    alone tells the numbers; elsewhere ``added_mb`` is None.
    """

    added_mb: float | None = None

    def __enter__(self) -> PeakMemory:
        gc.collect()
        with suppress(OSError, AttributeError, TypeError):  # glibc's alone; TypeError: Windows has no None
            ctypes.CDLL(None).malloc_trim(0)
        self._before = _anonymous()
        self._peak, self._ended = self._before or 0, threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        if self._before is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            self._ended.set()
            self._thread.join()
            self._peak = max(self._peak, _anonymous() or 0)  # of a block that is over between two samples
            self.added_mb = (self._peak - self._before) / 1024

    def _sample(self) -> None:
        while True:
            self._peak = max(self._peak, _anonymous() or 0)
            if self._ended.wait(_INTERVAL):
                return


def _anonymous() -> int | None:
    """Kilobytes of this process that are no pages of files; None where the system does not tell."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), None)
