"""Training that goes on after an interruption: states in a folder, and a signal that asks to leave."""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

import torch

from ames.errors import AmesError, first_line
from ames.io.atomic import atomic_path

log = logging.getLogger(__name__)

_SAME_PRESS = 1.0  # seconds within which two SIGINT are one Ctrl-C
_VERSION = 2  # of a state's content
TERMINATED = 128 + signal.SIGTERM  # the exit status that shells and schedulers expect


class Checkpoints:
    """Whole states of a training in a folder: ``state-<batches done>.pt``, each of them written atomically.

    every: batches of an epoch between two states (0: none within an epoch). keep: how many of the last stay;
    more than one, so that a damaged one costs little. resume: whether to go on from what is there; if not,
    the states of a training that came to its end make room, and others are refused.
    """

    def __init__(self, folder: Path | str, *, every: int = 0, keep: int = 2, resume: bool = False) -> None:
        if keep < 1 or every < 0:
            raise AmesError(f"keep {keep} must be at least 1, save_every {every} at least 0")
        self.folder, self.every, self.keep, self.resume = Path(folder), every, keep, resume

    def due(self, batch: int, step: int = 1) -> bool:
        """Whether a state is to be saved behind ``batch`` batches of an epoch, which come ``step`` at a time:
        with the first of these steps that reaches a multiple of ``every``.
        """
        return self.every > 0 and batch % self.every < step

    def save(self, state: dict[str, Any], settings: dict[str, Any], done: int) -> None:
        """Writes a state after ``done`` batches in all; the oldest beyond ``keep`` go."""
        path = self.folder / f"state-{done:09}.pt"
        with atomic_path(path) as temporary:
            try:
                more = {"version": _VERSION, "settings": json.dumps(settings, sort_keys=True)}
                torch.save(state | more, temporary)
            except RuntimeError as error:  # what torch raises on a full disk
                raise AmesError(f"{path}: cannot be written ({first_line(error)})") from error
        # Those behind it are damaged, for training went on from one before them: they are none of the last.
        for old in [x for x in self._states() if x <= path][: -self.keep]:
            old.unlink(missing_ok=True)

    def latest(self, settings: dict[str, Any]) -> dict[str, Any] | None:
        """The newest state that can be read; None if there is none.

        AmesError where none can be read, where it was begun with other settings, or where there are states
        and nobody asked to go on.
        """
        states = self._states()
        for path in reversed(states):
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
                begun, finished = state.pop("settings"), state["finished"]
            except Exception as error:  # a damaged file can stop the unpickler in any way
                log.warning("%s: damaged (%s); the one before is taken", path, first_line(error))
                continue
            if not self.resume:
                self._make_room(path, finished)
                return None
            if state.pop("version", 1) != _VERSION:
                raise AmesError(
                    f"{path}: a state of another version of ames; resume with that one, or remove it"
                )
            self._check(path, json.loads(begun), settings)
            return state
        if states:
            raise AmesError(f"{self.folder}: none of its {len(states)} states can be read; remove it")
        return None

    def _make_room(self, newest: Path, finished: bool) -> None:
        if not finished:
            raise AmesError(f"{newest}: of a training that was interrupted; give resume=auto, or remove it")
        for path in self._states():
            path.unlink()

    def _check(self, path: Path, begun: dict[str, Any], settings: dict[str, Any]) -> None:
        wanted = json.loads(json.dumps(settings))
        for group, values in begun.items():
            other = wanted.get(group)
            if values == other:
                continue
            if isinstance(values, dict) and isinstance(other, dict):
                name = next(k for k in values | other if values.get(k) != other.get(k))
                values, other = values.get(name), other.get(name)
            else:
                name = group
            raise AmesError(
                f"{path}: its training was begun with {name} {values!r}, not {other!r}; resume with the "
                "same, or start again elsewhere"
            )

    def _states(self) -> list[Path]:
        return sorted(self.folder.glob("state-*.pt"))


class Interruption:
    """Notes SIGTERM, which schedulers send before they take a machine away, and Ctrl-C, so that a step can be
    ended. A second Ctrl-C does not wait for that. kept: whether there is a state by then, which is said.
    """

    def __init__(self, *, kept: bool) -> None:
        self.asked = False
        self._kept = kept
        self._signal = signal.SIGTERM  # another process may have been asked
        self._before: dict[int, Any] = {}
        self._noted = 0.0

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():  # only there may signals be handled
            self._before = {x: signal.signal(x, self._note) for x in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        # A terminal and torchrun both send what one Ctrl-C is.
        if self.asked and number == signal.SIGINT and time.monotonic() - self._noted > _SAME_PRESS:
            raise KeyboardInterrupt
        if not self.asked:
            self._noted = time.monotonic()
        self.asked, self._signal = True, signal.Signals(number)

    def leave(self) -> NoReturn:
        """Ends the process with the status of SIGTERM, or as Ctrl-C does."""
        log.warning("%s: %straining ends", self._signal.name, "the state is kept, " if self._kept else "")
        if self._signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(TERMINATED)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
