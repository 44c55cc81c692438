"""Peaks of memory."""

import ctypes
import sys
import time

import numpy as np
import pytest

from ames.bench.memory import PeakMemory

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone tells the numbers")


@linux
def test_memory_that_is_given_back_counts_at_its_peak():
    with PeakMemory() as memory:
        held = np.ones(20 << 20, np.uint8)
        time.sleep(0.05)
        del held
    assert 18 < memory.added_mb < 30


@linux
def test_free_memory_of_earlier_work_does_not_hide_new_memory():
    for _ in range(2):
        with PeakMemory() as memory:
            held = [np.ones(100_000, np.uint8) for _ in range(200)]  # from the heap, not mapped one by one
            time.sleep(0.05)
            del held
        assert 18 < memory.added_mb < 30


@linux
def test_mapped_files_do_not_count(tmp_path):
    np.save(tmp_path / "x.npy", np.ones(30 << 20, np.uint8))
    with PeakMemory() as memory:
        assert np.load(tmp_path / "x.npy", mmap_mode="r").sum() == 30 << 20
        time.sleep(0.05)
    assert memory.added_mb < 10


MB, COUNT = 1 << 20, 20
glibc = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim")


def arrays():
    """20 x 8 MB, with small ones between them that hold the heap open."""
    return [(np.ones(MB), np.ones(1000)) for _ in range(COUNT)]


@pytest.mark.skipif(not glibc, reason="of glibc")
def test_memory_that_was_freed_before_counts_again():
    del (large := [np.ones(3 * MB)])[:]  # from now on, such arrays are of the heap
    kept = [small for _, small in arrays()]
    with PeakMemory() as memory:
        again = arrays()
    assert 0.7 * 8 * COUNT < memory.added_mb < 1.1 * 8 * COUNT  # parts of the heap may not be given back
    assert len(kept) == len(again)
    assert not large
