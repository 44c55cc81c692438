"""The weights that ship with the library, all for RootSIFT and trained on generated landmarks alone.

``scripts/train_rootsift.py`` makes them; ``training.json`` beside them is its log.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Constructor arguments that differ from the defaults; a test compares them with conf/model/rootsift.yaml.
ROOTSIFT: dict[str, Any] = {
    "local_dim": 128,
    "num_encoder_layers": 3,
    "dim_feedforward": 256,
    "init": "matching",
}
MODELS = {"rootsift_ames": ROOTSIFT, "rootsift_ames_dist": ROOTSIFT | {"binarized": True}}
ROOTSIFT_GLOBAL = "rootsift_global"
SHIPPED = (*MODELS, ROOTSIFT_GLOBAL)


def shipped_path(name: str) -> Path:
    """Return the file of shipped weights."""
    return Path(__file__).parent / f"{name}.safetensors"
