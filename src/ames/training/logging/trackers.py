"""Trackers that show the curves of a running training: TensorBoard, Weights & Biases."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ames.errors import AmesError, first_line, installing
from ames.io.atomic import atomic_file

log = logging.getLogger(__name__)

TRACKERS = ("tensorboard", "wandb")  # names of the key ``tracker``, of packages and of extras alike
PATIENCE = 120.0  # seconds that the end of a training waits for an upload


class Tracker(Protocol):
    """Takes metrics by name, after ``step`` steps, until it is closed."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in ``folder``; a training that resumes after ``step`` removes later metrics.

    AmesError where the package is missing or the folder cannot be written.
    """

    def __init__(self, folder: Path | str, *, step: int = 0) -> None:
        with _beginning("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            # Readers drop what earlier files have from this step on: at 0 the curves of another training.
            self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else 0)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # else a killed process loses two minutes

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A run of Weights & Biases with its files in ``folder``; WANDB_MODE=offline keeps them there.

    identity: an existing run of this identity is resumed; the service ignores metrics of steps that it has.
    AmesError where the package or the login is missing.
    """

    def __init__(
        self, project: str, *, name: str, config: Mapping[str, Any], folder: Path | str, identity: str
    ) -> None:
        with _beginning("wandb"):
            import wandb

            Path(folder).mkdir(parents=True, exist_ok=True)  # else its files go to a temporary folder
            # The console is the progress bar's; and an upload that hangs must not keep the machine for ever.
            settings = wandb.Settings(console="off", finish_timeout=PATIENCE)
            self._run = wandb.init(
                project=project,
                name=name,
                config=dict(config),
                dir=str(folder),
                id=identity,
                resume="allow",
                settings=settings,
            )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


def make_trackers(
    names: str | Sequence[str] | None, *, folder: Path | str, config: Mapping[str, Any], step: int = 0
) -> list[Tracker]:
    """Make the trackers that the key ``tracker`` names, after ``step`` steps of a training.

    names: "auto" (TensorBoard if it is installed), "tensorboard", "wandb", several of these two, or None or
    "none". folder: of this training alone, the same when it resumes, with a folder per tracker. config: plain
    data that Weights & Biases shows with the run, whose project and name are ames and that of the folder
    unless WANDB_PROJECT and WANDB_NAME are set.

    One that fails later says so once and is off from then on: no training dies of its curves. AmesError for
    other names, and for one asked for by name that is not installed or cannot begin.
    """
    folder = Path(folder)
    makers: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: TensorBoard(folder / "tensorboard", step=step),
        "wandb": lambda: WandB(
            os.environ.get("WANDB_PROJECT", "ames"),
            name=os.environ.get("WANDB_NAME", folder.resolve().name),
            config=config,
            folder=folder,
            identity=_identity(folder / "wandb" / "identity.txt", step),
        ),
    }
    if names is None or names == "none" or (names == "auto" and not _installed("tensorboard")):
        return []
    chosen = ["tensorboard"] if names == "auto" else [names] if isinstance(names, str) else names
    for name in chosen:
        if name not in TRACKERS:
            raise AmesError(f"tracker {name!r} is none of auto, {', '.join(TRACKERS)}, none")
    for name in chosen:
        if not _installed(name):
            raise AmesError(f"tracker={name}: {name} is not installed: {installing(name)}")
    try:
        return [_Spared(name, makers[name]()) for name in dict.fromkeys(chosen)]
    except AmesError as error:
        if names != "auto":
            raise
        log.warning("no curves: %s", error)  # nobody asked for it
        return []


def _installed(name: str) -> bool:
    spec = find_spec(name)
    return spec is not None and spec.origin is not None  # without one it is a folder of runs of that name


def _identity(path: Path, step: int) -> str:
    """The name under which the service knows the run: that of the interrupted one, else a new one."""
    if step and path.is_file():
        return path.read_text().strip()
    identity = secrets.token_hex(8)  # not of the generators that a seed rules
    with atomic_file(path) as file:
        file.write(identity.encode())
    return identity


@contextmanager
def _beginning(name: str) -> Iterator[None]:
    """Turn every error of a package's start into an AmesError: packages raise any exception."""
    try:
        yield
    except Exception as error:
        what, advice = "cannot begin", "; mend that, or give tracker=none"
        if isinstance(error, ImportError):
            what, advice = f"{name} cannot be loaded", f": {installing(name)}"
        raise AmesError(f"tracker={name}: {what} ({first_line(error)}){advice}") from error


class _Spared:
    """A tracker whose failures the training is spared."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.name = name
        self._tracker: Tracker | None = tracker

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._try(lambda tracker: tracker.log(step, metrics))

    def close(self) -> None:
        self._try(lambda tracker: tracker.close())
        self._tracker = None

    def _try(self, action: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            action(self._tracker)
        except Exception as error:  # packages, disks and networks raise what they like
            self._tracker = None
            log.warning("%s is off, training continues: %s", self.name, first_line(error))
