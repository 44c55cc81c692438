"""Training: the teacher by cross-entropy, the binary student by distillation."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ames.checkpoints import save_checkpoint
from ames.data.triplets import TripletBatch, TripletLoader
from ames.errors import AmesError
from ames.models.ames import AMES
from ames.objectives import Losses, distillation_objective, pair_objective

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained; the defaults are the paper's.

    Counts of query and database descriptors are drawn once a batch from [min_desc, max_desc), each by
    itself: one universal model for any number. ``warmup`` steps raise the learning rate from 0;
    ``clip`` bounds the gradient norm (None: not at all); ``val_freq`` epochs lie between validations,
    ``print_freq`` batches between lines of the log (0: no such lines).
    """

    epochs: int = 15
    lr: float = 2e-4
    weight_decay: float = 5e-4
    min_desc: int = 10
    max_desc: int = 400
    beta: float = 10.0
    warmup: int = 0
    clip: float | None = None
    val_freq: int = 1
    print_freq: int = 0
    autocast: bool = False  # bfloat16
    seed: int = 0


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
) -> list[dict[str, float]]:
    """Trains ``model`` in place; returns one record an epoch (loss, bce, mse, accuracy, validation).

    With ``teacher`` (frozen, full precision, same tokens) the distillation objective, else BCE alone. A
    checkpoint is written to ``out`` after each epoch. ``validate`` gets the model in evaluation mode.
    A loss that is not finite stops the training with an AmesError; the last checkpoint stays.
    """
    _check(model, recipe, out, teacher)
    device = torch.device(device)
    model.to(device)
    if teacher is not None:
        teacher.to(device).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * len(loader)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _lr_factor(step, steps, recipe.warmup)
    )
    rng = np.random.default_rng([recipe.seed, 12])
    history: list[dict[str, float]] = []
    started = time.perf_counter()
    for epoch in range(recipe.epochs):
        model.train()
        sums, seen = np.zeros(4), 0
        bar = tqdm(loader, desc=f"epoch {epoch + 1}/{recipe.epochs}", unit="batch", disable=None)
        for batch in bar:
            counts = rng.integers(recipe.min_desc, recipe.max_desc, size=2)
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.autocast):
                losses = step_losses(model, teacher, batch, counts, recipe.beta, device)
            if not torch.isfinite(losses.loss):
                raise AmesError(
                    f"the loss became {losses.loss.item()} in epoch {epoch + 1}, batch {seen + 1}; "
                    "look for descriptors that are not finite; else lower lr or set a clip"
                )
            optimizer.zero_grad(set_to_none=True)
            losses.loss.backward()
            if recipe.clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            schedule.step()
            sums += [float(x.detach()) for x in losses]
            seen += 1
            bar.set_postfix(loss=f"{sums[0] / seen:.3f}", accuracy=f"{sums[3] / seen:.3f}")
            if recipe.print_freq and seen % recipe.print_freq == 0:
                log.info(f"epoch {epoch + 1}, batch {seen}/{len(loader)}: loss {sums[0] / seen:.4g}")
        loss, bce, mse, accuracy = sums / max(seen, 1)
        record = {"epoch": epoch + 1, "loss": loss, "bce": bce, "mse": mse, "accuracy": accuracy}
        record["seconds"] = round(time.perf_counter() - started, 1)
        model.eval()
        if validate is not None and ((epoch + 1) % recipe.val_freq == 0 or epoch + 1 == recipe.epochs):
            record |= validate(model)
        history.append(record)
        log.info(" ".join(f"{k} {v:.4g}" for k, v in record.items()))
        if out is not None:
            save_checkpoint(out, model, optimizer=optimizer, epoch=epoch + 1, provenance=provenance)
    return history


def _check(model: AMES, recipe: Recipe, out: Path | str | None, teacher: AMES | None) -> None:
    """Refuses what would fail only after a while, or with a message that helps nobody."""
    if not 1 <= recipe.min_desc < recipe.max_desc:
        raise AmesError(
            f"descriptor counts are drawn from min_desc ... max_desc - 1 = {recipe.min_desc} ... "
            f"{recipe.max_desc - 1}, which is empty: lower min_desc, or extract more descriptors"
        )
    if recipe.epochs < 1 or recipe.val_freq < 1:
        raise AmesError(f"epochs {recipe.epochs} and val_freq {recipe.val_freq} must be at least 1")
    if out is not None and Path(out).suffix == ".safetensors":
        raise AmesError(f"{out}: a training checkpoint is not a safetensors file: give a name in .pt")
    if teacher is None:
        return
    if teacher.binarized:
        raise AmesError("the teacher is a binary model: give a full-precision one")
    if teacher.model_dim != model.model_dim:
        raise AmesError(f"the teacher's tokens are {teacher.model_dim}-d, the student's {model.model_dim}-d")
    if teacher.local_dim != model.local_dim:
        raise AmesError(
            f"the teacher takes {teacher.local_dim}-d descriptors, the student {model.local_dim}-d ones"
        )


def step_losses(
    model: AMES,
    teacher: AMES | None,
    batch: TripletBatch,
    counts: np.ndarray,
    beta: float,
    device: torch.device,
) -> Losses:
    """Losses of one batch at drawn (query, database) descriptor counts."""
    with torch.autocast(device.type, enabled=False):  # to bfloat16, which will not join stored float16
        query, database = (side.to(device) for side in batch.pairs())
    labels = (torch.arange(len(query.valid), device=device) < len(query.valid) // 2).float()
    if teacher is None:
        return pair_objective(model, query.trim(int(counts[0])), database.trim(int(counts[1])), labels)
    return distillation_objective(
        model,
        teacher,
        query,
        database,
        labels,
        query_count=int(counts[0]),
        database_count=int(counts[1]),
        beta=beta,
    )


def _lr_factor(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then a cosine to 0 over the remaining steps."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(steps - warmup, 1)
    # math, not numpy: the optimizer keeps the rate, and a checkpoint holds plain numbers only
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
