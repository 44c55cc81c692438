"""Inputs behind asmk.json, the figures of the released ASMK, rebuilt from seeds.

Descriptors come from the stream [seed, 77], numbers of descriptors from [seed, 81].
"""

import json
from pathlib import Path

import numpy as np
import torch

from ames.features import LocalFeatures
from ames.local_search.codebook import Codebook
from ames.local_search.kernel import Kernel

FIGURES = json.loads(Path(__file__).with_suffix(".json").read_text())
CASES = FIGURES["cases"]


def drawn(shape, seed):
    return np.random.default_rng([seed, 77]).standard_normal(shape).astype(np.float32)


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def image_sets(case):
    """Vectors of images, and of queries: lists of float32 [n, dim]. Query q is a noisy image 2 q."""
    seed, dim = case["seed"], case["dim"]
    counts = np.random.default_rng([seed, 81]).integers(5, 13, case["images"])
    vectors = unit(drawn((counts.sum(), dim), seed))
    images = np.split(vectors, np.cumsum(counts)[:-1])
    copied = [images[2 * q] for q in range(case["queries"])]
    noise = np.float32(0.6) * unit(drawn((sum(map(len, copied)), dim), seed + 1))
    queries = unit(np.concatenate(copied) + noise)
    return images, np.split(queries, np.cumsum([len(x) for x in copied])[:-1])


def local(images):
    """Padded features [n, N, dim] of images with unequal numbers of vectors."""
    return LocalFeatures.stack([LocalFeatures.from_descriptors(torch.from_numpy(x)) for x in images])


def codebook(case):
    return Codebook(unit(drawn((case["words"], case["dim"]), case["seed"] + 5)))


def kernel(case, binary, **changes):
    same = {name: case[name] for name in ("db_assign", "query_assign", "alpha", "threshold")}
    return Kernel(binary=binary, **same | changes)
