"""Weights and inputs behind the golden figures of the released AMES code, rebuilt from seeds.

Tensor i of the sorted names is drawn from the stream [seed, i]; inputs come from the stream [seed, 77],
padding from [seed, 78]. A golden case is a dict of forward.json or train_step.json.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch


def cases(file):
    """The cases of a file of figures beside this one."""
    return json.loads((Path(__file__).parent / file).read_text())["cases"]


def arguments(case, **changes):
    """Constructor arguments of the model of a case."""
    same = ("local_dim", "model_dim", "nhead", "dim_feedforward", "activation", "normalize_before")
    found = {name: case[name] for name in same} | {"num_encoder_layers": case["layers"]}
    return found | {"binarized": case.get("binarized", False)} | changes


def shapes(
    *,
    local_dim,
    model_dim,
    num_encoder_layers,
    dim_feedforward,
    binarized,
    normalize_before,
    nhead=None,
    activation=None,
):
    """Name -> shape of every tensor in a published checkpoint of these arguments."""

    def linear(name, rows, columns):
        return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}

    def norm(name):
        return {f"{name}.weight": (model_dim,), f"{name}.bias": (model_dim,)}

    found = {"mtc_token": (model_dim,)} | linear("classifier", 1, model_dim)
    if binarized:
        found["remap_local.0.W"] = (local_dim, model_dim)
        found |= linear("remap_local.1", model_dim, model_dim) | norm("remap_local.2")
    else:
        found |= linear("remap_local.0", model_dim, local_dim) | norm("remap_local.1")
    for layer in (f"decoder.layers.{i}" for i in range(num_encoder_layers)):
        for attention in (f"{layer}.self_attn", f"{layer}.cross_attn"):
            found[f"{attention}.in_proj_weight"] = (3 * model_dim, model_dim)
            found[f"{attention}.in_proj_bias"] = (3 * model_dim,)
            found |= linear(f"{attention}.out_proj", model_dim, model_dim)
        found |= linear(f"{layer}.linear1", dim_feedforward, model_dim)
        found |= linear(f"{layer}.linear2", model_dim, dim_feedforward)
        found |= norm(f"{layer}.norm1") | norm(f"{layer}.norm2") | norm(f"{layer}.norm3")
    return found | (norm("decoder.norm") if normalize_before else {})


def state(wanted, seed):
    """Name -> float32 tensor for the given shapes."""
    made = {}
    for i, name in enumerate(sorted(wanted)):
        shape = wanted[name]
        drawn = np.random.default_rng([seed, i]).standard_normal(shape or (1,)).astype(np.float32)
        if name.endswith("weight") and len(shape) == 1:  # of a LayerNorm
            drawn = 1 + np.float32(0.1) * drawn
        elif name.endswith("bias"):
            drawn = np.float32(0.1) * drawn
        elif name == "mtc_token":
            drawn = np.float32(0.5) * drawn
        else:
            inputs = drawn.shape[0 if name.endswith(".W") else -1]
            drawn = drawn * np.float32(1.5 / math.sqrt(inputs))
        made[name] = torch.from_numpy(drawn).reshape(shape)
    return made


def descriptors(shape, seed):
    return torch.from_numpy(np.random.default_rng([seed, 77]).standard_normal(shape).astype(np.float32))


def valid(batch, count, seed):
    """bool [batch, count], True = real: image b keeps its first n_b >= 1 descriptors."""
    kept = np.random.default_rng([seed, 78]).integers(1, count + 1, size=batch)
    return torch.from_numpy(np.arange(count) < kept[:, None])


def related(batch, queries, database, width, seed):
    """Descriptors of two images; half of the second's are noisy copies of the first's."""
    first = descriptors((batch, queries, width), seed)
    second = descriptors((batch, database, width), seed + 1)
    copies = min(queries, database) // 2
    second[:, :copies] = first[:, :copies] + 0.3 * second[:, :copies]
    return first, second
