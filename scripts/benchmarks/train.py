"""A training step (forward, backward, AdamW) beside the same with a twin of the released model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from benchmarks.machine import alternate, busy_core, ratio

from ames.features import LocalFeatures
from ames.models.ames import AMES
from ames.training.data.loader import TripletBatch, TripletLoader
from ames.training.distributed import Ranks
from ames.training.learner import Learner
from ames.training.tasks.pairwise import CountedBatch, PairwiseRecipe, PairwiseTask
from twins.released_model import ReleasedAMES


def run(
    *,
    pairs: Sequence[int] = (8, 32),
    counts: tuple[int, int] = (200, 200),
    repeats: int = 5,
    device: str = "cpu",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row per number of pairs in a batch: the teacher's step, BCE on pairs of ``counts`` descriptors
    (query, database). On a CPU also beside a foreign process that keeps one core busy.
    """
    return [_row(number, counts, repeats, device, seed) for number in pairs]


def _row(pairs: int, counts: tuple[int, int], repeats: int, device: str, seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    model = AMES().train()
    twin = ReleasedAMES(copy.deepcopy(model)).train().to(device)
    batch = _batch(pairs // 2, counts)
    calls = {"twin": _twin_step(twin, batch, device), "ames": _step(model, batch, device)}
    first = {name: call() for name, call in calls.items()}
    seconds, beside = alternate(calls, repeats, device), None
    if device == "cpu":
        with busy_core():
            beside = alternate(calls, repeats, device)
    return {
        "query x database": f"{counts[0]} x {counts[1]}",
        "pairs a step": pairs,
        "pairs/s": pairs / median(seconds["ames"]),
        "twin pairs/s": pairs / median(seconds["twin"]),
        "ratio": ratio(seconds, "twin", "ames"),
        "busy pairs/s": beside and pairs / median(beside["ames"]),
        "of idle": beside and median(seconds["ames"]) / median(beside["ames"]),
        "busy ratio": beside and ratio(beside, "twin", "ames"),
        "difference of the first losses": abs(first["ames"] - first["twin"]),
    }


def _batch(triplets: int, counts: tuple[int, int]) -> CountedBatch:
    """Random descriptors: each triplet has a matching and a not matching pair."""
    n, m = counts
    anchor, positive, negatives = (
        LocalFeatures.from_descriptors(torch.randn(triplets, max(n, m), 768)) for _ in range(3)
    )
    images = np.zeros((3, triplets), int)
    return CountedBatch(TripletBatch(images, anchor, positive, negatives), np.array(counts))


def _step(model: AMES, batch: CountedBatch, device: str) -> Callable[[], float]:
    """A step as the trainer takes it."""
    task = PairwiseTask(model, cast(TripletLoader, None), PairwiseRecipe())  # which is not read here
    task.start(Ranks(torch.device(device)))
    learner = Learner(task)

    def step() -> float:
        means, _ = learner.accumulate(batch)
        assert learner.gradients_are_finite()
        learner.step(0, 1)
        return means["loss"]

    return step


def _twin_step(twin: ReleasedAMES, batch: CountedBatch, device: str) -> Callable[[], float]:
    optimizer = torch.optim.AdamW(twin.parameters(), lr=2e-4, weight_decay=5e-4)

    def step() -> float:
        here = batch.triplets.to(device)
        query, database = (x.keep(int(n)) for x, n in zip(here.pairs(), batch.counts, strict=True))
        logits = twin(query.descriptors, ~query.valid, database.descriptors, ~database.valid)
        loss = F.binary_cross_entropy_with_logits(logits, here.labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
