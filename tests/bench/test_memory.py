"""Peaks of memory."""

import sys
import time

import numpy as np
import pytest

from ames.bench.memory import PeakMemory

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone tells the numbers")
MB = 1024  # kilobytes


def seen(memory, least):
    """Wait until a sample has seen so many megabytes: on a busy machine the next one may be late."""
    deadline = time.monotonic() + 10
    while memory._peak - memory._before < least * MB and time.monotonic() < deadline:
        time.sleep(0.01)


@linux
def test_memory_that_is_given_back_counts_at_its_peak():
    with PeakMemory() as memory:
        held = np.ones(200 << 20, np.uint8)
        seen(memory, 150)
        del held
    assert 150 < memory.added_mb < 300


@linux
def test_free_memory_of_earlier_work_does_not_hide_new_memory():
    for _ in range(2):
        with PeakMemory() as memory:
            held = [np.ones(100_000, np.uint8) for _ in range(1000)]  # from the heap, not mapped one by one
            seen(memory, 40)
            del held
        assert 40 < memory.added_mb < 200  # without giving back, the second time has nothing


@linux
def test_mapped_files_do_not_count(tmp_path):
    np.save(tmp_path / "x.npy", np.ones(200 << 20, np.uint8))
    with PeakMemory() as memory:
        assert np.load(tmp_path / "x.npy", mmap_mode="r").sum() == 200 << 20
        time.sleep(0.05)
    assert memory.added_mb < 100
