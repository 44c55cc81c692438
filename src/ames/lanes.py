"""Lanes: threads that each compute alone on a CPU, each operation of torch within one thread.

An operation that torch splits among threads ends when the last of them does. Where another process holds one
of the cores, every small operation waits for it. Lanes wait only when all work is done: pieces of work are
handed out one by one, so that a lane which is held up does not hold up the others.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

_CGROUP = Path("/sys/fs/cgroup")
_starting = threading.Lock()


class Lanes:
    """``count`` threads; results do not depend on it. None: ``usable_cores``.

    Nothing is left changed in the caller's torch: its number of threads is its own.
    """

    def __init__(self, count: int | None = None) -> None:
        self.count = usable_cores() if count is None else count
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Return ``function`` of each item, in order; the first error that an item raises is raised."""
        tasks = [self._threads().submit(function, item) for item in items]
        try:
            return [task.result() for task in tasks]
        except BaseException:
            for task in tasks:
                task.cancel()
            raise

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None or self._process != os.getpid():  # threads do not survive a fork
            self._pool, self._process = _start(self.count), os.getpid()
        return self._pool


def usable_cores() -> int:
    """Return the cores that this process may use: by affinity, by its container's limit, and by the threads
    that torch was given (``OMP_NUM_THREADS``, ``torch.set_num_threads``).
    """
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affine, _container_limit(_CGROUP) or affine, torch.get_num_threads()))


def _container_limit(folder: Path) -> int | None:
    """The cores that a control group allows, rounded up; None where there is no limit."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdecimal() or not period.isdecimal() or not int(period):  # "max", or -1
        return None
    return max(1, math.ceil(int(quota) / int(period)))


def _start(count: int) -> ThreadPoolExecutor:
    """Start all threads now, so that torch's setting is changed for a moment only."""
    ready = threading.Barrier(count + 1)

    def begin() -> None:
        torch.get_num_threads()  # sets the thread up from the process's number, once; then it takes its own
        torch.set_num_threads(1)
        ready.wait()

    with _starting:
        before = torch.get_num_threads()
        pool = ThreadPoolExecutor(count, "ames-lane", begin)
        waiting = [pool.submit(lambda: None) for _ in range(count)]
        ready.wait()
        torch.set_num_threads(before)  # the process's number, which threads that start later take
        for one in waiting:
            one.result()
    return pool
