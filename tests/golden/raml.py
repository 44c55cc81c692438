"""Inputs behind raml.json, the figures of the released RAML, rebuilt from seeds (``golden.rebuild``)."""

import json
from pathlib import Path

import numpy as np
import torch.nn.functional as F

from golden import rebuild

CASES = json.loads(Path(__file__).with_suffix(".json").read_text())


def unit(shape, seed):
    """Float32 [..., d] of length 1."""
    return F.normalize(rebuild.descriptors(shape, seed), dim=-1)


def views(case):
    """(student, teacher), each [images, views, dim]."""
    shape, seed = (case["images"], case["views"], case["dim"]), case["seed"]
    noise = case["noise"] * rebuild.descriptors(shape, seed + 1)
    return unit(shape, seed), F.normalize(rebuild.descriptors(shape, seed) + noise, dim=-1)


def labels(count, classes, seed):
    return np.random.default_rng([seed, 80]).integers(0, classes, count)


def triplets(case):
    """Anchors [B, d], positives and negatives [B, n, d]."""
    B, d, seed = case["batch"], case["dim"], case["seed"]
    counts = (1, case["positives"], case["negatives"])
    anchor, *others = (unit((B, n, d), seed + i) for i, n in enumerate(counts))
    return anchor[:, 0], *others


def head(case):
    """Feature maps [B, C, h, w], and the state of the whitening."""
    shape = (case["batch"], case["channels"], case["height"], case["width"])
    wanted = {"whiten.weight": (case["dim"], case["channels"]), "whiten.bias": (case["dim"],)}
    state = rebuild.state(wanted, case["seed"])
    return rebuild.descriptors(shape, case["seed"]).abs(), {k[7:]: x for k, x in state.items()}


def first4(gradient):
    return gradient.flatten()[:4].tolist()
