"""One batch: drawn descriptor counts, losses, learning rate. Nothing here depends on what came before."""

from __future__ import annotations

import math

import numpy as np
import torch

from ames.models.ames import AMES
from ames.training.data.loader import TripletBatch
from ames.training.losses import Losses, distillation_losses, pair_losses
from ames.training.recipe import Recipe


def descriptor_counts(recipe: Recipe, epoch: int, number: int, batch: TripletBatch) -> np.ndarray:
    """Descriptors of query and database images in batch ``number`` of an epoch: int [2], or int [2, P] where
    each pair of this process has its own.

    Drawn for each batch by itself, so that training may begin with any of them, and for the whole batch, of
    which a process takes its part.
    """
    rng = np.random.default_rng([recipe.seed, 12, epoch, number])
    if recipe.desc_num_sampling == "batch":
        counts = rng.integers(recipe.min_desc, recipe.max_desc, size=2)
    else:
        drawn = rng.integers(recipe.min_desc, recipe.max_desc, size=(2, total_pairs(batch)))
        counts = drawn[:, batch.positions]
    for side, fixed in enumerate((recipe.query_desc, recipe.database_desc)):
        if fixed is not None:
            counts[side] = fixed
    return counts


def total_pairs(batch: TripletBatch) -> int:
    """Pairs of the whole batch, of which this process may have a part."""
    return round(len(batch.positions) / batch.share)


def step_losses(
    model: AMES,
    teacher: AMES | None,
    batch: TripletBatch,
    counts: np.ndarray,
    beta: float,
    device: torch.device,
) -> Losses:
    """Losses of one batch at drawn (query, database) descriptor counts: int [2], the same for all pairs, or
    int [2, P], one of each for every pair (for a part of a global batch: ``counts[:, batch.positions]``).
    """
    with torch.autocast(device.type, enabled=False):  # to bfloat16, which will not join stored float16
        batch = batch.to(device)
        query, database = batch.pairs()
    of_query, of_database = counts
    if teacher is None:
        return pair_losses(model, query.keep(of_query), database.keep(of_database), batch.labels)
    return distillation_losses(
        model,
        teacher,
        query,
        database,
        batch.labels,
        query_count=of_query,
        database_count=of_database,
        beta=beta,
    )


def lr_factor(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then a cosine to 0 over the remaining steps."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(steps - warmup, 1)
    # math, not numpy: the optimizer keeps the rate, and a checkpoint holds plain numbers only
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
