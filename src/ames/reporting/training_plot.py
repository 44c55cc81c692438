"""Plot journals of trainings: loss by step, validation mAP by epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ames.errors import AmesError
from ames.io.atomic import atomic_file
from ames.io.claims import parsed
from ames.reporting.style import COLOURS, new_figure, plain, tidy
from ames.training.logging.journal import ENDING, journal_path, read_journal

FORMATS = (".png", ".pdf", ".svg")
_DASHES = ("-", "--", ":", "-.")  # of the first six runs, the next six, ...


@dataclass(frozen=True, eq=False)
class Series:
    """A metric over time: ``x`` (step or epoch) and ``y`` [n], float64; NaN where it was not finite."""

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, eq=False)
class Curves:
    """The curves of one training: its loss by step (means of epochs if ``by_epoch``), validation mAP in
    percent by epoch; the last loss and accuracy, of an epoch as soon as one is complete, else NaN.
    """

    name: str
    loss: Series
    by_epoch: bool
    val_map: Series
    last_loss: float
    last_accuracy: float

    def row(self) -> dict[str, Any]:
        """A row of the table; None where no such metric exists."""
        maps = self.val_map.y
        best = int(np.nanargmax(maps)) if np.isfinite(maps).any() else None
        return {
            "run": self.name,
            "loss": _digits(self.last_loss),
            "accuracy": _digits(self.last_accuracy),
            "best_map": None if best is None else float(maps[best]),
            "at_epoch": None if best is None else int(self.val_map.x[best]),
        }


def find_journals(runs: Sequence[Path | str]) -> list[Path]:
    """The journals of runs, each once. A run is a journal, a model file that has one beside it, or a folder
    that holds journals or an ``environment.json`` whose ``journal`` is the path, from the folder, of one.

    AmesError names the run that does not exist, or has no journal.
    """
    found: dict[Path, Path] = {}
    for run in runs:
        for path in _journals(Path(run)):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _journals(run: Path) -> list[Path]:
    if run.is_dir():
        found = sorted(run.glob(f"*{ENDING}")) or _named_in(run / "environment.json")
        if not found:
            raise AmesError(f"{run}: no journal (*{ENDING}) in it; give a training's folder or its model")
        return found
    if run.suffix == ".jsonl" and run.is_file():
        return [run]
    beside = journal_path(run)  # also where training has not come to its first model
    if beside.is_file():
        return [beside]
    if run.exists():
        raise AmesError(f"{run}: no journal beside it ({beside.name})")
    raise AmesError(f"{run}: no such run; give a journal, a model file or a folder")


def _named_in(environment: Path) -> list[Path]:
    if not environment.is_file():
        return []
    try:
        name = parsed(environment.read_bytes()).get("journal")
    except (OSError, ValueError, AttributeError) as error:
        raise AmesError(f"{environment}: not what a training writes ({error})") from error
    if not isinstance(name, str):
        return []
    journal = environment.parent / name
    if not journal.is_file():
        raise AmesError(f"{environment}: its journal {name} does not exist; give its path")
    return [journal]


def run_names(journals: Sequence[Path]) -> list[str]:
    """A name for each of several files: the fewest last parts of its path that no other one ends with,
    without those that all of them end with.
    """
    parts = [path.resolve().parts for path in journals]
    parts = [(*head, last.removesuffix(ENDING)) for *head, last in parts]
    short = []
    for one in parts:
        count = 1  # of last parts
        while any(one[-count:] == other[-count:] for other in parts if other is not one) and count < len(one):
            count += 1
        short.append(one[-count:])
    while min(map(len, short)) > 1 and len({one[-1] for one in short}) == 1:
        short = [one[:-1] for one in short]
    return ["/".join(one) for one in short]


def load_curves(journals: Sequence[Path]) -> list[Curves]:
    """Load journals. AmesError for one that is damaged, or that has neither loss nor mAP."""
    return [_curves(path, name) for path, name in zip(journals, run_names(journals), strict=True)]


def _curves(path: Path, name: str) -> Curves:
    records = read_journal(path)
    steps = [record for record in records if record["kind"] == "step"]
    epochs = [record for record in records if record["kind"] == "epoch"]
    loss, means = _series(steps, "step", "loss", path), _series(epochs, "step", "loss", path)
    val_map = _series(epochs, "epoch", "val_map", path)
    if not len(loss) and not len(means) and not len(val_map):
        raise AmesError(f"{path}: no metrics in it yet")
    accuracy = _series(epochs, "step", "accuracy", path), _series(steps, "step", "accuracy", path)
    return Curves(
        name=name,
        loss=loss if len(loss) else means,
        by_epoch=not len(loss),
        val_map=val_map,
        last_loss=_last(means, loss),
        last_accuracy=_last(*accuracy),
    )


def _series(records: Sequence[dict[str, Any]], x: str, y: str, path: Path) -> Series:
    points = [record for record in records if y in record]
    for record in points:
        value = record[y]
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise AmesError(f"{path}: {y} is {value!r} at step {record['step']}, not a number")
    values = [math.nan if record[y] is None else float(record[y]) for record in points]
    return Series(np.array([record[x] for record in points], np.float64), np.array(values, np.float64))


def _last(*several: Series) -> float:
    """The last value of the first series that has one."""
    return next((float(series.y[-1]) for series in several if len(series)), math.nan)


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Means of ``width`` neighbours with the point in their middle.

    values: [n], NaN where there is none, which no mean includes. At the beginning, where a loss falls fast,
    means narrow down to the first point; at the end, which is looked at most, they lack the later half only.
    An even ``width`` counts as one more.
    """
    means = np.full(len(values), math.nan)
    for at in range(len(values)):
        reach = min(width // 2, at)
        near = values[at - reach : at + reach + 1]
        if np.isfinite(near).any():
            means[at] = near[np.isfinite(near)].mean()
    return means


def picture(runs: Sequence[Curves], *, width: int | None = None) -> Any:
    """The matplotlib figure: loss, and validation mAP beside it if any run has one.

    width: steps of the journal in a mean (None: a fiftieth of them); means of epochs are drawn as they are.
    AmesError where matplotlib is missing.
    """
    validated = any(len(run.val_map) for run in runs)
    figure = new_figure(12 if validated else 8, 5)
    panels = figure.subplots(1, 1 + validated, squeeze=False)[0]
    handles = []
    for number, run in enumerate(runs):
        look = {"color": COLOURS[number % len(COLOURS)], "linewidth": 1.8}
        look["linestyle"] = _DASHES[number // len(COLOURS) % len(_DASHES)]
        handles.append(_draw_loss(panels[0], run, width, look))
        if validated:
            panels[1].plot(run.val_map.x, run.val_map.y, marker="o", markersize=5, **look)
    _label(panels[0], "step", "loss")
    if validated:
        _label(panels[1], "epoch", "validation mAP (%)")
    names = [plain(run.name) for run in runs]
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(runs), 3), frameon=False)
    return figure


def _draw_loss(axes: Any, run: Curves, width: int | None, look: dict[str, Any]) -> Any:
    """Draw a run's loss, faint as it is and bold as means, and returns the bold line."""
    width = len(run.loss) // 50 if width is None else width
    if run.by_epoch or width < 2:
        marker = "o" if run.by_epoch or len(run.loss) == 1 else ""  # a line of one point would not be seen
        return axes.plot(run.loss.x, run.loss.y, marker=marker, markersize=5, **look)[0]
    axes.plot(run.loss.x, run.loss.y, color=look["color"], linewidth=0.8, alpha=0.25)
    return axes.plot(run.loss.x, smooth(run.loss.y, width), **look)[0]


def _label(axes: Any, x: str, y: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    tidy(axes)


def check_format(path: Path) -> None:
    """AmesError unless the ending of a picture's name is one of ``FORMATS``."""
    if path.suffix.lower() not in FORMATS:
        raise AmesError(f"{path}: a picture's name ends in {', '.join(FORMATS)}")


def draw(runs: Sequence[Curves], path: Path | str, *, width: int | None = None) -> Path:
    """Write ``picture`` in the format of the path's ending, whole or not at all; returns the path.

    AmesError for another ending, without matplotlib, or where the file cannot be written.
    """
    path = Path(path)
    check_format(path)
    figure = picture(runs, width=width)
    with atomic_file(path) as file:
        figure.savefig(file, format=path.suffix.lower()[1:])
    return path


def _digits(value: float) -> str | None:
    return None if math.isnan(value) else f"{value:.4f}"
