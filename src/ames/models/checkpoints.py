"""Models on disk: weights, the name of the model's class and its constructor's arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ames.errors import AmesError, first_line
from ames.models.base import Similarity
from ames.models.registry import model_class
from ames.weights.files import Weights, load_state, read_weights, save_content, save_state

S = TypeVar("S", bound=Similarity)
_DEFAULT = "AMES"  # of files that do not name their class: the published ones and the shipped ones


def describe_model(model: Similarity) -> dict[str, Any]:
    """Return what a file says of its model: ``class`` and ``model``, the arguments that rebuild it."""
    return {"class": type(model).__name__, "model": model.arguments}


def save_checkpoint(
    path: Path | str,
    model: Similarity,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    epoch: int = 0,
    provenance: Mapping[str, object] | None = None,
) -> None:
    """Write a training checkpoint {'state', 'optim', 'epoch', 'about'}, published keys first; atomic."""
    optim = {} if optimizer is None else optimizer.state_dict()
    content = {"state": model.state_dict(), "optim": optim, "epoch": epoch}
    save_content(path, content, describe_model(model) | dict(provenance or {}))


def save_weights(
    path: Path | str, model: Similarity, *, half: bool = False, provenance: Mapping[str, object] | None = None
) -> None:
    """Write weights alone as safetensors; ``half``: matrices as fp16 (half the size)."""
    state = {name: x.half() if half and x.ndim == 2 else x for name, x in model.state_dict().items()}
    save_state(path, state, describe_model(model) | dict(provenance or {}))


def load_model(path: Path | str, **overrides: Any) -> Any:
    """Return the model that the file describes, in evaluation mode; ``overrides`` are constructor arguments.

    A file without a description (a published checkpoint) is AMES. Its arguments follow from the tensors,
    except nhead, activation and init, which are the paper's unless given. AmesError names an override that
    contradicts the file.
    """
    return build_from_weights(read_weights(path), source=str(path), **overrides)


def build_from_weights(weights: Weights, *, source: str, **overrides: Any) -> Any:
    """As ``load_model``, from what ``read_weights`` returned."""
    kind = model_class(weights.about.get("class", _DEFAULT), source=source)
    known = weights.about.get("model") or read_arguments(weights.state, source=source)
    if not isinstance(known, dict):
        raise AmesError(f"{source}: describes a model that cannot be built (its arguments are no object)")
    for name, value in overrides.items():
        if name in known and value != known[name]:
            other = f"its {name} is {known[name]!r}, not {value!r}"
            raise AmesError(f"{source}: weights of another model: {other}")
    try:
        model = kind(**known | overrides)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AmesError(f"{source}: describes a model that cannot be built ({first_line(error)})") from error
    load_state(model, weights.state, source=source)
    return model.eval()


def read_arguments(state: Mapping[str, Tensor], *, source: str = "the state") -> dict[str, Any]:
    """Infer constructor arguments of AMES from names and shapes, except nhead, activation and init.

    AmesError names the first tensor without which this is no AMES.
    """
    binarized = "remap_local.0.W" in state
    first = "remap_local.0.W" if binarized else "remap_local.0.weight"
    feed_forward = "decoder.layers.0.linear1.weight"
    for name, axes in (("mtc_token", 1), (first, 2), (feed_forward, 2)):
        if name not in state:
            raise AmesError(f"{source}: no weights of AMES: it lacks {name}")
        if state[name].ndim != axes:
            raise AmesError(f"{source}: no weights of AMES: {name} is {tuple(state[name].shape)}")
    layers = [re.match(r"decoder\.layers\.(\d+)\.", name) for name in state]
    return {
        "local_dim": state[first].shape[0 if binarized else 1],
        "model_dim": state["mtc_token"].shape[0],
        "num_encoder_layers": 1 + max(int(found[1]) for found in layers if found),
        "dim_feedforward": state[feed_forward].shape[0],
        "normalize_before": "decoder.norm.weight" in state,
        "binarized": binarized,
    }
