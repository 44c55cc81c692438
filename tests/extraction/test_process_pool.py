"""Processes beside the one that extracts: how far they are ahead, and what becomes of them, and of it."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from ames.backbones.rootsift import RootSift
from ames.errors import AmesError
from ames.extraction.base import ImageRegion
from ames.extraction.config import ExtractionConfig
from ames.extraction.process_pool import PoolExtractor
from helpers import photos
from helpers.commands import ROOT
from helpers.slow_workers import Noting


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for number in range(160):
        photos.save(root / f"{number:03}.png", photos.plain())
    return root


@pytest.fixture
def notes(tmp_path):
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


def begun(notes):
    return len(list(notes.iterdir()))


def test_workers_are_ahead_by_a_bounded_number_of_images(root, notes):
    """Results wait in memory, a quarter of a megabyte an image: a slow disk must not let them pile up."""
    names = sorted(root.iterdir())
    chunks = PoolExtractor(Noting(notes, 0), ExtractionConfig(desc_num=5, workers=1)).chunks(
        [ImageRegion(name) for name in names], 16
    )
    found = len(next(chunks))
    stable = -1
    while stable != (stable := begun(notes)):  # until they have nothing to do any more
        time.sleep(0.5)
    assert stable < len(names)
    assert found + sum(len(chunk) for chunk in chunks) == len(names) == begun(notes)


def test_no_more_workers_than_there_is_work(root, notes):
    names = sorted(root.iterdir())[:20]
    with limited(60):
        ((*found,),) = PoolExtractor(Noting(notes, 0), ExtractionConfig(desc_num=5, workers=10**9)).chunks(
            [ImageRegion(name) for name in names], 99
        )
    assert len(found) == begun(notes) == 20


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Dies:
    """Whoever reads its pickle is killed, as for lack of memory."""

    def __reduce__(self):
        return die, ()


@contextlib.contextmanager
def limited(seconds):
    def late(number, frame):
        raise TimeoutError(f"still waiting after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_worker_that_dies_while_it_starts(root):
    backbone = RootSift()
    backbone.first, backbone.rest = Dies(), bytes(10_000_000)  # more than a pipe holds
    with limited(60), pytest.raises(AmesError, match="a worker process died, perhaps for lack of memory"):
        list(
            PoolExtractor(backbone, ExtractionConfig(desc_num=5, workers=1)).chunks(
                [ImageRegion(root / "000.png")], 16
            )
        )


@pytest.fixture
def running(root, notes, tmp_path):
    """An extraction whose worker is at an image; what it writes comes to an end when the worker does too."""
    script = ROOT / "tests" / "helpers" / "slow_workers.py"
    process = subprocess.Popen(
        [sys.executable, str(script), str(root), str(tmp_path / "x"), str(notes)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    began = time.monotonic()
    while not begun(notes) and time.monotonic() - began < 60:
        time.sleep(0.05)
    yield process
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def test_workers_end_with_a_process_that_is_killed(running, notes):
    running.kill()
    running.communicate(timeout=30)
    assert 0 < begun(notes) < 20


def test_an_interruption_is_one_line_and_soon(running, notes):
    os.killpg(running.pid, signal.SIGINT)  # as the terminal does
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert err == "ames extract: interrupted\n"
    assert begun(notes) < 10
