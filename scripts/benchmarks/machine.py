"""Measure a machine: its name, its rate of matrix products, the time and the memory of a function."""

from __future__ import annotations

import multiprocessing
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


def describe(device: str = "cpu") -> dict[str, Any]:
    """The machine, to be reported with every measurement."""
    found = {"processor": _processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    return match[1].strip() if (match := re.search(r"model name\s*:(.*)", text)) else platform.machine()


def alternate(
    functions: dict[str, Callable[[], Any]], repeats: int, device: str = "cpu", *, warm: bool = True
) -> dict[str, list[float]]:
    """Seconds of each function, called in turn so that noise affects all alike; if ``warm``, round one only
    warms up.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for round_ in range(0 if warm else 1, repeats + 1):
        for name, function in functions.items():
            _wait(device)
            start = time.perf_counter()
            function()
            _wait(device)
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return seconds


@contextmanager
def busy_core() -> Iterator[None]:
    """A foreign process that keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.5)  # until it is
        yield
    finally:
        process.kill()
        process.wait()


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """The result of a call, and its seconds."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def ratio(seconds: dict[str, list[float]], slow: str, fast: str) -> float:
    """How many times faster, by the medians of the rounds."""
    return statistics.median(seconds[slow]) / statistics.median(seconds[fast])


def matrix_rate(dtype: torch.dtype, device: str = "cpu", repeats: int = 9) -> float:
    """Operations per second of a large matrix product, two per multiply-add: the median of the rounds."""
    n = 2048 if device == "cpu" else 8192
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    product = torch._int_mm if dtype == torch.int8 else torch.matmul
    seconds = alternate({"product": lambda: product(a, b)}, repeats, device)["product"]
    return 2 * n**3 / statistics.median(seconds)


def peak_memory(function: Callable[..., Callable[[], Any]], *arguments: Any) -> int | None:
    """Bytes that a call allocates at its peak, measured in a process of its own; None if this is not Linux.

    ``function(*arguments)`` prepares and returns the call.
    """
    if not Path("/proc/self/clear_refs").exists():
        return None
    return in_process(_peak, function, arguments, torch.get_num_threads())


def in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a call in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def memory_now() -> int | None:
    """Resident bytes of this process; None where the system does not tell."""
    return _status("VmRSS") if Path("/proc/self/status").exists() else None


def _peak(function: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...], threads: int) -> int:
    torch.set_num_threads(threads)
    call = function(*arguments)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(key))
    return 1024 * int(line.split()[1])
