"""A collection of drawn scenes and its search page: in this process, or in one of its own."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

from starlette.testclient import TestClient

from ames.retrieval.indexing import index_photos
from ames.web.app import Limits, make_app
from ames.web.engine import Engine
from ames.web.guard import access_to
from helpers import photos
from helpers.commands import ROOT

SCRIPT = "<img src=x onerror=alert(1)>&quot;.png"  # a name that must stay a text
SIZE = (120, 160)
ADDRESS = "http://127.0.0.1:8008"


def collection(folder, scenes=8):
    """The folder of a collection of some scenes, ``a/0.png`` and so on, and one file named ``SCRIPT``."""
    for seed in range(scenes):
        photos.save(folder / "photos" / "a" / f"{seed}.png", photos.scene(seed, size=SIZE))
    photos.save(folder / "photos" / SCRIPT, photos.scene(99, size=SIZE))
    index_photos(folder / "photos", folder / "photos.db", workers=0)
    return folder / "photos.db"


def query(seed=3, view=1, ending=".png"):
    """The bytes of another view of a scene."""
    import cv2

    return cv2.imencode(ending, photos.scene(seed, view, size=SIZE))[1].tobytes()


@contextmanager
def client(database, *, limits=None, token=None, host="127.0.0.1"):
    """A client of a collection's application, which asks as a program does, without a browser's headers."""
    app = make_app(Engine(database), access_to(host, "127.0.0.1", 8008, token), limits or Limits())
    with TestClient(app, base_url=ADDRESS, raise_server_exceptions=False) as made:
        made.headers.clear()
        yield made


@contextmanager
def server(database, *words, **environment):
    """A server of its own process: the process and its address, as it prints it."""
    command = [sys.executable, "-m", "ames", "serve", str(database), "--port", "0", "-q", *words]
    kept = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"} | environment
    with subprocess.Popen(
        command, env=kept, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(20)


def wait_until(true, seconds=20.0):
    """Wait until ``true()`` is; an AssertionError if that takes too long."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)
