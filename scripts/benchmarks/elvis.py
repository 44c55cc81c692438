"""Pairs per second of ELViS beside a twin of the released model, with the same weights and inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from benchmarks.machine import alternate, peak_memory, ratio
from benchmarks.scoring import forward_call

from ames.features import LocalFeatures
from ames.models.elvis import ELViS
from ames.reranking.scorer import ComputeConfig, PairScorer
from twins.released_elvis import ReleasedELViS

SIZES = ((400, 400), (600, 600), (600, 50), (100, 100))


def run(
    *,
    sizes: Sequence[tuple[int, int]] | None = None,
    pairs: int = 16,
    repeats: int = 5,
    device: str = "cpu",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row per size: one query against ``pairs`` images of 768-d descriptors, projection included, fp32.

    sizes: (query, database) descriptors; None: ``SIZES``.
    """
    rows = []
    for n, m in sizes or SIZES:
        calls = {
            "twin": twin_call(n, m, pairs, device, seed),
            "scorer": scorer_call(n, m, pairs, device, seed),
        }
        expected = calls["twin"]()
        seconds = alternate(calls, repeats, device)
        rows.append(
            {
                "query x database": f"{n} x {m}",
                "pairs/s": pairs / median(seconds["scorer"]),
                "twin pairs/s": pairs / median(seconds["twin"]),
                "ratio": ratio(seconds, "twin", "scorer"),
                "score": float(expected.mean()),
                "max difference": float(np.abs(calls["scorer"]() - expected).max()),
                "without fp16 codes": float(np.abs(exact(n, m, pairs, seed) - expected).max()),
            }
            | _memory(device, n, m, pairs, seed)
        )
    return rows


def exact(n: int, m: int, pairs: int, seed: int) -> np.ndarray:
    """The model's scores of descriptors that no database has rounded."""
    model, query, database = inputs(n, m, pairs, seed)
    with torch.inference_mode():
        sides = LocalFeatures.from_descriptors(query), LocalFeatures.from_descriptors(database[None])
        return model.score(*sides)[0].numpy()


def _memory(device: str, n: int, m: int, pairs: int, seed: int) -> dict[str, float | None]:
    """Megabytes at the peak of a call; of a CPU only."""
    peaks = [
        peak_memory(call, n, m, pairs, device, seed) if device == "cpu" else None
        for call in (scorer_call, twin_call)
    ]
    names = ("peak MB", "twin peak MB")
    return {name: peak and peak / 1e6 for name, peak in zip(names, peaks, strict=True)}


def inputs(n: int, m: int, pairs: int, seed: int) -> tuple[ELViS, torch.Tensor, torch.Tensor]:
    """The paper's model with random weights; a query [1, n, 768] and database images [pairs, m, 768]."""
    torch.manual_seed(seed)
    model = ELViS().eval()
    return model, torch.randn(1, n, 768), torch.randn(pairs, m, 768)


def twin_call(n: int, m: int, pairs: int, device: str, seed: int) -> Callable[[], np.ndarray]:
    model, query, database = inputs(n, m, pairs, seed)
    return forward_call(ReleasedELViS(model), query, database, device)


def scorer_call(n: int, m: int, pairs: int, device: str, seed: int) -> Callable[[], np.ndarray]:
    model, query, database = inputs(n, m, pairs, seed)
    scorer = PairScorer(model, ComputeConfig(devices=(device,)))
    query_rows, image_rows = np.zeros(pairs, int), np.arange(pairs)

    def call() -> np.ndarray:
        queries = scorer.queries(LocalFeatures.from_descriptors(query))
        return scorer.score(queries, LocalFeatures.from_descriptors(database), query_rows, image_rows)

    return call
