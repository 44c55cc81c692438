"""Weights and inputs behind the golden figures of the released LOCORE code, rebuilt from seeds.

locore.json: fp32, CPU, dropout 0. Tensors are drawn as in ``rebuild``; scales from the stream [seed, 79],
similarities of shortlists from [seed, 82]. In every second candidate half of the descriptors are noisy copies
of the query's.
"""

import numpy as np
import torch

from golden import rebuild

ENCODER = "language_model.longformer."


def arguments(case):
    """Constructor arguments of the model of a case."""
    same = ("local_dim", "global_dim", "hidden", "intermediate", "local_count", "attention_window")
    same += ("max_position_embeddings", "layer_norm_eps")
    found = {name: case[name] for name in same} | {"num_layers": case["layers"], "nhead": case["heads"]}
    return found | {"bottleneck": case.get("bottleneck"), "window": case.get("window", case["candidates"])}


def shapes(case):
    """Name -> shape of every tensor of a published file of this case."""
    h, encoder = case["hidden"], ENCODER

    def linear(name, rows, columns):
        return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}

    def norm(name):
        return {f"{name}.weight": (h,), f"{name}.bias": (h,)}

    found = {f"{encoder}{name}_embedding": (h,) for name in ("sep", "pad")} | {"scale_encoder.weight": (3, h)}
    found |= linear("language_model.classifier", 2, h) | norm(f"{encoder}embeddings.LayerNorm")
    found[f"{encoder}embeddings.token_type_embeddings.weight"] = (1, h)
    found[f"{encoder}embeddings.position_embeddings.weight"] = (case["max_position_embeddings"], h)
    for layer in (f"{encoder}encoder.layer.{i}" for i in range(case["layers"])):
        for name in ("query", "key", "value"):
            for kind in ("", "_global"):
                found |= linear(f"{layer}.attention.self.{name}{kind}", h, h)
        found |= linear(f"{layer}.attention.output.dense", h, h)
        found |= linear(f"{layer}.intermediate.dense", case["intermediate"], h)
        found |= linear(f"{layer}.output.dense", h, case["intermediate"])
        found |= norm(f"{layer}.attention.output.LayerNorm") | norm(f"{layer}.output.LayerNorm")
    for name, width in (("local_to_lm", case["local_dim"]), ("global_to_lm", case["global_dim"])):
        narrow = case.get("bottleneck")
        if width and narrow:
            found |= linear(f"{name}.0", narrow, width) | linear(f"{name}.1", h, narrow)
        elif width and width != h:
            found |= linear(name, h, width)
    return found


def state(case):
    """Name -> float32 tensor of a published file of this case."""
    wanted = shapes(case)
    made = rebuild.state(wanted, case["seed"])
    for i, name in enumerate(sorted(wanted)):
        if name.endswith("_embedding"):  # scaled as a row of a matrix
            drawn = np.random.default_rng([case["seed"], i]).standard_normal(wanted[name])
            scale = np.float32(1.5 / np.sqrt(case["hidden"]))
            made[name] = torch.from_numpy(drawn.astype(np.float32) * scale)
    return made


def inputs(case):
    """Arguments of the published ``forward``."""
    B, K, L, seed = (case[name] for name in ("batch", "candidates", "local_count", "seed"))
    query = rebuild.descriptors((B, L, case["local_dim"]), seed)
    candidates = rebuild.descriptors((B, K, L, case["local_dim"]), seed + 1)
    copied = candidates[:, ::2, : L // 2]
    copied[:] = query[:, None, : L // 2] + np.float32(0.3) * copied
    found = {"locals_": (query, candidates)}
    if case["masks"]:
        valid = rebuild.valid(B, L, seed), rebuild.valid(B * K, L, seed + 1).view(B, K, L)
        found["masks"] = ~valid[0], ~valid[1]
    if case["scales"]:
        found["scales"] = _scales((B, L), seed), _scales((B, K, L), seed + 1)
    if case["global_dim"] is not None:
        G = case["global_dim"]
        drawn = rebuild.descriptors((B, 1, G), seed + 2), rebuild.descriptors((B, K, 1, G), seed + 3)
        found["globals_"] = drawn[0][:, 0], drawn[1][:, :, 0]
    return found


def similarities(case):
    """float32 [batch, candidates], falling."""
    shape = case["batch"], case["candidates"]
    drawn = np.random.default_rng([case["seed"], 82]).random(shape).astype(np.float32)
    return -np.sort(-drawn, axis=1)


def _scales(shape, seed):
    return torch.from_numpy(np.random.default_rng([seed, 79]).integers(0, 3, shape))
