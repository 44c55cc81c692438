"""Show a running training: a bar, lines of the log, a journal, trackers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from ames.training.logging.journal import Journal
from ames.training.logging.trackers import Tracker

log = logging.getLogger(__name__)


class TrainingMonitor:
    """journal: takes the metrics beside the log. trackers: makes the other receivers, from the number of
    batches that were trained on before. quiet: no bar and no lines.
    """

    def __init__(
        self,
        journal: Journal | None = None,
        trackers: Callable[[int], Sequence[Tracker]] | None = None,
        *,
        quiet: bool = False,
    ) -> None:
        self.journal, self.quiet = journal, quiet
        self._make_trackers, self._trackers = trackers, list[Tracker]()
        self._bar: Any = None
        self._total = 1  # batches of an epoch
        self._unit, self._items, self._since = "items", 0, time.perf_counter()

    def begin(self, done: int, unit: str = "items") -> None:
        """Start after ``done`` batches: records of later batches are removed. unit: of the speed."""
        self._unit = unit
        if self.journal is not None:
            self.journal.begin(done)
        if self._make_trackers is not None:
            self._trackers = list(self._make_trackers(done))

    def bar(self, batches: Iterator[Any], epoch: int, start: int, epochs: int, total: int) -> Iterator[Any]:
        """The batches of an epoch from ``start`` on, with a progress bar on a terminal."""
        self._items, self._since, self._total = 0, time.perf_counter(), total
        self._bar = tqdm(
            batches,
            desc=f"epoch {epoch + 1}/{epochs}",
            total=total,
            initial=start,
            unit="batch",
            disable=True if self.quiet else None,
        )
        yield from self._bar

    def batch(self, items: int, losses: Mapping[str, float]) -> None:
        """Record a batch: number of items, mean losses of the epoch so far."""
        self._items += items
        if self._bar is not None:
            metrics = {name: f"{x:.3f}" for name, x in losses.items()}
            self._bar.set_postfix(metrics | {f"{self._unit}/s": f"{self.speed():.0f}"}, refresh=False)

    def speed(self) -> float:
        """Return the items per second of this epoch."""
        return self._items / max(time.perf_counter() - self._since, 1e-9)

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        """Record metrics after ``done`` batches."""
        metrics = {**metrics, f"{self._unit}_per_second": self.speed()}
        if not self.quiet:
            epoch, batch = divmod(done - 1, self._total)
            log.info("epoch %d, batch %d/%d: %s", epoch + 1, batch + 1, self._total, _line(metrics))
        self._note("step", done, metrics)

    def epoch(self, done: int, record: Mapping[str, float]) -> None:
        """Record an epoch that ended after ``done`` batches."""
        if not self.quiet:
            log.info(_line(record))
        self._note("epoch", done, record)

    def close(self) -> None:
        if self.journal is not None:
            self.journal.close()
        for tracker in self._trackers:
            tracker.close()

    def _note(self, kind: str, done: int, metrics: Mapping[str, float]) -> None:
        if self.journal is not None:
            self.journal.write({"kind": kind, "step": done} | dict(metrics))
        prefix = "train" if kind == "step" else "epoch"
        for tracker in self._trackers:
            tracker.log(done, {f"{prefix}/{name}": x for name, x in metrics.items()})


def _line(metrics: Mapping[str, float]) -> str:
    return " ".join(f"{name} {x:.4g}" for name, x in metrics.items())
