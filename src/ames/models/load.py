"""Models by name or by file, new or with their weights. A model of the table needs torch alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ames.errors import AmesError, first_line, unknown
from ames.models.base import Similarity
from ames.models.registry import MODELS, SHIPPED, ModelEntry, model_class, model_entry
from ames.weights import shipped_path
from ames.weights.released import fetch, given
from ames.weights.tensor_names import check_shapes, own_tensors, plain_names

FILES = (".pt", ".pth", ".safetensors")
# Names of published descriptor files (ELViS), which do not tell the size of the backbone.
_PUBLISHED = {"dinov3": "dinov3-l", "siglip2": "siglip2-so400m"}


class Loaded(NamedTuple):
    """A model with its weights, the name it goes by, and what is known of it: ``backbone`` and ``blend``
    (``lamb``, ``temp``) where they are; ``entry``: its row in the table, None for a file.
    """

    model: Similarity
    name: str
    about: Mapping[str, Any]
    entry: ModelEntry | None


def build_model(name: str) -> Similarity:
    """Return the structure of a model of the table with new weights, in evaluation mode."""
    entry = model_entry(name)
    return model_class(entry.kind)(**entry.arguments).eval()


def load_model(name_or_path: str | Path, *, folder: Path | str | None = None) -> Similarity:
    """Return a model with its weights, in evaluation mode: by name (``list_models``), or a checkpoint's.

    folder: of downloaded weights (None: torch hub's cache); what exists there is not downloaded again.
    AmesError for an unknown name names the nearest ones.
    """
    return load(name_or_path, folder=folder).model


def load(
    name_or_path: str | Path, *, folder: Path | str | None = None, backbone: str | None = None
) -> Loaded:
    """As ``load_model``, with what is known of the model.

    backbone: AmesError if the model is known to have been trained on another one's descriptors (None: any).
    """
    if not isinstance(name_or_path, (str, Path)):
        raise AmesError(f"model is a {type(name_or_path).__name__}: give a name or the path of a checkpoint")
    if str(name_or_path) in MODELS:
        name = str(name_or_path)
        entry = MODELS[name]
        about = {"backbone": entry.backbone, "blend": entry.fusion}
        _check_backbone(name, entry.backbone, backbone)
        return Loaded(_weighted(name, entry, folder), name, about, entry)
    path = Path(name_or_path)
    if not path.exists() and path.suffix not in FILES:
        hint = "a checkpoint is given by its path"
        raise AmesError(unknown("model", str(name_or_path), MODELS, hint=hint))
    from ames.models.checkpoints import build_from_weights, read_weights  # needs safetensors

    weights = read_weights(path)
    _check_backbone(str(path), weights.about.get("backbone"), backbone)
    return Loaded(build_from_weights(weights, source=str(path)), path.name, weights.about, None)


def _check_backbone(source: str, trained_on: str | None, wanted: str | None) -> None:
    if trained_on is not None and wanted is not None and _PUBLISHED.get(wanted, wanted) != trained_on:
        raise AmesError(f"{source}: trained on {trained_on} descriptors, not on {wanted}")


def _weighted(name: str, entry: ModelEntry, folder: Path | str | None) -> Similarity:
    if entry.weights is None:
        return build_model(name)
    if entry.weights == SHIPPED:
        from ames.models.checkpoints import load_model  # needs safetensors

        return load_model(shipped_path(name))
    if entry.home is None:
        path = fetch(entry.weights, folder)
    else:
        path = given(entry.weights, folder, home=entry.home, name=name)
    model = build_model(name)
    state, _ = own_tensors(_state(path, name), model.part)
    wanted = {key: tuple(x.shape) for key, x in model.state_dict().items()}
    check_shapes(state, wanted, source=str(path), complaint=f"not the weights of {name}")
    model.load_state_dict(state)
    return model


def _state(path: Path, name: str) -> dict[str, Tensor]:
    """Return the tensors of a released file; one that is no safetensors needs torch alone."""
    if path.suffix == ".safetensors":
        from ames.weights.files import read_weights  # needs safetensors

        return read_weights(path).state
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return plain_names(content.get("state", content), source=str(path))[0]
    except Exception as error:  # a file that is no checkpoint can stop the unpickler in any way
        raise AmesError(f"{path}: not the weights of {name} ({first_line(error)})") from error
