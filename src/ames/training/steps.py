"""One batch: drawn descriptor counts, losses, learning rate. Nothing here depends on what came before."""

from __future__ import annotations

import math

import numpy as np
import torch

from ames.data.triplets import TripletBatch
from ames.models.ames import AMES
from ames.objectives import Losses, distillation_objective, pair_objective
from ames.training.recipe import Recipe


def descriptor_counts(recipe: Recipe, epoch: int, batch: int) -> np.ndarray:
    """int [2]: descriptors of query and database images, drawn for each batch by itself, so that training
    may begin with any of them, unless the recipe fixes them.
    """
    rng = np.random.default_rng([recipe.seed, 12, epoch, batch])
    drawn = rng.integers(recipe.min_desc, recipe.max_desc, size=2)
    fixed = (recipe.query_desc, recipe.database_desc)
    return np.array([n if count is None else count for n, count in zip(drawn, fixed, strict=True)])


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
        return pair_objective(model, query.keep(of_query), database.keep(of_database), batch.labels)
    return distillation_objective(
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
