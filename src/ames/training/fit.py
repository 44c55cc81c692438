"""Training: the teacher by cross-entropy, the binary student by distillation."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ames.checkpoints import save_checkpoint
from ames.data.atomic import atomic_file
from ames.data.triplets import TripletBatch, TripletLoader
from ames.errors import AmesError
from ames.models.ames import AMES
from ames.objectives import Losses
from ames.training.recipe import Recipe, check
from ames.training.resuming import Checkpoints, Interruption
from ames.training.steps import descriptor_counts, lr_factor, step_losses

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """Where training is: ``batch`` batches of ``epoch`` (from 0) are done, of which ``skipped`` were left
    out; sums over the others, records of the finished epochs, seconds so far.
    """

    epoch: int = 0
    batch: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    skipped: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


def fit(
    model: AMES,
    loader: TripletLoader,
    recipe: Recipe,
    *,
    out: Path | str | None = None,
    teacher: AMES | None = None,
    device: str | torch.device = "cpu",
    validate: Callable[[AMES], dict[str, float]] | None = None,
    provenance: dict[str, object] | None = None,
    checkpoints: Checkpoints | None = None,
) -> list[dict[str, float]]:
    """Trains ``model`` in place; returns one record an epoch (loss, bce, mse, accuracy, validation).

    With ``teacher`` (frozen, full precision, same tokens) the distillation objective, else BCE alone. A
    checkpoint is written to ``out`` after each epoch. ``validate`` gets the model in evaluation mode.
    ``checkpoints``: where the whole state is kept, and from where training goes on if there is one, with the
    batches that were to come; on a CPU the weights then equal those of a training that was never
    interrupted, bit for bit. SIGTERM writes the state and ends the process (status 143).
    """
    check(recipe, model, teacher, out)
    device = torch.device(device)
    model.to(device)
    if teacher is not None:
        teacher.to(device).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    progress = Progress()
    settings = {"recipe": asdict(recipe), "loader": loader.settings(), "distilled": teacher is not None}
    if checkpoints is not None and (found := checkpoints.latest(settings)) is not None:
        model.load_state_dict(found["model"])
        optimizer.load_state_dict(found["optimizer"])
        progress = Progress(**json.loads(found["progress"]))
        log.info("goes on in epoch %d behind batch %d", progress.epoch + 1, progress.batch)

    def keep() -> None:
        progress.seconds = passed()
        if checkpoints is not None:
            state: dict[str, Any] = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            done = progress.epoch * len(loader) + progress.batch
            state |= {"progress": json.dumps(asdict(progress)), "finished": progress.epoch == recipe.epochs}
            checkpoints.save(state, settings, done)

    started = time.perf_counter() - progress.seconds

    def passed() -> float:
        return time.perf_counter() - started

    with Interruption() as interruption:
        while progress.epoch < recipe.epochs:
            model.train()
            for _ in _batches(model, teacher, loader, recipe, optimizer, progress, device, out):
                due = checkpoints is not None and checkpoints.due(progress.batch)
                if interruption.asked or due:
                    keep()
                interruption.leave_if_asked()
            record = _record(progress, len(loader), passed())
            model.eval()
            last = progress.epoch + 1 == recipe.epochs
            if validate is not None and ((progress.epoch + 1) % recipe.val_freq == 0 or last):
                record |= validate(model)
            progress.history.append(record)
            log.info(" ".join(f"{k} {v:.4g}" for k, v in record.items()))
            progress.epoch, progress.batch, progress.skipped = progress.epoch + 1, 0, 0
            progress.sums = [0.0] * 4
            if out is not None:
                save_checkpoint(out, model, optimizer=optimizer, epoch=progress.epoch, provenance=provenance)
            keep()
            interruption.leave_if_asked()
    model.eval()
    return progress.history


def _batches(
    model: AMES,
    teacher: AMES | None,
    loader: TripletLoader,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    device: torch.device,
    out: Path | str | None,
) -> Iterator[None]:
    """Trains on what is left of an epoch; yields wherever a step of the optimizer is complete."""
    total = recipe.epochs * len(loader)
    bar = tqdm(
        loader.epoch(progress.epoch, progress.batch),
        desc=f"epoch {progress.epoch + 1}/{recipe.epochs}",
        total=len(loader),
        initial=progress.batch,
        unit="batch",
        disable=None,
    )
    optimizer.zero_grad(set_to_none=True)
    for batch in bar:
        counts = descriptor_counts(recipe, progress.epoch, progress.batch)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.autocast):
            losses = step_losses(model, teacher, batch, counts, recipe.beta, device)
        if bool(torch.isfinite(losses.loss)):
            (losses.loss / recipe.accumulate).backward()
        done = progress.epoch * len(loader) + progress.batch
        progress.batch += 1
        full = progress.batch % recipe.accumulate == 0 or progress.batch == len(loader)
        if _sound(model, losses, recipe, complete=full):
            progress.sums = [a + float(x.detach()) for a, x in zip(progress.sums, losses, strict=True)]
        elif recipe.non_finite == "stop":
            raise _stopped(losses, batch, counts, progress, out)
        else:
            optimizer.zero_grad(set_to_none=True)  # with it goes what was accumulated before
            progress.skipped += 1
        if full:
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * lr_factor(done, total, recipe.warmup)
            if any(x.grad is not None for x in model.parameters()):
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        seen = max(progress.batch - progress.skipped, 1)
        loss, *_, accuracy = (x / seen for x in progress.sums)
        bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.3f}")
        if recipe.print_freq and progress.batch % recipe.print_freq == 0:
            log.info(f"epoch {progress.epoch + 1}, batch {progress.batch}/{len(loader)}: loss {loss:.4g}")
        if full:
            yield


def _sound(model: AMES, losses: Losses, recipe: Recipe, *, complete: bool) -> bool:
    """Whether loss and, where a step is complete, gradient are finite; clips the gradient then."""
    if not bool(torch.isfinite(losses.loss)):
        return False
    if not complete:
        return True
    bound = math.inf if recipe.clip is None else recipe.clip
    return bool(torch.isfinite(torch.nn.utils.clip_grad_norm_(model.parameters(), bound)))


def _stopped(
    losses: Losses, batch: TripletBatch, counts: np.ndarray, progress: Progress, out: Path | str | None
) -> AmesError:
    """The error for a batch that would spoil the weights; its images are written beside ``out``."""
    value = losses.loss.item()
    what = "its gradient" if math.isfinite(value) else "the loss"
    value = math.inf if math.isfinite(value) else value
    where = ""
    if out is not None:
        path = Path(out).with_name(f"{Path(out).stem}-bad-batch.json")
        anchors, positives, negatives = batch.images.tolist()
        about = {"epoch": progress.epoch + 1, "batch": progress.batch, "descriptors": counts.tolist()}
        rows = {"anchors": anchors, "positives": positives, "negatives": negatives}
        with atomic_file(path) as file:
            file.write(json.dumps(about | rows).encode())
        where = f" its images are in {path};"
    return AmesError(
        f"{what} became {value} in epoch {progress.epoch + 1}, batch {progress.batch};{where} look for "
        "descriptors that are not finite; else lower lr, set a clip, or skip such batches (non_finite=skip)"
    )


def _record(progress: Progress, batches: int, seconds: float) -> dict[str, float]:
    """The figures of an epoch. AmesError where every batch was left out."""
    if progress.skipped == batches:
        raise AmesError(f"epoch {progress.epoch + 1}: no batch had a finite loss and gradient; lower lr")
    names = ("loss", "bce", "mse", "accuracy")
    means = [x / (batches - progress.skipped) for x in progress.sums]
    record = {"epoch": progress.epoch + 1} | dict(zip(names, means, strict=True))
    record["seconds"] = round(seconds, 1)
    return record | ({"skipped": progress.skipped} if progress.skipped else {})
