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


def lr_factor(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then a cosine to 0 over the remaining steps."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(steps - warmup, 1)
    # math, not numpy: the optimizer keeps the rate, and a checkpoint holds plain numbers only
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
