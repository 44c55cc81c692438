"""The weights that ship with the library, all for RootSIFT and trained on generated landmarks alone.

``scripts/train_rootsift.py`` makes them; ``training.json`` beside them is its log.
"""

from __future__ import annotations

from pathlib import Path

ROOTSIFT_GLOBAL = "rootsift_global"
SHIPPED = ("rootsift_ames", "rootsift_ames_dist", ROOTSIFT_GLOBAL)


def path_of(name: str) -> Path:
    """The file of one of the shipped weights."""
    return Path(__file__).parent / f"{name}.safetensors"
