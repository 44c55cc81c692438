"""Queries of ASMK's inverted file beside the released package ``asmk``, where it can be imported.

That package is no dependency: where it is missing, that is said and only this library is measured. Both sides
hold the same entries of made-up images, planted near words, and answer the same queries in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any
from unittest import mock

import faiss
import numpy as np
import torch
from benchmarks.machine import alternate, ratio

from ames.features import LocalFeatures
from ames.local_search import aggregation
from ames.local_search.aggregation import aggregate, packed, unit
from ames.local_search.codebook import Codebook, nearest_words
from ames.local_search.inverted_file import InvertedFile
from ames.local_search.kernel import Kernel

WIDTH, DATABASE, QUERY, TOP, BLOCK = 128, 300, 1000, 1000, 500
_NOISE = 0.07  # of a dimension: descriptors stay nearest to the word that they were planted near


def run(
    *, images: int, words: int = 65536, queries: int = 70, whole: int = 5, repeats: int
) -> list[dict[str, Any]]:
    """A row for signs and one for real vectors: milliseconds a query, first of descriptors whose words are
    known, then with the search for words, of the first ``whole`` queries.

    The first descriptors of query q are noisy copies of those of image q; the others have no part in it.
    """
    faiss.omp_set_num_threads(torch.get_num_threads())
    centroids = _unit(np.random.default_rng(0).standard_normal((words, WIDTH), np.float32))
    codebook, asked = Codebook(centroids), _planted(centroids, queries, QUERY, seed=2)[0]
    copied = _planted(centroids, min(BLOCK, images), DATABASE, seed=3)[0].descriptors[:queries]
    noise = _NOISE * torch.randn(copied.shape, generator=torch.Generator().manual_seed(1))
    asked.descriptors[: len(copied), :DATABASE] = torch.from_numpy(_unit((copied + noise).numpy()))
    assigned = nearest_words(asked.descriptors.flatten(0, 1), torch.from_numpy(centroids), 5)
    return [_row(codebook, asked, assigned, images, whole, repeats, binary) for binary in (True, False)]


def _row(
    codebook: Codebook,
    asked: LocalFeatures,
    assigned: torch.Tensor,
    images: int,
    whole: int,
    repeats: int,
    binary: bool,
) -> dict[str, Any]:
    index, twin = InvertedFile(codebook, Kernel(binary=binary)), released(codebook, binary)
    for start in range(0, images, BLOCK):
        count = min(BLOCK, images - start)
        local, near = _planted(codebook.centroids, count, DATABASE, seed=3 + start)
        with _known(near.reshape(-1, 1)):
            index.add(local)
        if twin is not None:
            twin.add(local, near, start)
    few = asked[:whole]

    def ours() -> tuple[np.ndarray, np.ndarray]:
        with _known(assigned):
            return index.search(asked, TOP)

    row: dict[str, Any] = {
        "vectors": "signs" if binary else "real",
        "images": images,
        "queries": len(asked.valid),
    }
    calls: dict[str, Callable[[], Any]] = {"ames": ours, "ames whole": lambda: index.search(few, TOP)}
    if twin is not None:
        calls["asmk"] = lambda: twin.search(asked, assigned)
        calls["asmk whole"] = lambda: twin.search(few, None)
        row["max difference"] = float(np.abs(ours()[1] - twin.search(asked, assigned)).max())
    seconds = alternate(calls, repeats)
    for name, count in (("", len(asked.valid)), (" whole", len(few.valid))):
        for side in ("ames", "asmk")[: 1 + (twin is not None)]:
            row[f"{side}{name} ms"] = 1e3 * median(seconds[side + name]) / count
        if twin is not None:
            row[f"ratio{name}"] = ratio(seconds, f"asmk{name}", f"ames{name}")
    return row | {"bytes/image": index.bytes_per_image}


def released(codebook: Codebook, binary: bool) -> Released | None:
    """The released package with this codebook; None, which is said, where it is not installed."""
    try:
        import asmk  # noqa: F401
    except ImportError as error:
        print(f"the released package asmk is not there ({error}): only this library is measured", flush=True)
        return None
    return Released(codebook, binary)


class Released:
    """The released package, called as its own ``ASMKMethod`` calls it."""

    def __init__(self, codebook: Codebook, binary: bool) -> None:
        from asmk import codebook as books
        from asmk import index, inverted_file, kernel

        self.codebook = books.Codebook(index.initialize_index(None), size=codebook.words)
        self.codebook.index(codebook.centroids)
        self.kernel = kernel.ASMKKernel(self.codebook, binary=binary)
        self.ivf = inverted_file.IVF.initialize_empty(codebook_size=codebook.words, use_idf=False)
        self.centroids, self.binary = torch.from_numpy(codebook.centroids), binary

    def add(self, local: LocalFeatures, words: torch.Tensor, first: int) -> None:
        """Add images whose words are known; aggregated here, which gives the same and takes less time."""
        images = torch.arange(len(words)).repeat_interleave(words.shape[1])
        found = aggregate(local.descriptors.flatten(0, 1), images, words.reshape(-1, 1), self.centroids)
        vectors = unit(found.vectors).numpy()
        if self.binary:
            vectors = packed(found.vectors).view(">u4").astype(np.uint32)
        self.ivf.add(vectors, found.words.numpy(), first + found.images.numpy())

    def search(self, local: LocalFeatures, assigned: torch.Tensor | None) -> np.ndarray:
        """Similarities [Q, TOP], best first; assigned: the words of all descriptors, None: to be searched."""
        rows = []
        for i, x in enumerate(local.descriptors.numpy()):
            if assigned is None:
                x, words = self.codebook.quantize(x, multiple_assignment=5)
            else:
                words = assigned[i * len(x) : (i + 1) * len(x)].numpy()
            vectors, words = self.kernel.aggregate_image(x, words)
            rows.append(self.ivf.search(vectors, words, similarity_func=self._similarity, topk=TOP)[1])
        return np.stack(rows)

    def _similarity(self, *arguments: Any) -> Any:
        return self.kernel.similarity(*arguments, alpha=3.0, similarity_threshold=0.0)


def _known(words: torch.Tensor) -> Any:
    """Replace the search for words by those that are known, of the descriptors in their order."""
    place = 0

    def nearest(values: torch.Tensor, centroids: torch.Tensor, count: int) -> torch.Tensor:
        nonlocal place
        place += len(values)
        return words[place - len(values) : place]

    return mock.patch.object(aggregation, "nearest_words", nearest)


def _planted(centroids: np.ndarray, images: int, count: int, seed: int) -> tuple[LocalFeatures, torch.Tensor]:
    """Features [images, count, WIDTH] near words int64 [images, count]."""
    rng = np.random.default_rng(seed)
    words = rng.integers(0, len(centroids), (images, count))
    noise = np.float32(_NOISE) * rng.standard_normal((images, count, WIDTH), np.float32)
    local = LocalFeatures.from_descriptors(torch.from_numpy(_unit(centroids[words] + noise)))
    return local, torch.from_numpy(words)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)
