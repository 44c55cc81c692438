"""A worker in whose second case a fault is planted: the watch must see it."""

import os
import sys
import time
from pathlib import Path

from ames.errors import AmesError
from fuzz import worker


def trace():
    raise ValueError("planted")


def crash():
    os.abort()


def hang():
    time.sleep(99)


def talk():
    raise AmesError("planted\n" * 9)


def print_trace():
    os.write(2, b"Traceback (most recent call last): planted\n")


class Planted:
    """A kind that answers well but in one case."""

    calls = 0

    def prepare(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        Planted.calls = int(sys.argv[3])

    def ask(self, folder, work, rng):
        Planted.calls += 1
        if Planted.calls == 2:
            globals()[os.environ["FAULT"]]()
        raise AmesError("an answer")


if __name__ == "__main__":
    worker.run({"planted": Planted()}, sys.argv[1:])
