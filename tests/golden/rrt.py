"""Models and inputs behind rrt.json, the figures of the released Reranking Transformers, rebuilt from seeds.

Scales of descriptors come from the stream [seed, 79]; the rest is as in ``golden.rebuild``.
"""

import json
from pathlib import Path

import numpy as np
import torch

from ames.features import LocalFeatures
from ames.models.rrt import RRT
from golden import rebuild

CASES = json.loads(Path(__file__).with_suffix(".json").read_text())


def arguments(case, variant):
    same = ("model_dim", "nhead", "dim_feedforward")
    found = {name: case[name] for name in same} | {"variant": variant, "num_layers": case["layers"]}
    found |= {"local_dim": case["model_dim"], "activation": case.get("activation", "relu")}
    found["normalize_before"] = case.get("normalize_before", False)
    if variant == "gld":
        return found | {"global_dim": case["global_dim"]}
    return found | {"map_size": [case["height"], case["width"]]}


def shapes(case, variant):
    """Name -> shape of every tensor of a published matcher of these arguments."""
    d, f = case["model_dim"], case["dim_feedforward"]

    def linear(name, rows, columns):
        return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}

    def norm(name):
        return {f"{name}.weight": (d,), f"{name}.bias": (d,)}

    found = linear("classifier", 1, d) | {"seg_encoder.weight": (6 if variant == "gld" else 4, d)}
    if variant == "gld":
        found |= linear("remap", d, case["global_dim"]) | {"scale_encoder.weight": (7, d)}
    for layer in (f"encoder.layers.{i}" for i in range(case["layers"])):
        found[f"{layer}.self_attn.in_proj_weight"] = (3 * d, d)
        found[f"{layer}.self_attn.in_proj_bias"] = (3 * d,)
        found |= linear(f"{layer}.self_attn.out_proj", d, d) | linear(f"{layer}.linear1", f, d)
        found |= linear(f"{layer}.linear2", d, f) | norm(f"{layer}.norm1") | norm(f"{layer}.norm2")
    return found | (norm("encoder.norm") if case.get("normalize_before") else {})


def model(case, variant):
    made = RRT(**arguments(case, variant))
    made.load_state_dict(rebuild.state(shapes(case, variant), case["seed"]), strict=True)
    return made.eval()


def scales(batch, count, seed):
    """int64 [batch, count]: indices of seven scales."""
    return torch.from_numpy(np.random.default_rng([seed, 79]).integers(0, 7, (batch, count)))


def landmark_pairs(case):
    """Query and database features of a case of "gld"."""
    size, n, m, seed = case["batch"], case["query_desc"], case["db_desc"], case["seed"]
    locals_ = rebuild.related(size, n, m, case["model_dim"], seed)
    return [
        LocalFeatures.from_descriptors(
            x,
            rebuild.valid(size, x.shape[1], seed + i) if case["masks"] else None,
            scale=scales(size, x.shape[1], seed + i),
            vector=rebuild.descriptors((size, case["global_dim"]), seed + 2 + i),
        )
        for i, x in enumerate(locals_)
    ]


def landmark_triplets(case):
    """Features of anchors, positives and negatives of "train_step_gld"."""
    size, n, seed = case["batch"], case["desc"], case["seed"]
    anchor, positive = rebuild.related(size, n, n, case["model_dim"], seed)
    return [
        LocalFeatures.from_descriptors(
            x,
            rebuild.valid(size, n, seed + 1 + i),
            scale=scales(size, n, seed + i),
            vector=rebuild.descriptors((size, case["global_dim"]), seed + 20 + i),
        )
        for i, x in enumerate((anchor, positive, rebuild.descriptors(anchor.shape, seed + 9)))
    ]


def maps(case):
    """Feature maps [B, d, height, width] of two images of a case of "sop"."""
    height, width, d = case["height"], case["width"], case["model_dim"]
    found = rebuild.related(case["batch"], height * width, height * width, d, case["seed"])
    return [x.transpose(1, 2).unflatten(2, (height, width)) for x in found]
