"""Classes of embedders by name."""

from __future__ import annotations

import importlib

from ames.embedders.base import Embedder
from ames.errors import AmesError

# Name in checkpoints -> its module; imported when it is asked for.
CLASSES = {
    "GlobalNetwork": "ames.embedders.network",
    "Mixer": "ames.embedders.mixer",
    "Mlp": "ames.embedders.fusion",
    "AttentiveSum": "ames.embedders.fusion",
    "Orthogonal": "ames.embedders.fusion",
    "Concatenation": "ames.embedders.fusion",
}


def embedder_class(name: object, *, source: str) -> type[Embedder]:
    """Return the class of this name; AmesError for a name that is none."""
    if not isinstance(name, str) or name not in CLASSES:
        raise AmesError(f"{source}: an embedder of class {name!r}, which is none of {', '.join(CLASSES)}")
    return getattr(importlib.import_module(CLASSES[name]), name)
