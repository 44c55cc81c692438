"""Lanes: threads of one core each, that leave the caller's torch as it was."""

import os
import threading
import time

import pytest
import torch

from ames import lanes
from ames.lanes import Lanes, usable_cores


@pytest.fixture
def three_threads():
    """A process whose torch has three threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_each_lane_computes_alone_and_the_caller_keeps_its_threads(three_threads):
    assert Lanes(2).map(lambda _: torch.get_num_threads(), range(8)) == [1] * 8
    assert torch.get_num_threads() == 3
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [3]


def test_results_are_in_order_and_lanes_work_at_once():
    two = Lanes(2)
    meet = threading.Barrier(2, timeout=30)  # which one thread alone never passes
    assert two.map(lambda i: (meet.wait() and None) or i, range(2)) == [0, 1]
    assert two.map(lambda i: time.sleep(0.02 * (3 - i)) or i, range(4)) == [0, 1, 2, 3]


def test_a_lane_that_is_held_up_does_not_hold_up_the_other():
    held = threading.Event()
    done = []

    def work(item):
        if item == 0:
            held.wait(30)
        else:
            done.append(item)
            if len(done) == 9:
                held.set()
        return item

    assert Lanes(2).map(work, range(10)) == list(range(10))
    assert done == list(range(1, 10))


def test_the_first_error_is_raised_and_the_lanes_go_on_to_serve():
    pool = Lanes(2)

    def fail(item):
        if item >= 3:
            raise ValueError(item)
        return item

    with pytest.raises(ValueError, match="3"):
        pool.map(fail, range(8))
    assert pool.map(fail, range(3)) == [0, 1, 2]


def test_a_forked_process_starts_its_own():
    pool = Lanes(1)
    assert pool.map(abs, [-1]) == [1]
    child = os.fork()
    if not child:
        os._exit(0 if pool.map(abs, [-2]) == [2] else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_usable_cores_respect_affinity_container_and_torch(three_threads, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(lanes, "_CGROUP", tmp_path)
    assert usable_cores() == 3
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert usable_cores() == 2
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert usable_cores() == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert usable_cores() == 1
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert usable_cores() == 3
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("100000\n")
    assert usable_cores() == 1
