"""Models on disk: weights, the name of the model's class and its constructor's arguments."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ames.errors import AmesError, first_line
from ames.models.base import Similarity
from ames.models.registry import CLASSES, model_class
from ames.weights.files import Weights, load_state, read_weights, save_content, save_state
from ames.weights.tensor_names import count_layers, own_tensors

S = TypeVar("S", bound=Similarity)
log = logging.getLogger(__name__)
_DEFAULT = "AMES"  # of files that do not name their class and are not recognized: the shipped ones


class Recognized(NamedTuple):
    """What tensors show: the model's class, the arguments of its constructor, and its own tensors."""

    kind: str
    arguments: dict[str, Any]
    state: dict[str, Tensor]


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

    The tensors of a file without a description (a published checkpoint) show its class (``recognize``) and
    its arguments, except what no tensor shows, such as nhead, activation and init of AMES: these are the
    defaults unless given. AmesError names an override that contradicts the file.
    """
    return build_from_weights(read_weights(path), source=str(path), **overrides)


def build_from_weights(weights: Weights, *, source: str, **overrides: Any) -> Any:
    """As ``load_model``, from what ``read_weights`` returned."""
    kind, known, state = weights.about.get("class"), weights.about.get("model"), weights.state
    if not known:
        found = recognize(state, source=source, kinds=CLASSES if kind is None else (kind,))
        if found is None and "mtc_token" not in state:
            known_kinds = ", ".join(x for x in CLASSES if model_class(x).learned)
            raise AmesError(f"{source}: no weights of a known model ({known_kinds}), or not all of them")
        kind, known, state = found or (kind, read_arguments(state, source=source), state)
    made = model_class(_DEFAULT if kind is None else kind, source=source)
    if not isinstance(known, dict):
        raise AmesError(f"{source}: describes a model that cannot be built (its arguments are no object)")
    for name, value in overrides.items():
        if name in known and value != known[name]:
            other = f"its {name} is {known[name]!r}, not {value!r}"
            raise AmesError(f"{source}: weights of another model: {other}")
    try:
        model = made(**known | overrides)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AmesError(f"{source}: describes a model that cannot be built ({first_line(error)})") from error
    load_state(model, state, source=source)
    return model.eval()


def recognize(
    state: Mapping[str, Tensor], *, source: str = "the state", kinds: Iterable[object] = CLASSES
) -> Recognized | None:
    """Return the class among ``kinds`` whose published files have these tensors (``arguments_of``), or None.

    Where a class is part of a network (``part``), tensors of the rest are left out, which is logged.
    """
    for name in kinds:
        kind = model_class(name, source=source)
        own, left = own_tensors(state, kind.part)
        try:
            arguments = kind.arguments_of(own)
        except (IndexError, TypeError, ValueError):  # known names on tensors of another number of axes
            arguments = None
        if arguments is not None:
            if left:
                log.warning("%s: only its tensors %s* are read, not %d others", source, kind.part, left)
            return Recognized(kind.__name__, arguments, own)
    return None


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
    return {
        "local_dim": state[first].shape[0 if binarized else 1],
        "model_dim": state["mtc_token"].shape[0],
        "num_encoder_layers": count_layers(state, "decoder.layers"),
        "dim_feedforward": state[feed_forward].shape[0],
        "normalize_before": "decoder.norm.weight" in state,
        "binarized": binarized,
    }
