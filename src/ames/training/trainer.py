"""The loop of training: batches, epochs, validation, what is kept of them."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ames.errors import AmesError
from ames.io.atomic import atomic_file
from ames.io.hashing import weights_digest
from ames.models.ames import AMES
from ames.models.checkpoints import describe_model, save_checkpoint
from ames.training.data.loader import TripletBatch, TripletLoader
from ames.training.distributed import Ranks
from ames.training.learner import Learner
from ames.training.logging.monitor import TrainingMonitor
from ames.training.recipe import Recipe, check, on
from ames.training.resuming import Checkpoints, Interruption
from ames.training.step import descriptor_counts, total_pairs

log = logging.getLogger(__name__)

LOSSES = ("loss", "bce", "mse", "accuracy")


@dataclass
class Progress:
    """Where training is: ``batch`` batches of ``epoch`` (from 0) are done, of which ``skipped`` were left
    out; sums of the losses over the others, in the epoch and since the last line of the log; records of
    the finished epochs; the best validation mAP; seconds so far.
    """

    epoch: int = 0
    batch: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * len(LOSSES))
    skipped: int = 0
    recent: list[float] = field(default_factory=lambda: [0.0] * (1 + len(LOSSES)))
    history: list[dict[str, float]] = field(default_factory=list)
    best: float | None = None
    seconds: float = 0.0

    def add(self, losses: list[float]) -> None:
        self.sums = [a + b for a, b in zip(self.sums, losses, strict=True)]
        self.recent = [a + b for a, b in zip(self.recent, [1.0, *losses], strict=True)]

    def since_last_line(self) -> dict[str, float]:
        """Means of the losses since this was last called; empty where every batch was left out."""
        count, *sums = self.recent
        self.recent = [0.0] * len(self.recent)
        return {name: x / count for name, x in zip(LOSSES, sums, strict=True)} if count else {}

    def end_epoch(self, record: dict[str, float]) -> None:
        self.history.append(record)
        self.epoch, self.batch, self.skipped = self.epoch + 1, 0, 0
        self.sums = [0.0] * len(LOSSES)


def fit(
    model: AMES,
    loader: TripletLoader,
    recipe: Recipe,
    *,
    out: Path | str | None = None,
    teacher: AMES | None = None,
    ranks: Ranks | None = None,
    validate: Callable[[AMES], dict[str, float]] | None = None,
    provenance: dict[str, object] | None = None,
    checkpoints: Checkpoints | None = None,
    watch: TrainingMonitor | None = None,
) -> list[dict[str, float]]:
    """Trains ``model`` in place; returns one record an epoch (loss, bce, mse, accuracy, validation).

    With ``teacher`` (frozen, full precision, same tokens) the distillation objective, else BCE alone.
    out: where a checkpoint is written after each epoch, and beside it ``<stem>-best.pt`` whenever
        ``validate`` finds a higher ``val_map``; both carry the lambda and gamma that it returned.
    ranks: the processes that train together, this one alone if None. A batch is divided among them; losses
        and weights are those of one process, up to the order of sums. Only the first validates and writes.
    validate: gets the model in evaluation mode, returns metrics.
    checkpoints: where the whole state is kept, and from where training goes on if there is one, with the
        batches that were to come; on a CPU the weights then equal those of a training that was never
        interrupted, bit for bit. SIGTERM writes the state and ends the process (status 143), Ctrl-C writes
        it and raises KeyboardInterrupt.
    """
    check(recipe, model, teacher, out)
    ranks, provenance = ranks or Ranks(), provenance or {}
    if recipe.autocast is not None:  # decided once: processes that differ would not train one model
        recipe = ranks.broadcast_from_main(lambda: on(ranks.device, recipe))
        provenance = provenance | {"autocast": recipe.autocast}
    learner, path = Learner(model, teacher, recipe, ranks), None if out is None else Path(out)
    training = _Training(learner, loader, recipe, path, provenance, checkpoints, watch or TrainingMonitor())
    history = training.run(validate)
    if training.learner.result is not model:
        model.load_state_dict(training.learner.result.state_dict())
    model.eval()
    return history


@dataclass
class _Training:
    """One call of ``fit``."""

    learner: Learner
    loader: TripletLoader
    recipe: Recipe
    out: Path | None
    provenance: dict[str, object]
    checkpoints: Checkpoints | None
    watch: TrainingMonitor
    progress: Progress = field(default_factory=Progress)
    _started: float = field(default_factory=time.perf_counter)

    @property
    def done(self) -> int:
        """Batches so far."""
        return self.progress.epoch * len(self.loader) + self.progress.batch

    def run(self, validate: Callable[[AMES], dict[str, float]] | None) -> list[dict[str, float]]:
        """Train to the end, with the monitor closed afterwards in any case."""
        with closing(self.watch):
            self._run(validate)
        return self.progress.history

    def _run(self, validate: Callable[[AMES], dict[str, float]] | None) -> None:
        ranks = self.learner.ranks
        self.resume()
        progress = self.progress
        self._started = time.perf_counter() - progress.seconds
        self.watch.begin(self.done)
        with Interruption(kept=self.checkpoints is not None) as interruption:
            while progress.epoch < self.recipe.epochs:
                self.learner.model.train()
                for _ in self.batches():
                    asked = bool(ranks.all_reduce_max(int(interruption.asked)))
                    due = self.checkpoints is not None and self.checkpoints.due(
                        progress.batch, self.recipe.accumulate
                    )
                    if asked or due:
                        self.keep()
                    if asked:
                        interruption.leave()
                self.end_epoch(validate)
                if ranks.all_reduce_max(int(interruption.asked)):
                    interruption.leave()

    def batches(self) -> Iterator[None]:
        """Trains on what is left of an epoch; yields wherever a step of the optimizer is complete."""
        progress, recipe, loader = self.progress, self.recipe, self.loader
        self.learner.zero_grad()
        rest = loader.epoch(progress.epoch, progress.batch)
        for batch in self.watch.bar(rest, progress.epoch, progress.batch, recipe.epochs, len(loader)):
            batch = batch.trimmed(self.learner.ranks.all_reduce_max(batch.longest))
            counts = descriptor_counts(recipe, progress.epoch, progress.batch, batch)
            losses = self.learner.accumulate(batch, counts)
            done = self.done
            progress.batch += 1
            full = progress.batch % recipe.accumulate == 0 or progress.batch == len(loader)
            if math.isfinite(losses[0]) and (not full or self.learner.gradients_are_finite()):
                progress.add(losses)
            elif recipe.non_finite == "stop":
                raise self.stopped(losses[0], batch, counts)
            else:
                self.learner.zero_grad()  # with it goes what was accumulated before
                progress.skipped += 1
            if full:
                self.learner.step(done, recipe.epochs * len(loader))
            self.watch.batch(total_pairs(batch), *self.running())
            if recipe.print_freq and progress.batch % recipe.print_freq == 0:
                line = progress.since_last_line()
                self.watch.step(self.done, line | {"lr": self.learner.lr})
            if full:
                yield

    def running(self) -> tuple[float, float]:
        """Mean loss and accuracy of the epoch so far."""
        seen = max(self.progress.batch - self.progress.skipped, 1)
        return self.progress.sums[0] / seen, self.progress.sums[-1] / seen

    def end_epoch(self, validate: Callable[[AMES], dict[str, float]] | None) -> None:
        progress, learner = self.progress, self.learner
        record = self.record()
        last = progress.epoch + 1 == self.recipe.epochs
        if validate is not None and ((progress.epoch + 1) % self.recipe.val_freq == 0 or last):
            self.keep()  # a validation may take longer than a scheduler waits
            model = learner.result.eval()
            found = learner.ranks.broadcast_from_main(lambda: validate(model))
            record |= {name: float(x) for name, x in found.items()}  # numpy's numbers are none of JSON's
        progress.end_epoch(record)
        self.watch.epoch(self.done, record)
        reached = record.get("val_map")
        best = reached is not None and reached > (-math.inf if progress.best is None else progress.best)
        if best:
            progress.best = reached
        learner.ranks.broadcast_from_main(lambda: self.save(best=best))
        self.keep()

    def record(self) -> dict[str, float]:
        """The losses of an epoch. AmesError where every batch was left out."""
        progress, count = self.progress, len(self.loader) - self.progress.skipped
        if not count:
            raise AmesError(f"epoch {progress.epoch + 1}: no batch had a finite loss and gradient; lower lr")
        means = [x / count for x in progress.sums]
        record = {"epoch": progress.epoch + 1} | dict(zip(LOSSES, means, strict=True))
        record["seconds"] = round(time.perf_counter() - self._started, 1)
        return record | ({"skipped": progress.skipped} if progress.skipped else {})

    # ---- what is kept ---------------------------------------------------------------------------

    def save(self, *, best: bool) -> None:
        """The model with its latest blend, and the best one beside it."""
        if self.out is None:
            return
        validated = [record for record in self.progress.history if "lamb" in record]
        blend = {key: validated[-1][key] for key in ("lamb", "temp")} if validated else None
        about = self.provenance | ({} if blend is None else {"blend": blend})
        kept = self.out.with_name(f"{self.out.stem}-best.pt")
        for path in [self.out, kept] if best else [self.out]:
            save_checkpoint(
                path,
                self.learner.result,
                optimizer=self.learner.optimizer,
                epoch=self.progress.epoch,
                provenance=about,
            )
        if self.progress.best is None:  # whichever is there is of an earlier training, as ``out`` was
            kept.unlink(missing_ok=True)

    @cached_property
    def settings(self) -> dict[str, object]:
        """What must be the same for a training to go on; the number of processes need not."""
        teacher = self.learner.teacher
        return {
            "recipe": asdict(self.recipe),
            "loader": self.loader.settings(),
            "teacher": None if teacher is None else weights_digest(teacher),
            **describe_model(self.learner.model),
        }

    def keep(self) -> None:
        """Writes the state, if states are kept."""
        if self.checkpoints is None:
            return
        self.progress.seconds = time.perf_counter() - self._started
        finished = self.progress.epoch == self.recipe.epochs
        state = self.learner.state() | {"progress": json.dumps(asdict(self.progress)), "finished": finished}
        kept = self.checkpoints
        self.learner.ranks.broadcast_from_main(lambda: kept.save(state, self.settings, self.done))

    def resume(self) -> None:
        """Takes the newest state over, if there is one to go on from. Of a training that is finished the
        model is written if its file has gone.
        """
        if self.checkpoints is None:
            return
        kept = self.checkpoints
        found = self.learner.ranks.broadcast_from_main(lambda: kept.latest(self.settings))
        if found is None:
            return
        self.learner.restore(found)
        self.progress = Progress(**json.loads(found["progress"]))
        if self.progress.epoch < self.recipe.epochs:
            log.info("resumes in epoch %d after batch %d", self.progress.epoch + 1, self.progress.batch)
            return
        log.info("is finished already: nothing is left to train")
        if self.out is not None:
            out = self.out
            self.learner.ranks.broadcast_from_main(lambda: None if out.exists() else self.save(best=False))

    def stopped(self, loss: float, batch: TripletBatch, counts: np.ndarray) -> AmesError:
        """The error for a batch that would spoil the weights; its images are written beside ``out``."""
        what = "its gradient" if math.isfinite(loss) else "the loss"
        value = math.inf if math.isfinite(loss) else loss
        images = self.learner.ranks.all_gather(batch.images)
        progress, where = self.progress, ""
        if self.out is not None:
            path = self.out.with_name(f"{self.out.stem}-bad-batch.json")
            about = {"epoch": progress.epoch + 1, "batch": progress.batch, "descriptors": counts.tolist()}
            anchors, positives, *negatives = images.tolist()
            about |= {"anchors": anchors, "positives": positives, "negatives": negatives}
            if self.learner.ranks.is_main:
                with atomic_file(path) as file:
                    file.write(json.dumps(about).encode())
            where = f" its images are in {path};"
        return AmesError(
            f"{what} became {value} in epoch {progress.epoch + 1}, batch {progress.batch};{where} look for "
            "descriptors that are not finite; else lower lr, set a clip, or skip such batches "
            "(non_finite=skip)"
        )
