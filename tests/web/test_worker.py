"""The process that decodes: it may die, hang, or send nonsense."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ames.web import decoding
from ames.web.decoding import Found, Task
from ames.web.refusals import Refusal
from ames.web.worker import Limits, Worker
from helpers import photos, serving
from helpers.bad_decoder import misbehaving

GOOD = Task(serving.query(), None, None, 10**6)


@pytest.fixture
def started():
    """Starts workers that misbehave, by their seconds of a photo; ends them."""
    workers = []

    def start(seconds):
        workers.append(Worker(Limits(seconds), misbehaving))
        workers[-1].start()
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


@pytest.mark.parametrize("how", [b"hang", b"die", b"nonsense", b"long", b"more", b"keys"])
def test_it_is_replaced(started, how):
    bad = started(1.0 if how == b"hang" else 30.0)
    begun = time.monotonic()
    why = "took more than 1 seconds" if how == b"hang" else "ended it"
    with pytest.raises(Refusal, match=f"cannot be decoded: the process that tried {why}") as refused:
        bad.pixels(Task(how, None, None, 100))
    assert refused.value.status == 422
    assert time.monotonic() - begun < 10
    assert bad.pixels(Task(b"good", None, None, 100)).tolist() == [[[0, 1, 2], [3, 4, 5]]]
    assert bad.starts == 2


def test_one_that_is_stopped_between_two_photos_is_replaced(started):
    bad = started(1.0)
    os.kill(bad._process.pid, signal.SIGSTOP)
    large = Task(bytes(10**7), None, None, 100)  # more than a pipe holds: sending waits, too
    with pytest.raises(Refusal, match="took more than 1 seconds"):
        bad.pixels(large)
    assert bad.pixels(large).shape == (1, 2, 3)


def test_one_that_died_between_two_photos_is_replaced(started):
    bad = started(30.0)
    bad._process.kill()
    bad._process.join()
    assert bad.pixels(Task(b"good", None, None, 100)).shape == (1, 2, 3)


def test_several_threads_take_turns():
    worker = Worker()
    shapes = []
    threads = [threading.Thread(target=lambda: shapes.append(worker.pixels(GOOD).shape)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    worker.close()
    assert shapes == [(*serving.SIZE, 3)] * 8
    assert worker.starts == 1


def test_what_it_sends_is_what_the_file_holds(tmp_path):
    worker = Worker()
    image = photos.scene(4, size=serving.SIZE)
    photos.save(tmp_path / "a.png", image)
    assert np.array_equal(worker.pixels(Task(None, str(tmp_path / "a.png"), None, 10**6)), image)
    found, picture = worker.picture(Task(None, str(tmp_path / "a.png"), 40, 10**6))
    assert found == Found(200, "", *serving.SIZE)
    assert decoding.decode(picture).shape == (30, 40, 3)
    with pytest.raises(Refusal, match="no longer in its folder") as refused:
        worker.pixels(Task(None, str(tmp_path / "b.png"), None, 10**6))
    assert refused.value.status == 404
    worker.close()


def test_it_writes_no_file_and_ends_with_its_parent(tmp_path):
    worker = Worker()
    worker.start()
    limits = Path(f"/proc/{worker._process.pid}/limits")
    if limits.exists():
        row = next(line for line in limits.read_text().splitlines() if line.startswith("Max file size"))
        assert row.split()[3:5] == ["0", "0"]
    process = worker._process
    worker._connection.close()  # what the system does when the parent is killed
    process.join(10)
    assert process.exitcode == 0
