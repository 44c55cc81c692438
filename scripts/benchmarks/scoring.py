"""Pairs per second of the scorer beside a twin of the released model, with the same weights and inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from benchmarks.machine import alternate, busy_core, matrix_rate, peak_memory, ratio

from ames.features import LocalFeatures
from ames.models.ames import AMES
from ames.reranking.scorer import PRECISIONS, ComputeConfig, PairScorer
from twins.released_model import ReleasedAMES

SIZES = ((600, 600), (400, 400), (600, 50), (100, 100))


def run(
    *,
    sizes: Sequence[tuple[int, int]] | None = None,
    precisions: Sequence[str] = ("fp32", "bf16"),
    pairs: int = 16,
    repeats: int = 5,
    device: str = "cpu",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row per size and precision: one query against ``pairs`` images, projection included. On a CPU also
    beside a foreign process that keeps one core busy.

    sizes: (query, database) descriptors; None: ``SIZES``.
    """
    # A precision that the device only emulates is computed, and reported, as fp32.
    configs = [ComputeConfig(devices=(device,), precision=p) for p in precisions]
    precisions = list(dict.fromkeys(config.precision for config in configs))
    rates = {p: matrix_rate(PRECISIONS[p], device) for p in precisions}
    reference = matrix_rate(torch.float32, device)
    rows = []
    for n, m in sizes or SIZES:
        twin = twin_call(n, m, pairs, device, seed)
        calls = {"twin": twin} | {p: scorer_call(n, m, pairs, device, seed, p) for p in precisions}
        expected = twin()
        seconds = alternate(calls, repeats, device)
        beside = None
        if device == "cpu":
            with busy_core():
                beside = alternate(calls, repeats, device)
        twin_memory = None if device != "cpu" else peak_memory(twin_call, n, m, pairs, device, seed)
        for p in precisions:
            memory = None if device != "cpu" else peak_memory(scorer_call, n, m, pairs, device, seed, p)
            rate = pairs / median(seconds[p])
            rows.append(
                {"query x database": f"{n} x {m}", "precision": p}
                | _speed(pairs, seconds, beside, p)
                | {"max difference": float(np.abs(calls[p]() - expected).max())}
                | _share(model_flops(AMES(), n, m) * rate, reference, rates[p])
                | _memory(memory, twin_memory)
            )
    return rows


def _speed(
    pairs: int, seconds: Mapping[str, list[float]], beside: Mapping[str, list[float]] | None, precision: str
) -> dict[str, Any]:
    """Rates and ratios of an idle machine, and beside a busy process."""
    return {
        "pairs/s": pairs / median(seconds[precision]),
        "twin pairs/s": pairs / median(seconds["twin"]),
        "ratio": ratio(seconds, "twin", precision),
        "busy pairs/s": beside and pairs / median(beside[precision]),
        "of idle": beside and median(seconds[precision]) / median(beside[precision]),
        "busy ratio": beside and ratio(beside, "twin", precision),
    }


def _share(done: float, reference: float, own: float) -> dict[str, float]:
    """Operations per second over the rates of a large product in fp32 and in the same format."""
    return {"share of fp32 rate": done / reference, "of its own": done / own}


def _memory(own: int | None, twin: int | None) -> dict[str, float | None]:
    return {
        "peak MB": _mega(own),
        "twin peak MB": _mega(twin),
        "memory ratio": twin / own if own and twin else None,
    }


def model_flops(model: AMES, n: int, m: int) -> float:
    """Operations of the model for one pair, two per multiply-add, as the paper describes it: exact attention,
    both projections, without this library's savings.
    """
    S, d, hidden = n + m + 1, model.model_dim, model.decoder.stack[0].linear1.out_features
    read = n * (n + 1) + m * (m + 1) + S  # query-key pairs of self-attention; of cross-attention:
    across = n * (m + 1) + m * (n + 1) + S
    attention = 2 * S * 4 * d * d * 2 + (read + across) * 2 * 2 * d
    layers = len(model.decoder.stack) * (attention + S * 2 * d * hidden * 2)
    return layers + (n + m) * (model.local_dim or 0) * d * 2


def inputs(n: int, m: int, pairs: int, seed: int) -> tuple[AMES, torch.Tensor, torch.Tensor]:
    """The paper's model with random weights; a query [1, n, 768] and database images [pairs, m, 768]."""
    torch.manual_seed(seed)
    return AMES().eval(), torch.randn(1, n, 768), torch.randn(pairs, m, 768)


def twin_call(n: int, m: int, pairs: int, device: str, seed: int) -> Callable[[], np.ndarray]:
    model, query, database = inputs(n, m, pairs, seed)
    return forward_call(ReleasedAMES(model), query, database, device)


def forward_call(
    twin: torch.nn.Module, query: torch.Tensor, database: torch.Tensor, device: str
) -> Callable[[], np.ndarray]:
    """Score all pairs in one batch by the published ``forward``, without padding."""
    twin, (pairs, m), n = twin.eval().to(device), database.shape[:2], query.shape[1]
    repeated = query.expand(pairs, -1, -1).contiguous()
    masks = [torch.zeros(pairs, count, dtype=torch.bool) for count in (n, m)]

    @torch.no_grad()
    def call() -> np.ndarray:
        x = [t.to(device) for t in (repeated, masks[0], database, masks[1])]
        return twin(*x).cpu().numpy()

    return call


def scorer_call(
    n: int, m: int, pairs: int, device: str, seed: int, precision: str
) -> Callable[[], np.ndarray]:
    model, query, database = inputs(n, m, pairs, seed)
    scorer = PairScorer(model, ComputeConfig(devices=(device,), precision=precision))
    query_rows, image_rows = np.zeros(pairs, int), np.arange(pairs)

    def call() -> np.ndarray:
        queries = scorer.queries(LocalFeatures.from_descriptors(query))
        return scorer.score(queries, LocalFeatures.from_descriptors(database), query_rows, image_rows)

    return call


def _mega(size: int | None) -> float | None:
    return None if size is None else size / 1e6
