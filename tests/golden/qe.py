"""Vectors and maps behind qe.json, the figures of query expansion, database augmentation and SuperGlobal.

Drawn from the stream [seed, 77]. alpha_qe, superglobal and pooling were measured on the authors' released
code; dba was derived from its formula.
"""

import json
from pathlib import Path

import numpy as np

CASES = json.loads(Path(__file__).with_suffix(".json").read_text())


def drawn(shape, seed):
    return np.random.default_rng([seed, 77]).standard_normal(shape).astype(np.float32)


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def vectors(case):
    """(queries [Q, G], gallery [n, G]), float32, unit length."""
    seed, width = case["seed"], case["dim"]
    gallery = unit(drawn((case["images"], width), seed) + np.float32(case["shift"]))
    noise = np.float32(case["noise"]) * drawn((case["queries"], width), seed + 1)
    return unit(gallery[: case["queries"]] + noise), gallery


def maps(case):
    """float32 [B, C, h, w], above 0."""
    shape = [case[name] for name in ("batch", "channels", "height", "width")]
    return np.abs(drawn(shape, case["seed"])) * np.float32(0.1)
