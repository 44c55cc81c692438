"""Training that resumes after an interruption: states in a folder, and a signal that asks to leave."""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from pathlib import Path
from types import FrameType
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
    more than one, so that a damaged one costs little. resume: whether to resume from the newest; if not,
    the states of a finished training are removed, and others are refused. overwrite: remove these, too.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        every: int = 0,
        keep: int = 2,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        if keep < 1 or every < 0:
            raise AmesError(f"keep {keep} must be at least 1, save_every {every} at least 0")
        if resume and overwrite:
            raise AmesError("resume goes on with a training, overwrite begins again: give one of the two")
        self.folder, self.every, self.keep = Path(folder), every, keep
        self.resume, self.overwrite = resume, overwrite

    @property
    def empty(self) -> bool:
        """Whether there is no state, damaged ones included."""
        return not self._states()

    def due(self, batch: int, step: int = 1) -> bool:
        """Whether to save a state after ``batch`` batches of an epoch, which come ``step`` at a time: with
        the first of these steps that reaches a multiple of ``every``.
        """
        return self.every > 0 and batch % self.every < step

    def save(self, state: dict[str, Any], settings: dict[str, Any], done: int) -> None:
        """Write a state after ``done`` batches in all; remove the oldest beyond ``keep``."""
        path = self.folder / f"state-{done:09}.pt"
        with atomic_path(path) as temporary:
            try:
                more = {"version": _VERSION, "settings": json.dumps(settings)}
                torch.save(state | more, temporary)
            except RuntimeError as error:  # what torch raises on a full disk
                raise AmesError(f"{path}: cannot be written ({first_line(error)})") from error
        # Later ones are damaged, because training resumed from one before them: they do not count.
        for old in [x for x in self._states() if x <= path][: -self.keep]:
            old.unlink(missing_ok=True)

    def latest(self, settings: dict[str, Any]) -> dict[str, Any] | None:
        """The newest state that can be read; None without states.

        AmesError where none can be read, where it was begun with other settings or another version, or where
        it is of an interrupted training and ``resume`` is not set.
        """
        states = self._states()
        if self.overwrite:
            for old in states:
                old.unlink()
            return None
        for path in reversed(states):
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
                begun, finished = state.pop("settings"), state["finished"]
            except Exception as error:  # a damaged file can stop the unpickler in any way
                log.warning("%s: damaged (%s); the one before is taken", path, first_line(error))
                continue
            if not self.resume:
                if not finished:
                    raise AmesError(
                        f"{path}: of a training that was interrupted; give resume=auto, or overwrite=true"
                    )
                for old in states:
                    old.unlink()
                return None
            if state.pop("version", 1) != _VERSION:
                raise AmesError(
                    f"{path}: a state of another version of ames; resume with that one, or remove it"
                )
            _check(path, _flat(json.loads(begun)), _flat(json.loads(json.dumps(settings))))
            return state
        if states:
            raise AmesError(f"{self.folder}: none of its {len(states)} states can be read; remove it")
        return None

    def _states(self) -> list[Path]:
        return sorted(self.folder.glob("state-*.pt"))


def _flat(settings: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """By group and name; a group that is a single value by its name alone."""
    groups = {key: x if isinstance(x, dict) else {key: x} for key, x in settings.items()}
    return {(group, name): value for group, values in groups.items() for name, value in values.items()}


def _check(path: Path, begun: dict[tuple[str, str], Any], wanted: dict[tuple[str, str], Any]) -> None:
    for key in begun | wanted:
        if begun.get(key) != wanted.get(key):
            raise AmesError(
                f"{path}: its training was begun with {key[1]} {begun.get(key)!r}, not {wanted.get(key)!r}; "
                "resume with the same, or start again elsewhere"
            )


class Interruption:
    """Records SIGTERM, which schedulers send before they take a machine away, and Ctrl-C, so that a step can
    end first. A second Ctrl-C does not wait. kept: whether a state exists by then, for the message.
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
        """End the process with the status of SIGTERM, or as Ctrl-C does."""
        log.warning("%s: %straining ends", self._signal.name, "the state is kept, " if self._kept else "")
        if self._signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(TERMINATED)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
