"""Choose a code of global descriptors by measurements on them: bytes against recall."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ames.errors import AmesError
from ames.global_search.codes import GlobalCodec
from ames.global_search.exact import search

# Small ones first; which one fits depends on the vectors.
FACTORIES = ("RaBitQ", "PCA64,SQ4", "PCA64,SQ8", "SQ4", "PCA128,SQ8", "SQ8", "SQfp16")
OVERHEAD = 48  # bytes per image beside its codes: 8 of the row, some 34 of the name, a share of the rest
_TOLERANCE = 0.02  # of recall, below the best
_SEED = 0


@dataclass(frozen=True)
class Measured:
    """One factory: bytes of a code, share of the exact first 1, 10, 100 that are found among as many,
    queries per second, seconds to train and to encode all vectors.
    """

    factory: str
    bytes: int
    recall: dict[int, float]
    queries_per_second: float
    build_seconds: float


def measure(
    vectors: np.ndarray,
    queries: np.ndarray | None = None,
    *,
    factories: Sequence[str] = FACTORIES,
    ks: Sequence[int] = (1, 10, 100),
    sample: int = 500,
) -> tuple[list[Measured], dict[str, str]]:
    """Compare each factory with exact search by cosine on vectors float32 [n, G]; also return the factories
    that were left out, with the reason.

    queries float32 [Q, G]: the first ``sample`` that are not zero; None: ``sample`` of the vectors
    themselves, each without itself.
    """
    own = queries is None
    rng = np.random.default_rng([_SEED, 23])
    present = np.linalg.norm(vectors, axis=1) > 0
    candidates = np.flatnonzero(present)
    asked = np.sort(rng.choice(candidates, min(sample, len(candidates)), replace=False))
    if queries is not None:  # one without keypoints finds nothing, whatever the code
        queries = queries[np.linalg.norm(queries, axis=1) > 0]
    asking = vectors[asked] if queries is None else queries[:sample]
    ks = [k for k in ks if k < len(candidates)]
    if not ks or not len(asking):
        sizes = f"{len(candidates)} global descriptors and {len(asking)} queries"
        raise AmesError(f"{sizes} are too few to measure")
    most = max(ks) + own
    exact = _without(search(asking, vectors, most).ids, asked if own else None)
    found, left_out = [], {}
    for factory in factories:
        start = time.perf_counter()
        try:
            codec = GlobalCodec.fit(vectors, factory, seed=_SEED)
        except AmesError as error:
            left_out[factory] = str(error)
            continue
        index = codec.index(codec.encode(vectors), present)
        built = time.perf_counter() - start
        start = time.perf_counter()
        ids = index.search(asking, most).ids
        seconds = time.perf_counter() - start
        ids = _without(ids, asked if own else None)
        recall = {k: _recall(ids, exact, k) for k in ks}
        found.append(Measured(factory, codec.code_bytes, recall, len(asking) / max(seconds, 1e-9), built))
    return found, left_out


def _without(ids: np.ndarray, own: np.ndarray | None) -> np.ndarray:
    """Rankings without the query itself, where it is one of the images."""
    if own is None:
        return ids
    order = np.argsort(ids == own[:, None], axis=1, kind="stable")
    return np.take_along_axis(ids, order, 1)[:, :-1]


def _recall(ids: np.ndarray, exact: np.ndarray, k: int) -> float:
    shared = [len(np.intersect1d(a[:k], b[:k])) for a, b in zip(ids, exact, strict=True)]
    return float(np.mean(shared)) / k


@dataclass(frozen=True)
class Pick:
    """A factory for the global codes and a number of local ones that fit a budget of bytes per image."""

    factory: str
    desc_num: int
    bytes_per_image: int


def pick(
    measured: Sequence[Measured],
    *,
    bytes_per_image: int,
    desc_bytes: int = 16,
    overhead: int = OVERHEAD,
    min_local_desc: int = 50,
) -> Pick:
    """Return the smallest global code whose recall at 100 (or the most that was measured) is within 0.02 of
    the best that fits; the other bytes go to local descriptors of ``desc_bytes``.

    min_local_desc: local descriptors that must fit, since accuracy depends on them first (the paper's 50).
    AmesError where nothing fits.
    """
    if not measured:
        raise AmesError("no factory could be measured; give others (--factories)")
    fits = [m for m in measured if overhead + m.bytes + min_local_desc * desc_bytes <= bytes_per_image]
    if not fits:
        smallest = min(m.bytes for m in measured)
        raise AmesError(
            f"{bytes_per_image} bytes per image hold no {min_local_desc} local descriptors of {desc_bytes} "
            f"bytes, {overhead} bytes of bookkeeping and a global code (smallest: {smallest}); allow more "
            "bytes, or fewer descriptors"
        )
    recalls = [m.recall[max(m.recall)] for m in fits]
    good = [(m, r) for m, r in zip(fits, recalls, strict=True) if r >= max(recalls) - _TOLERANCE]
    chosen, _ = min(good, key=lambda pair: (pair[0].bytes, -pair[1]))
    local = (bytes_per_image - overhead - chosen.bytes) // desc_bytes
    return Pick(chosen.factory, local, overhead + chosen.bytes + local * desc_bytes)
