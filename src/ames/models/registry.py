"""Models by the name of their class, which checkpoints hold: a new model is a file and a line here."""

from __future__ import annotations

import importlib

from ames.errors import AmesError
from ames.models.base import Similarity

MODELS = {"AMES": "ames.models.ames", "Chamfer": "ames.models.chamfer"}


def model_class(name: object, *, source: str = "model") -> type[Similarity]:
    """Return the class of this name; AmesError lists the known ones."""
    if not isinstance(name, str) or name not in MODELS:
        raise AmesError(f"{source}: class {name!r} is none of {', '.join(MODELS)}")
    found: type[Similarity] = getattr(importlib.import_module(MODELS[name]), name)
    return found
