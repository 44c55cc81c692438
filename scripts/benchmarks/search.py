"""The global search beside an exact one of FAISS: seconds, and whether both find the same."""

from __future__ import annotations

from functools import partial
from typing import Any

import faiss
import numpy as np
import torch
from benchmarks.machine import alternate, ratio

from ames.descriptors.vectors import Vectors
from ames.global_search.exact import search, search_blocks

WIDTH, QUERIES = 256, 4096


def run(
    *, images: int, entries: tuple[int, ...] = (300, 1600), repeats: int, device: str
) -> list[dict[str, Any]]:
    """A row for each number of entries; random vectors of unit length, the first ones are the queries."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((images, WIDTH), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[:QUERIES]
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(WIDTH)
    index.add(vectors)

    def ours(k: int) -> None:
        for _ in search_blocks(Vectors.of(queries), Vectors.of(vectors), k, device=device):
            pass

    rows = []
    for k in sorted({min(k, images) for k in entries}):
        calls = {"ames": partial(ours, k), "faiss": partial(index.search, queries, k)}
        seconds = alternate(calls, repeats, device)
        same = search(queries, vectors, k, device=device).ids == index.search(queries, k)[1]
        rows.append(
            {
                "queries": len(queries),
                "images": images,
                "entries": k,
                "s": float(np.median(seconds["ames"])),
                "faiss s": float(np.median(seconds["faiss"])),
                "ratio": ratio(seconds, "faiss", "ames"),
                "same entries": float(same.mean()),
            }
        )
    return rows
