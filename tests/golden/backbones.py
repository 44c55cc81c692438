"""Weights and inputs behind the golden figures of the released backbones and detector, rebuilt from seeds.

Tensor i of the sorted names is drawn from the stream [seed, i], an image from [seed, height, width].
"""

import json
import math
from pathlib import Path

import numpy as np
import torch

FIGURES = json.loads((Path(__file__).parent / "backbones.json").read_text())

_TOKENS = ("cls_token", "pos_embed", "register_tokens", "mask_token")


def layer(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def norm(name, width):
    found = layer(name, width) | {f"{name}.{part}": (width,) for part in ("running_mean", "running_var")}
    return found | {f"{name}.num_batches_tracked": ()}


def dinov2(width=48, layers=2, patch=14, positions=26, registers=4):
    """The released names and shapes of DINOv2 with registers."""
    found = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, positions, width),
        "register_tokens": (1, registers, width),
        "mask_token": (1, width),
    }
    found |= layer("patch_embed.proj", width, 3, patch, patch) | layer("norm", width)
    for block in (f"blocks.{i}" for i in range(layers)):
        found |= layer(f"{block}.norm1", width) | layer(f"{block}.norm2", width)
        found |= layer(f"{block}.attn.qkv", 3 * width, width) | layer(f"{block}.attn.proj", width, width)
        found |= layer(f"{block}.mlp.fc1", 4 * width, width) | layer(f"{block}.mlp.fc2", width, 4 * width)
        found |= {f"{block}.ls1.gamma": (width,), f"{block}.ls2.gamma": (width,)}
    return found


def cvnet(depths):
    """The released names and shapes of CVNet's global network."""
    found = {"stem.conv.weight": (64, 3, 7, 7)} | norm("stem.bn", 64)
    inputs = 64
    for s, depth in enumerate(depths):
        inner, outputs = 64 << s, 256 << s
        for b in range(depth):
            block = f"s{s + 1}.b{b + 1}"
            if b == 0:
                found |= {f"{block}.proj.weight": (outputs, inputs, 1, 1)} | norm(f"{block}.bn", outputs)
            found |= {f"{block}.f.a.weight": (inner, inputs, 1, 1)} | norm(f"{block}.f.a_bn", inner)
            found |= {f"{block}.f.b.weight": (inner, inner, 3, 3)} | norm(f"{block}.f.b_bn", inner)
            found |= {f"{block}.f.c.weight": (outputs, inner, 1, 1)} | norm(f"{block}.f.c_bn", outputs)
            inputs = outputs
    return found | {"head.pool.p": (1,)} | layer("head.fc", 2048, 2048)


def detector(width=16):
    """The released names and shapes of a feature detector."""
    return layer("conv1", width, width, 1, 1) | norm("bn", width) | layer("conv2", 1, width, 1, 1)


def state(shapes, seed):
    """Name -> tensor for the given shapes."""
    made = {}
    for i, name in enumerate(sorted(shapes)):
        shape = shapes[name]
        drawn = np.random.default_rng([seed, i]).standard_normal(shape).astype(np.float32)
        if name.endswith("num_batches_tracked"):
            drawn = np.zeros(shape, np.int64)
        elif name == "head.pool.p":
            drawn = np.full(shape, 3, np.float32)
        elif name.endswith("running_var"):
            drawn = 1 + np.float32(0.1) * np.abs(drawn)
        elif name.endswith(("running_mean", "bias")):
            drawn = np.float32(0.1) * drawn
        elif name.endswith("gamma"):
            drawn = np.float32(0.5) + np.float32(0.1) * drawn
        elif name in _TOKENS:
            drawn = np.float32(0.5) * drawn
        elif len(shape) == 1:
            drawn = 1 + np.float32(0.1) * drawn
        else:
            drawn = drawn * np.float32(1 / math.sqrt(math.prod(shape[1:])))
        made[name] = torch.from_numpy(np.asarray(drawn))
    return made


def image(seed, height, width, channels=3):
    drawn = np.random.default_rng([seed, height, width]).standard_normal((1, channels, height, width))
    return torch.from_numpy(drawn.astype(np.float32))
