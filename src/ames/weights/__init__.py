"""The weights that ship with the library, all for RootSIFT and trained on generated landmarks alone.

``scripts/train_rootsift.py`` makes them; ``training.json`` beside them is its log.
"""

from __future__ import annotations

from pathlib import Path

ROOTSIFT_GLOBAL = "rootsift_global"


def shipped_path(name: str) -> Path:
    """Return the file of shipped weights."""
    return Path(__file__).parent / f"{name}.safetensors"
