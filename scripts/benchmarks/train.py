"""A training step (forward, backward, AdamW) beside the same with a twin of the released model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from benchmarks.machine import alternate, ratio

from ames.features import LocalFeatures
from ames.models.ames import AMES
from twins.released_model import ReleasedAMES


def run(
    *,
    pairs: int = 8,
    counts: tuple[int, int] = (200, 200),
    repeats: int = 5,
    device: str = "cpu",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row: the teacher's step, BCE on ``pairs`` pairs of ``counts`` descriptors (query, database)."""
    torch.manual_seed(seed)
    model = AMES().train().to(device)
    twin = ReleasedAMES(copy.deepcopy(model)).train().to(device)
    query, database = (torch.randn(pairs, n, 768, device=device) for n in counts)
    masks = [torch.zeros(pairs, n, dtype=torch.bool, device=device) for n in counts]
    labels = (torch.arange(pairs, device=device) % 2).float()
    calls = {
        "twin": _step(twin, lambda: twin(query, masks[0], database, masks[1]), labels),
        "ames": _step(
            model,
            lambda: model.pairs(
                LocalFeatures.from_descriptors(query), LocalFeatures.from_descriptors(database)
            ),
            labels,
        ),
    }
    first = {name: call() for name, call in calls.items()}
    seconds = alternate(calls, repeats, device)
    return [
        {
            "query x database": f"{counts[0]} x {counts[1]}",
            "pairs a step": pairs,
            "pairs/s": pairs / median(seconds["ames"]),
            "twin pairs/s": pairs / median(seconds["twin"]),
            "ratio": ratio(seconds, "twin", "ames"),
            "difference of the first losses": abs(first["ames"] - first["twin"]),
        }
    ]


def _step(
    model: torch.nn.Module, forward: Callable[[], torch.Tensor], labels: torch.Tensor
) -> Callable[[], float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, weight_decay=5e-4)

    def step() -> float:
        loss = F.binary_cross_entropy_with_logits(forward(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
