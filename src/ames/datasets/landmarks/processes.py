"""Drawing in several processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2

Each = Callable[[Callable[..., Any], Sequence[Any]], Iterator[Any]]  # ``map``, by any number of processes


@contextmanager
def processes(workers: int) -> Iterator[Each]:
    """A ``map`` by ``workers`` processes; 0 or 1: in this one."""
    if workers < 2:
        yield map
        return
    # Spawned, not forked: the caller may hold threads or a CUDA context, which a fork would break.
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, cv2.setNumThreads, (1,)) as pool:
        yield lambda function, tasks: pool.imap(function, tasks, chunksize=2)
