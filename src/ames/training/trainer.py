"""The loop of training, for every task: batches, epochs, validation, and what is saved."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ames.errors import AmesError
from ames.io.atomic import atomic_file
from ames.training.distributed import Ranks
from ames.training.learner import Learner
from ames.training.logging.monitor import TrainingMonitor
from ames.training.recipe import on
from ames.training.resuming import Checkpoints, Interruption
from ames.training.task import Task, Validation

log = logging.getLogger(__name__)


@dataclass
class Means:
    """Means of the losses of several batches."""

    count: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, losses: dict[str, float]) -> None:
        self.count += 1
        self.sums = {name: self.sums.get(name, 0.0) + x for name, x in losses.items()}

    def means(self) -> dict[str, float]:
        """By name; empty without a batch."""
        return {name: x / self.count for name, x in self.sums.items()}


@dataclass
class Progress:
    """Where training is: ``batch`` batches of ``epoch`` (from 0) are done, of which ``skipped`` were skipped;
    losses of the others, in the epoch and since the last line of the log; records of the finished epochs; the
    best score and what the latest validation says of the model; seconds so far.
    """

    epoch: int = 0
    batch: int = 0
    skipped: int = 0
    losses: Means = field(default_factory=Means)
    recent: Means = field(default_factory=Means)
    history: list[dict[str, float]] = field(default_factory=list)
    best: float | None = None
    about: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def from_json(cls, text: str) -> Progress:
        values = json.loads(text)
        return cls(**values | {key: Means(**values[key]) for key in ("losses", "recent")})

    def end_epoch(self, record: dict[str, float]) -> None:
        self.history.append(record)
        self.epoch, self.batch, self.skipped, self.losses = self.epoch + 1, 0, 0, Means()


class Trainer:
    """Trains the model of ``task`` in place, by the task's recipe.

    out: the model's file (``.pt``), written after each epoch; the model with the highest score in validation
        is beside it, ``<stem>-best.pt``. provenance: what the files say of the model.
    ranks: the processes that train together, this one alone if None. Each reads its part of a batch; losses
        and weights are those of one process, up to the order of sums. The first alone validates and writes.
    checkpoints: where the whole state is kept, and from where training resumes with the next batch. On a CPU
        the weights then equal those of an uninterrupted training, bit for bit. SIGTERM writes the state and
        ends the process (status 143), Ctrl-C writes it and raises KeyboardInterrupt.
    monitor: the progress bar, the log and the journal.
    lanes: threads that share the parts of a batch on a CPU (``ames.lanes``); None: one per usable core. The
        weights do not depend on it.
    """

    def __init__(
        self,
        task: Task[Any, Any],
        *,
        out: Path | str | None = None,
        ranks: Ranks | None = None,
        provenance: dict[str, Any] | None = None,
        checkpoints: Checkpoints | None = None,
        monitor: TrainingMonitor | None = None,
        lanes: int | None = None,
    ) -> None:
        # Other files are named after it without its ending: those of lr0.1 and lr0.2 would be the same.
        if out is not None and Path(out).suffix not in (".pt", ".pth"):
            raise AmesError(f"{out}: a training checkpoint is a .pt file: give a name in .pt")
        self.task, self.ranks, self.out = task, ranks or Ranks(), None if out is None else Path(out)
        self.provenance, self.checkpoints = dict(provenance or {}), checkpoints
        self.monitor = monitor or TrainingMonitor()
        if task.recipe.autocast is not None:  # decided once: processes that differ would not train one model
            task.recipe = self.ranks.broadcast_from_main(lambda: on(self.ranks.device, task.recipe))
            self.provenance["autocast"] = task.recipe.autocast
        self.recipe = task.recipe
        task.start(self.ranks)
        self.learner = Learner(task, lanes)
        self.progress = Progress()
        self._started = time.perf_counter()

    @property
    def _done(self) -> int:
        """Batches so far."""
        return self.progress.epoch * len(self.task) + self.progress.batch

    def fit(self) -> list[dict[str, float]]:
        """Train to the end; returns one record per epoch: losses, seconds, metrics of a validation."""
        with closing(self.monitor):
            self._fit()
        model = self.task.model
        if self.learner.result is not model:
            model.load_state_dict(self.learner.result.state_dict())
        model.eval()
        return self.progress.history

    def _fit(self) -> None:
        self._resume()
        progress, ranks = self.progress, self.ranks
        self._started = time.perf_counter() - progress.seconds
        self.monitor.begin(self._done, self.task.unit)
        with Interruption(kept=self.checkpoints is not None) as interruption:
            while progress.epoch < self.recipe.epochs:
                self.learner.model.train()
                for _ in self._steps():
                    asked = bool(ranks.all_reduce_max(int(interruption.asked)))
                    every = self.checkpoints
                    if asked or (every is not None and every.due(progress.batch, self.recipe.accumulate)):
                        self._keep()
                    if asked:
                        interruption.leave()
                self._end_epoch()
                if ranks.all_reduce_max(int(interruption.asked)):
                    interruption.leave()

    def _steps(self) -> Iterator[None]:
        """Train on what is left of an epoch; yield after each step of the optimizer."""
        progress, recipe, task, learner = self.progress, self.recipe, self.task, self.learner
        learner.zero_grad()
        batches = task.epoch(progress.epoch, progress.batch)
        for batch in self.monitor.bar(batches, progress.epoch, progress.batch, recipe.epochs, len(task)):
            done = self._done
            progress.batch += 1
            full = progress.batch % recipe.accumulate == 0 or progress.batch == len(task)
            problem = self.ranks.first(task.problem(batch))
            items = 0
            if problem is None:
                losses, items = learner.accumulate(batch)
                sound = math.isfinite(losses["loss"]) and (not full or learner.gradients_are_finite())
                problem = None if sound else self._not_finite(losses["loss"], batch)
            if problem is None:
                progress.losses.add(losses)
                progress.recent.add(losses)
            elif recipe.non_finite == "stop":
                raise AmesError(problem)
            else:
                learner.zero_grad()  # with it goes what was accumulated before
                progress.skipped += 1
            if full:
                learner.step(done, recipe.epochs * len(task))
            self.monitor.batch(items, progress.losses.means())
            if recipe.print_freq and progress.batch % recipe.print_freq == 0:
                self.monitor.step(self._done, progress.recent.means() | {"lr": learner.lr})
                progress.recent = Means()
            if full:
                yield

    def _end_epoch(self) -> None:
        progress, record, best = self.progress, self._record(), False
        number = progress.epoch + 1
        due = number % self.recipe.val_freq == 0 or number == self.recipe.epochs
        validate = self.task.validate if due else None
        if validate is not None or number == 1:
            # A validation may take longer than a scheduler waits, and no model is without a state beside it.
            self._keep()
        if validate is not None:
            model = self.learner.result.eval()
            best = self._take(self.ranks.broadcast_from_main(lambda: validate(model)), record)
        progress.end_epoch(record)
        self.monitor.epoch(self._done, record)
        self.ranks.broadcast_from_main(lambda: self._save(best=best))
        self._keep()

    def _record(self) -> dict[str, float]:
        """The losses of an epoch. AmesError where every batch was skipped."""
        progress = self.progress
        if not progress.losses.count:
            raise AmesError(f"epoch {progress.epoch + 1}: no batch had a finite loss and gradient; lower lr")
        record = {"epoch": progress.epoch + 1} | progress.losses.means()
        record["seconds"] = round(time.perf_counter() - self._started, 1)
        record |= self.task.epoch_metrics()
        return record | ({"skipped": progress.skipped} if progress.skipped else {})

    def _take(self, found: Validation, record: dict[str, float]) -> bool:
        """Add metrics to the record of the epoch; return whether the model is the best so far."""
        progress = self.progress
        record |= {name: float(x) for name, x in found.metrics.items()}  # numpy's numbers are none of JSON's
        progress.about = dict(found.about or {})
        if found.score is None or not found.score > (-math.inf if progress.best is None else progress.best):
            return False
        progress.best = float(found.score)
        return True

    # ---- what is kept ---------------------------------------------------------------------------

    def _save(self, *, best: bool) -> None:
        """Write the model, and beside it the best."""
        if self.out is None:
            return
        kept, about = self.out.with_name(f"{self.out.stem}-best.pt"), self.provenance | self.progress.about
        for path in [self.out, kept] if best else [self.out]:
            self.task.save(path, self.learner.result, self.learner.optimizer, self.progress.epoch, about)
        if self.progress.best is None:  # whichever exists is of an earlier training, as ``out`` was
            kept.unlink(missing_ok=True)

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """What must be equal for a training to be resumed; the number of processes need not."""
        own = {"task": type(self.task).__name__, "recipe": asdict(self.recipe)}
        return own | self.task.identity()

    def _keep(self) -> None:
        """Write the state, if states are kept."""
        if self.checkpoints is None:
            return
        self.progress.seconds = time.perf_counter() - self._started
        finished = self.progress.epoch == self.recipe.epochs
        state = self.learner.state() | {"progress": json.dumps(asdict(self.progress)), "finished": finished}
        kept = self.checkpoints
        self.ranks.broadcast_from_main(lambda: kept.save(state, self._identity, self._done))

    def _resume(self) -> None:
        """Restore the newest state, if there is one to resume from. Of a training that is finished the model
        is written if its file is missing.
        """
        if self.checkpoints is None:
            return
        kept = self.checkpoints
        found = self.ranks.broadcast_from_main(lambda: kept.latest(self._identity))
        if found is None:
            return
        self.learner.restore(found)
        self.progress = Progress.from_json(found["progress"])
        if self.progress.epoch < self.recipe.epochs:
            log.info("resumes in epoch %d after batch %d", self.progress.epoch + 1, self.progress.batch)
            return
        log.info("is finished already: nothing is left to train")
        if self.out is not None:
            out = self.out
            self.ranks.broadcast_from_main(lambda: None if out.exists() else self._save(best=False))

    def _not_finite(self, loss: float, batch: Any) -> str:
        """What is wrong with a batch that would spoil the weights; its report is written beside ``out``."""
        finite, progress = math.isfinite(loss), self.progress
        text = f"{'its gradient' if finite else 'the loss'} became {math.inf if finite else loss} in epoch "
        text += f"{progress.epoch + 1}, batch {progress.batch}"
        report = self.task.report(batch) if self.recipe.non_finite == "stop" and self.out else None
        if report is None or self.out is None:
            return f"{text}: lower lr, or set a clip, or skip such batches (non_finite=skip)"
        path = self.out.with_name(f"{self.out.stem}-bad-batch.json")
        if self.ranks.is_main:
            with atomic_file(path) as file:
                file.write(
                    json.dumps({"epoch": progress.epoch + 1, "batch": progress.batch} | report).encode()
                )
        return (
            f"{text}; its images are in {path}; look for descriptors that are not finite; else lower lr, "
            "set a clip, or skip such batches (non_finite=skip)"
        )
