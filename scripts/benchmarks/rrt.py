"""Pairs per second of RRT's scorer beside a twin of the released landmark matcher, with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from benchmarks.machine import alternate, peak_memory, ratio

from ames.features import LocalFeatures
from ames.models.rrt import RRT
from ames.reranking.scorer import ComputeConfig, PairScorer
from twins.released_rrt import ReleasedRRT

SIZES = ((500, 500),)


def run(
    *,
    sizes: Sequence[tuple[int, int]] | None = None,
    precisions: Sequence[str] = ("fp32", "bf16"),
    pairs: int = 16,
    repeats: int = 5,
    device: str = "cpu",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row per size and precision: one query against ``pairs`` images, tokens included. The twin scores
    them in one batch, from database tokens in fp16, as the scorer reads them.

    sizes: (query, database) descriptors; None: ``SIZES``.
    """
    configs = [ComputeConfig(devices=(device,), precision=p) for p in precisions]
    precisions = list(dict.fromkeys(config.precision for config in configs))
    rows = []
    for size in sizes or SIZES:
        same = (size, pairs, device, seed)
        calls = {"twin": twin_call(*same)} | {p: scorer_call(*same, p) for p in precisions}
        expected, seconds = calls["twin"](), alternate(calls, repeats, device)
        memory = {name: _mega(device, name, same) for name in calls}
        for p in precisions:
            rows.append(
                {
                    "query x database": f"{size[0]} x {size[1]}",
                    "precision": p,
                    "pairs/s": pairs / median(seconds[p]),
                    "twin pairs/s": pairs / median(seconds["twin"]),
                    "ratio": ratio(seconds, "twin", p),
                    "max difference": float(np.abs(calls[p]() - expected).max()),
                    "peak MB": memory[p],
                    "twin peak MB": memory["twin"],
                }
            )
    return rows


def inputs(size: tuple[int, int], pairs: int, seed: int) -> tuple[RRT, LocalFeatures, LocalFeatures]:
    """The released sizes with random weights; a query of size[0] and images of size[1] descriptors."""
    torch.manual_seed(seed)
    query, database = (
        LocalFeatures.from_descriptors(
            torch.randn(count, slots, 128),
            scale=torch.randint(0, 7, (count, slots)),
            vector=torch.randn(count, 2048),
        )
        for count, slots in ((1, size[0]), (pairs, size[1]))
    )
    return RRT().eval(), query, database


def twin_call(size: tuple[int, int], pairs: int, device: str, seed: int) -> Callable[[], np.ndarray]:
    model, query, database = inputs(size, pairs, seed)
    model = model.to(device)
    twin = ReleasedRRT(model).eval()

    @torch.no_grad()
    def call() -> np.ndarray:
        one = model.tokens(query.to(device)).map(lambda x: x.expand(pairs, *x.shape[1:]))
        stored = model.expand(model.compress(database.to(device)))
        return twin(one, stored).cpu().numpy()

    return call


def scorer_call(
    size: tuple[int, int], pairs: int, device: str, seed: int, precision: str
) -> Callable[[], np.ndarray]:
    model, query, database = inputs(size, pairs, seed)
    scorer = PairScorer(model, ComputeConfig(devices=(device,), precision=precision))
    query_rows, image_rows = np.zeros(pairs, int), np.arange(pairs)

    def call() -> np.ndarray:
        return scorer.score(scorer.queries(query), database, query_rows, image_rows)

    return call


def _mega(device: str, name: str, same: tuple[Any, ...]) -> float | None:
    """Peak memory of a call in MB, on a CPU."""
    if device != "cpu":
        return None
    peak = peak_memory(twin_call, *same) if name == "twin" else peak_memory(scorer_call, *same, name)
    return None if peak is None else peak / 1e6
