"""Inputs behind aff.json, rebuilt from seeds (``golden.rebuild``): ArcFace as its layer was released, and the
momentum classifier of AFF's formulas in double precision.
"""

import json
from pathlib import Path

import numpy as np
import torch

from golden import rebuild

FIGURES = json.loads(Path(__file__).with_suffix(".json").read_text())


def classifier(case):
    """Float32 [classes, dim]."""
    return rebuild.descriptors((case["classes"], case["dim"]), case["seed"])


def labels(case):
    drawn = np.random.default_rng([case["seed"], 80]).integers(0, case["classes"], case["batch"])
    return torch.from_numpy(drawn)


def vectors(case, number=1):
    """Float32 [batch, dim] from the stream of seed + number."""
    return rebuild.descriptors((case["batch"], case["dim"]), case["seed"] + number)


def pulled(case):
    """Vectors that are pulled towards the rows of their classes, or pushed away."""
    return vectors(case) + case["pull"] * classifier(case)[labels(case)]
