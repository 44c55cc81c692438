"""A database of many made-up images: building, opening, answering; memory and bytes per image."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np
import torch
from benchmarks.machine import alternate, in_process, memory_now, peak_memory, timed

from ames.database.build import Source, compress
from ames.database.store import Database
from ames.descriptors.local import DescriptorFile, GlobalFile
from ames.features import LocalFeatures
from ames.io.atomic import atomic_path
from ames.models.ames import AMES
from ames.reranking.fusion import Fusion
from ames.reranking.reranker import Reranker
from ames.reranking.scorer import PairScorer
from ames.retrieval.retriever import Retriever

SLOTS, QUERY, WIDTH, CANDIDATES, FUSION = 50, 600, 128, 400, Fusion(0.5, 0.5)
_BLOCK = 1 << 15


def run(folder: Path, *, images: int, factory: str, repeats: int = 5) -> list[dict[str, Any]]:
    """One row. Local codes are random bits, 50 an image; global vectors are noisy copies of 1,000 centres."""
    local, vectors = folder / f"bits-{images}.hdf5", folder / f"global-{images}.hdf5"
    if not vectors.exists():
        make(local, vectors, images)
    database = folder / f"database-{images}"
    shutil.rmtree(database, ignore_errors=True)
    built, build_seconds = timed(lambda: peak_memory(_build, local, vectors, database, factory))
    opened, open_seconds = timed(lambda: Database(database))
    served = in_process(_serve, database, vectors)
    ratio, reads = _against_memory(opened, repeats)
    return [
        {
            "images": images,
            "factory": factory,
            "bytes/image": opened.bytes_per_image,
            "build s": build_seconds,
            "build peak MB": None if built is None else built / 1e6,
            "open ms": 1e3 * open_seconds,
            "index s": served["index"],
            "serving RSS MB": served["memory"] / 1e6 if served["memory"] else None,
            "query s": served["query"],
            "of it read ms": 1e3 * reads,
            "database / RAM": ratio,
        }
    ]


def make(local: Path, vectors: Path, images: int) -> None:
    """The files that a database is built from: packed bits and float32 vectors of unit length."""
    rng = np.random.default_rng(0)
    local.parent.mkdir(parents=True, exist_ok=True)
    centres = rng.standard_normal((1000, WIDTH)).astype(np.float32)
    with atomic_path(local) as a, atomic_path(vectors) as b, h5py.File(a, "w") as x, h5py.File(b, "w") as y:
        bits = x.create_dataset("features", (images, SLOTS, 16), np.uint8)
        table = y.create_dataset("features", (images, WIDTH), np.float32)
        for start in range(0, images, _BLOCK):
            n = min(_BLOCK, images - start)
            bits[start : start + n] = rng.integers(0, 256, (n, SLOTS, 16), np.uint8)
            found = centres[rng.integers(0, 1000, n)] + rng.standard_normal((n, WIDTH), np.float32)
            table[start : start + n] = found / np.linalg.norm(found, axis=1, keepdims=True)


def _model() -> AMES:
    torch.manual_seed(0)
    return AMES(binarized=True).eval()


def _build(local: Path, vectors: Path, out: Path, factory: str) -> Any:
    source = Source(DescriptorFile(local), GlobalFile(vectors))
    return lambda: compress(source, _model(), out, desc_num=SLOTS, factory=factory)


def _serve(folder: Path, vectors: Path) -> dict[str, Any]:
    """Answer some queries; seconds and the resident memory at the end."""
    database = Database(folder)
    retriever, index = timed(lambda: Retriever(database, Reranker(_model(), FUSION)))
    file = GlobalFile(vectors)

    def answer(row: int, query: LocalFeatures) -> None:
        retriever.search_features(file.read(np.array([row])), query, k=10, num_rerank=CANDIDATES)

    queries = [LocalFeatures.from_descriptors(torch.randn(1, QUERY, 768)) for _ in range(3)]
    seconds = [timed(partial(answer, row, query))[1] for row, query in enumerate(queries)]
    return {"index": index, "query": median(seconds), "memory": memory_now()}


def _against_memory(database: Database, repeats: int) -> tuple[float, float]:
    """Seconds of re-ranking from the database over seconds from codes in RAM; seconds of the reads."""
    scorer = PairScorer(_model())
    rng = np.random.default_rng(1)
    rows = rng.choice(len(database), min(CANDIDATES, len(database)), replace=False)
    codes = database.read(rows)
    held = LocalFeatures(codes.descriptors.clone(), codes.valid.clone())
    queries = scorer.queries(LocalFeatures.from_descriptors(torch.randn(1, QUERY, 768)))
    pairs = np.zeros(len(rows), int), np.arange(len(rows))

    def from_database() -> None:
        fresh = rng.choice(len(database), len(rows), replace=False)
        scorer.score(queries, database.read(fresh), *pairs)

    calls = {
        "database": from_database,
        "memory": lambda: scorer.score(queries, held, *pairs),
        "read": lambda: database.read(rng.choice(len(database), len(rows), replace=False)),
    }
    seconds = alternate(calls, repeats)
    return median(seconds["database"]) / median(seconds["memory"]), median(seconds["read"])
