"""The weights that ship with the library, trained on generated pictures alone.

``scripts/train_shipped.py`` makes them; ``<backbone>_training.json`` beside them is its log.
``photographs.csv`` names the authors of the photographs that the pictures were made of.
"""

from __future__ import annotations

from pathlib import Path

ROOTSIFT_GLOBAL = "rootsift_global"


def shipped_path(name: str) -> Path:
    """Return the file of shipped weights."""
    return Path(__file__).parent / f"{name}.safetensors"
