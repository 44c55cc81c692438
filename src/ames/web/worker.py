"""A worker process that decodes; it is replaced when it dies or takes too long."""

from __future__ import annotations

import json
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from ames.web import decoding
from ames.web.decoding import Found, Task
from ames.web.refusals import Refusal

_ANSWER = 4096  # bytes at most of an answer's first part
_PICTURE = 1 << 26  # of a JPEG that a worker made
_START = 60.0  # seconds in which a process has to be ready

Main = Callable[[Connection, int, float], None]


@dataclass(frozen=True)
class Limits:
    """Of one photo: seconds, bytes of memory beyond the worker's own."""

    seconds: float = 20.0
    memory: int = 2 << 30


class Worker:
    """A process that decodes one file at a time; calls of several threads wait for each other.

    main: what the process runs (``ames.web.decoding.run``, another one in tests).
    """

    def __init__(self, limits: Limits | None = None, main: Main = decoding.run) -> None:
        self.limits, self._main = limits or Limits(), main
        self._lock = threading.Lock()
        self._process: Any = None
        self._connection: Connection | None = None
        self.starts = 0

    def start(self) -> None:
        """Have a process ready."""
        with self._lock:
            self._ready()

    def pixels(self, task: Task) -> np.ndarray:
        """Return a file's pixels uint8 [H, W, 3] BGR. Refusal where it cannot be decoded."""

        def receive(found: Found, connection: Connection) -> np.ndarray:
            image = np.empty((found.height, found.width, 3), np.uint8)
            connection.recv_bytes_into(image.data.cast("B"))
            return image

        return self._call(task._replace(side=None), receive)[1]

    def picture(self, task: Task) -> tuple[Found, bytes]:
        """Return a file as a JPEG, and the size of the upright photo. Refusal where it cannot be decoded."""
        return self._call(task, lambda _, connection: connection.recv_bytes(_PICTURE))

    def close(self) -> None:
        """End the process, also while it works."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.join()

    def _call(self, task: Task, receive: Callable[[Found, Connection], Any]) -> tuple[Found, Any]:
        with self._lock:
            process, connection = self._ready()
            late = threading.Event()
            timer = threading.Timer(self.limits.seconds, _end, (process, late))
            timer.daemon = True
            timer.start()
            try:
                connection.send(task)
                found = Found(**json.loads(connection.recv_bytes(_ANSWER)))
                if found.status != 200:
                    connection.recv_bytes(0)
                    raise Refusal(found.status, found.problem)
                return found, receive(found, connection)
            except (OSError, EOFError, ValueError, TypeError, multiprocessing.ProcessError) as error:
                self._drop()
                why = f"took more than {self.limits.seconds:g} seconds" if late.is_set() else "ended it"
                raise Refusal(422, f"the photo cannot be decoded: the process that tried {why}") from error
            finally:
                timer.cancel()

    def _ready(self) -> tuple[Any, Connection]:
        if self._process is not None and self._process.is_alive() and self._connection is not None:
            return self._process, self._connection
        self._drop()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        words = (theirs, self.limits.memory, self.limits.seconds)
        process = context.Process(target=self._main, args=words, daemon=True)
        with _interruptions_blocked():
            process.start()
        theirs.close()
        self._process, self._connection = process, ours
        self.starts += 1
        try:
            if not ours.poll(_START):
                raise EOFError
            ours.recv_bytes(_ANSWER)
        except (OSError, EOFError) as error:
            self._drop()
            raise Refusal(503, "the server cannot start a process that decodes photos") from error
        return process, ours

    def _drop(self) -> None:
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if connection is not None:
            connection.close()
        if process is not None:
            process.kill()
            process.join()


def _end(process: Any, late: threading.Event) -> None:
    late.set()
    process.kill()


@contextmanager
def _interruptions_blocked() -> Iterator[None]:
    """A process that starts in the block never gets Ctrl-C, which the terminal sends to all: we end it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
