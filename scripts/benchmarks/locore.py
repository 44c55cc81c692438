"""Seconds of one list by LOCORE beside a dense twin, with the same weights and inputs."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from benchmarks.machine import alternate, peak_memory, ratio

from ames.features import LocalFeatures
from ames.models.locore import Locore
from ames.reranking.list_scorer import ListScorer
from ames.reranking.scorer import ComputeConfig
from twins.released_locore import ReleasedLocore


def run(
    *, candidates: int = 100, repeats: int = 1, device: str = "cpu", seed: int = 0, **size: int
) -> list[dict[str, Any]]:
    """One row: a list of ``candidates`` images of 48 descriptors and a global one, in fp32.

    size: arguments of the model, the published base without. Use few repeats: a list takes seconds.
    """
    arguments = (candidates, device, seed, size)
    calls = {"twin": twin_call(*arguments), "library": scorer_call(*arguments)}
    difference = float((calls["library"]() - calls["twin"]()).abs().max())
    seconds = alternate(calls, repeats, device, warm=False)
    own, twin = (
        None if device != "cpu" else peak_memory(call, *arguments) for call in (scorer_call, twin_call)
    )
    return [
        {
            "candidates": candidates,
            "seconds": median(seconds["library"]),
            "twin seconds": median(seconds["twin"]),
            "ratio": ratio(seconds, "twin", "library"),
            "max difference": difference,
            "peak MB": own and own / 1e6,
            "twin peak MB": twin and twin / 1e6,
        }
    ]


def inputs(candidates: int, seed: int, size: dict[str, int]) -> tuple[Locore, LocalFeatures, LocalFeatures]:
    """A model with random weights, a query [1, 48, 768] and a list [1, candidates, 48, 768]."""
    torch.manual_seed(seed)
    model = Locore(**size).eval()  # type: ignore[arg-type]

    def images(*leading: int) -> LocalFeatures:
        count, width, vector = model.local_count, model.local_dim or 0, model.global_dim or 0
        return LocalFeatures.from_descriptors(
            torch.randn(*leading, count, width),
            scale=torch.randint(0, model.scales, (*leading, count)),
            vector=torch.randn(*leading, vector),
        )

    return model, images(1), images(1, candidates)


def twin_call(candidates: int, device: str, seed: int, size: dict[str, int]) -> Callable[[], torch.Tensor]:
    model, query, many = inputs(candidates, seed, size)
    twin = ReleasedLocore(model).eval().to(device)
    sides = model.to(device).tokens(query.to(device)), model.expand(model.compress(many.to(device)))

    @torch.no_grad()
    def call() -> torch.Tensor:
        logits: torch.Tensor = twin(*sides)
        return logits[:, :, -2, 1].cpu()

    return call


def scorer_call(candidates: int, device: str, seed: int, size: dict[str, int]) -> Callable[[], torch.Tensor]:
    model, query, many = inputs(candidates, seed, size)
    scorer = ListScorer(model, ComputeConfig(devices=(device,)))
    return lambda: torch.from_numpy(scorer.score(query, many))
