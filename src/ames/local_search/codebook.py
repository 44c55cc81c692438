"""Codebooks of visual words: k-means of local descriptors, and the nearest words of a descriptor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ames.descriptors.local import DescriptorFile
from ames.errors import AmesError
from ames.io.archives import reading_npz
from ames.io.atomic import atomic_file
from ames.io.claims import parsed
from ames.io.text import counted

_READ = 256  # images at a time
_KIND = "codebook of visual words"


@dataclass(frozen=True, eq=False)
class Codebook:
    """Centroids float32 [W, D], as k-means leaves them: they are not normalized.

    meta: words, dim, seed, iterations and what it was trained on (``trained_on``). Raises AmesError unless
    the centroids are such a table of finite numbers.
    """

    centroids: np.ndarray
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found = np.asarray(self.centroids)
        if found.ndim != 2 or not found.size or found.dtype.kind != "f":
            raise AmesError(f"centroids are {found.dtype} {found.shape}: give floats [words, dimensions]")
        if not np.isfinite(found).all():
            raise AmesError("centroids hold NaN or infinity: train the codebook again")
        object.__setattr__(self, "centroids", np.ascontiguousarray(found, np.float32))

    @property
    def words(self) -> int:
        return self.centroids.shape[0]

    @property
    def width(self) -> int:
        """D, the width of the descriptors that it takes."""
        return self.centroids.shape[1]

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the centroids."""
        return hashlib.sha256(self.centroids.tobytes()).hexdigest()[:16]

    @classmethod
    def train(
        cls,
        descriptors: np.ndarray,
        words: int,
        *,
        seed: int = 0,
        iterations: int = 10,
        trained_on: Mapping[str, Any] | None = None,
    ) -> Codebook:
        """Return ``words`` centroids of descriptors float [n, D]: FAISS' k-means with L2 distances.

        As in the released recipe, FAISS clusters a sample of 256 descriptors a word where there are more.
        The same descriptors, seed and number of threads give the same centroids. AmesError for fewer
        descriptors than words, and for NaN or infinity.
        """
        import faiss

        x = np.ascontiguousarray(descriptors, np.float32)
        if words < 1 or iterations < 1:
            raise AmesError(f"{words} words, {iterations} iterations were asked for: give at least 1 of each")
        if x.ndim != 2 or len(x) < words:
            raise AmesError(f"{len(x)} descriptors are too few for {words} words: give at least as many")
        if not np.isfinite(x).all():
            raise AmesError("descriptors to cluster hold NaN or infinity: extract them again")
        settings = {"niter": iterations, "seed": seed, "min_points_per_centroid": 1}
        means = faiss.Kmeans(x.shape[1], words, **settings)
        means.train(x)
        meta = {"words": words, "dim": x.shape[1], "seed": seed, "iterations": iterations}
        found = np.asarray(means.centroids, np.float32).reshape(words, x.shape[1])
        return cls(found, {**meta, "trained_on": dict(trained_on or {})})

    def assign(self, descriptors: np.ndarray, count: int = 1) -> np.ndarray:
        """Return the ``count`` nearest words of descriptors float [n, D], nearest first: int64 [n, count].

        Exact L2 distances. AmesError for more words than there are, and another width.
        """
        x = torch.from_numpy(np.ascontiguousarray(descriptors, np.float32))
        return nearest_words(x, torch.from_numpy(self.centroids), count).numpy()

    def save(self, path: Path | str) -> Path:
        """Write ``.npz``: ``centroids`` and ``meta`` (JSON); whole or not at all. Return the path."""
        path = Path(path)
        if path.suffix != ".npz":
            raise AmesError(f"{path}: a codebook is saved as .npz: give a name that ends in .npz")
        text = json.dumps({"kind": _KIND, **self.meta})
        with atomic_file(path) as file:
            np.savez(file, centroids=self.centroids, meta=np.array(text))
        return path

    @classmethod
    def load(cls, path: Path | str) -> Codebook:
        """Read what ``save`` wrote; nothing in the file is executed. AmesError for any other file."""
        with reading_npz(path, "a codebook"), np.load(path, allow_pickle=False) as content:
            meta = parsed(str(content["meta"][()]))
            if not isinstance(meta, dict) or meta.pop("kind", None) != _KIND:
                raise AmesError(f"{path}: no codebook: make one with ames codebook")
            centroids = content["centroids"]
        try:
            return cls(centroids, meta)
        except AmesError as error:
            raise AmesError(f"{path}: {error}") from error


def nearest_words(descriptors: Tensor, centroids: Tensor, count: int) -> Tensor:
    """Return the ``count`` nearest rows of ``centroids`` [W, D] of descriptors [n, D] by L2 distance, nearest
    first: int64 [n, count]. On the CPU FAISS computes them. AmesError for more than W, and another width.
    """
    words, width = centroids.shape
    if descriptors.shape[1] != width:
        raise AmesError(f"descriptors are {descriptors.shape[1]}-d, the codebook takes {width}-d")
    if not 1 <= count <= words:
        raise AmesError(f"{count} words a descriptor were asked for: the codebook has {words}")
    if not len(descriptors):
        return torch.empty(0, count, dtype=torch.int64, device=descriptors.device)
    if descriptors.device.type == "cpu":
        import faiss

        x, c = (np.ascontiguousarray(side.detach().numpy(), np.float32) for side in (descriptors, centroids))
        return torch.from_numpy(faiss.knn(x, c, count)[1])
    # |x|² is the same for all words. 2^26 distances at a time bound the memory.
    offset, step = (centroids**2).sum(1), max(1, (1 << 26) // words)
    parts = descriptors.split(step)
    return torch.cat([(offset - 2 * part @ centroids.T).topk(count, largest=False).indices for part in parts])


def draw_descriptors(
    file: DescriptorFile, *, images: int | None = None, count: int | None = None, seed: int = 0
) -> np.ndarray:
    """Return the ``count`` strongest descriptors of ``images`` images of a file, drawn without repetition,
    float32 [n, D], image after image in the file's order; None: all.

    They are in memory: 20,000 images x 1,000 x 128 dimensions are 10 GB. AmesError for packed files.
    """
    if file.packed:
        raise AmesError(f"{file.path}: holds packed codes; words are of descriptors: extract without packing")
    rows = np.arange(len(file))
    if images is not None and images < len(file):
        rows = np.sort(np.random.default_rng(seed).permutation(len(file))[:images])
    parts = [np.empty((0, file.width), np.float32)]
    for start in range(0, len(rows), _READ):
        local = file.read(rows[start : start + _READ], count, locations=False)
        parts.append(local.descriptors[local.valid].float().numpy())
        if not np.isfinite(parts[-1]).all():
            raise AmesError(f"{file.path}: descriptors hold NaN or infinity; extract them again")
    return np.concatenate(parts)


def train_codebook(
    file: DescriptorFile,
    words: int,
    *,
    images: int | None = None,
    count: int | None = None,
    seed: int = 0,
    iterations: int = 10,
) -> Codebook:
    """Return a codebook of descriptors of a file, drawn by ``draw_descriptors``; its meta names them."""
    x = draw_descriptors(file, images=images, count=count, seed=seed)
    used = len(file) if images is None else min(images, len(file))
    if len(x) < words:
        held = f"{counted(len(x), 'descriptor')} of {counted(used, 'image')}"
        raise AmesError(f"{file.path}: {held} are too few for {words} words: take more, or fewer --words")
    about = {"file": file.path.name, "images": used, "count": count, "descriptors": len(x)}
    about["backbone"] = file.provenance.get("backbone")
    return Codebook.train(x, words, seed=seed, iterations=iterations, trained_on=about)
