"""Pairs of images behind spatial.json, rebuilt from their seeds (the file's ``about`` says how)."""

import numpy as np
import torch

from ames.features import LocalFeatures
from golden.rebuild import cases, descriptors

CASES = cases("spatial.json")


def pair(case):
    """Features of query and database image, [1, N, D] and [1, M, D], positions in pixels."""
    rng = np.random.default_rng([case["seed"], 83])
    query, database = (rng.random((case[f"{side}_desc"], 2)) * 1000 for side in ("query", "db"))
    matrix = np.array([[0.8, -0.3], [0.25, 0.9]]) + 0.1 * rng.standard_normal((2, 2))
    shift, common = 100 * rng.standard_normal(2), case["common"]
    noise = case["noise"] * rng.standard_normal((common, 2))
    database[:common] = query[:common] @ matrix.T + shift + noise
    mine = unit(descriptors((case["query_desc"], case["dim"]), case["seed"]))
    theirs = unit(descriptors((case["db_desc"], case["dim"]), case["seed"] + 1))
    theirs[:common] = unit(mine[:common] + 0.3 * theirs[:common])
    return image(mine, query), image(theirs, database)


def image(values, places):
    """Features [1, N, D] with positions [1, N, 2]."""
    positions = torch.as_tensor(places, dtype=torch.float32)[None]
    return LocalFeatures.from_descriptors(torch.as_tensor(values)[None], positions=positions)


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)
