"""Gather rows of a table at the speed of memory.

One core does not fill the memory bus, so a few threads share the copy without the GIL. Pages of new memory
are zeroed, which costs as much as the copy, so memory that nobody refers to serves the next read.
"""

from __future__ import annotations

import math
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

_LARGE = 1 << 23  # bytes from which memory is kept, and shared out among threads
_THREADS = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
_SMALLEST = 64  # bytes that are still worth an index of their own


class Memory:
    """Hands out memory, and the last piece again once no array or tensor on it is left.

    Holds at most one piece that is not in use.
    """

    def __init__(self) -> None:
        self._spare: deque[np.ndarray] = deque(maxlen=1)  # its methods are atomic: no lock to inherit by fork

    def take(self, size: int) -> np.ndarray:
        """uint8 [size], of any content."""
        if size < _LARGE:
            return np.empty(size, np.uint8)
        try:
            memory = self._spare.pop()
        except IndexError:
            memory = None
        if memory is None or not size <= memory.size <= 2 * size:
            memory = np.empty(size, np.uint8)
        return np.asarray(_Loan(memory, self._spare))[:size]


class _Loan:
    """The base of arrays on ``memory``: numpy and torch keep it as long as anything refers to the memory."""

    def __init__(self, memory: np.ndarray, spare: deque[np.ndarray]) -> None:
        self._memory, self._spare = memory, spare
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        self._spare.append(self._memory)


class _Readable:
    """A read-only array as torch takes it without a warning; nobody writes to it here."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        interface = array.__array_interface__
        self.__array_interface__ = interface | {"data": (interface["data"][0], False)}


def gather(table: np.ndarray, rows: np.ndarray, start: int, length: int, memory: Memory) -> np.ndarray:
    """uint8 [n, length]: bytes ``start`` ... of some rows of a contiguous table uint8 [images, bytes].

    rows: int64 [n] in [0, images), in any order, repeated or not. The result is a copy.
    """
    found = memory.take(len(rows) * length).reshape(len(rows), length)
    threads = _THREADS if found.size >= _LARGE else 1
    step = -(-len(rows) // threads)
    parts = [slice(first, first + step) for first in range(0, len(rows), step or 1)] if found.size else []

    def copy(part: slice) -> None:
        _copy(table, rows[part], start, found[part])

    if len(parts) > 1:
        with ThreadPoolExecutor(len(parts)) as pool:
            list(pool.map(copy, parts))
    else:
        for part in parts:
            copy(part)
    return found


def _copy(table: np.ndarray, rows: np.ndarray, start: int, out: np.ndarray) -> None:
    """Fill ``out`` [n, length], without the GIL."""
    width, length = table.shape[1], out.shape[1]
    if torch.get_num_threads() == 1:
        # The fastest of all. With more threads it gathers and lets go of them once a row, which is slower
        # than numpy by orders of magnitude where the cores are busy.
        source = torch.from_numpy(np.asarray(_Readable(table)))[:, start : start + length]
        torch.index_select(source, 0, torch.from_numpy(rows), out=torch.from_numpy(out))
        return
    # numpy.take wants contiguous rows: the table in units of which both a row and the piece of it are made.
    unit = math.gcd(width, start, length)
    if unit < min(_SMALLEST, length):
        out[:] = table[rows, start : start + length]
        return
    index = rows[:, None] * (width // unit) + np.arange(start // unit, (start + length) // unit)
    # "clip": the other modes copy through a buffer; the rows are known to be in range.
    np.take(table.reshape(-1, unit), index, 0, out=out.reshape(len(rows), -1, unit), mode="clip")
