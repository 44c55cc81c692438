"""The peak of this process's memory over a block of code."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Measures what a block adds to the memory at its peak, in megabytes: ``added_mb``.

    Linux counts the peak and lets a process reset it. Elsewhere ``added_mb`` is None. Memory that earlier
    code has freed, and the C library keeps for the next one, is given back before.
    """

    added_mb: float | None = None

    def __enter__(self) -> PeakMemory:
        self._before = None
        gc.collect()
        with suppress(OSError, AttributeError, TypeError):  # glibc's alone; TypeError: Windows has no None
            ctypes.CDLL(None).malloc_trim(0)
        try:
            _RESET.write_text("5")
            self._before = _read("VmRSS")
        except OSError:
            pass  # another system, or one that does not permit it
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            self.added_mb = max(0.0, (_read("VmHWM") - self._before) / 1024)


def _read(key: str) -> int:
    """Kilobytes of a line of the process's status."""
    line = next(x for x in _STATUS.read_text().splitlines() if x.startswith(f"{key}:"))
    return int(line.split()[1])
