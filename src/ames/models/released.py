"""Released and shipped models by name, with new weights or with their own. Building one needs torch alone."""

from __future__ import annotations

from pathlib import Path

import torch

from ames.errors import AmesError, first_line
from ames.models.ames import AMES
from ames.weights import MODELS, shipped_path
from ames.weights.released import RELEASED, fetch
from ames.weights.tensor_names import plain_names


def build(name: str) -> AMES:
    """Return the structure of a released or shipped model with new weights, in evaluation mode."""
    known = {key: item.arguments for key, item in RELEASED.items()} | MODELS
    if name not in known:
        raise AmesError(f"released model {name!r} is none of {', '.join(known)}")
    return AMES(**known[name]).eval()


def load(name: str, *, folder: Path | str | None = None) -> AMES:
    """Return a shipped or released model with its weights.

    A released file is downloaded to ``folder`` (None: torch hub's cache) unless it exists there.
    """
    model = build(name)
    if name in MODELS:
        from ames.models.checkpoints import load_model  # needs safetensors

        return load_model(shipped_path(name))
    path = fetch(RELEASED[name].path, folder)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(plain_names(content["state"], source=str(path))[0])
    except Exception as error:  # a file that is no checkpoint can stop the unpickler in any way
        raise AmesError(f"{path}: not the weights of {name} ({first_line(error)})") from error
    return model
