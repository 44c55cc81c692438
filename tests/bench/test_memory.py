"""The peak of a block's memory."""

import ctypes
import sys

import numpy as np
import pytest

from ames.bench.memory import PeakMemory

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
    if memory.added_mb is None:
        pytest.skip("the system does not let a process reset its peak")
    assert memory.added_mb == pytest.approx(8 * COUNT, rel=0.1)
    assert len(kept) == len(again)
    assert not large
