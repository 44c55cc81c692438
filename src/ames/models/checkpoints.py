"""Weights on disk: checkpoints of training and shipped weights, read without executing anything."""

from __future__ import annotations

import functools
import json
import logging
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ames.errors import AmesError, first_line
from ames.io.archives import reading_npz
from ames.io.atomic import atomic_path
from ames.io.claims import check_zip, parsed
from ames.models.ames import AMES
from ames.weights.tensor_names import plain_names

# Arguments of AMES that decide which tensors a checkpoint has.
_STRUCTURE = (
    "local_dim",
    "model_dim",
    "nhead",
    "num_encoder_layers",
    "dim_feedforward",
    "activation",
    "normalize_before",
    "binarized",
)


# What optimizer states of published files may hold beside tensors: numpy's numbers, under both of its names.
_SCALARS: list[Any] = [
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("_core", "core")),
    np.dtype,
    *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"},
]

# Under what a file holds its state dict: ours and the released ones, pycls' and so CVNet's, others' habits.
_WRAPPERS = ("state", "model_state", "state_dict", "model_state_dict")

log = logging.getLogger(__name__)


class Weights(NamedTuple):
    """A state dict and what the file says of it: ``model`` (constructor arguments), ``backbone``, ..."""

    state: dict[str, Tensor]
    about: dict[str, Any]


def save_checkpoint(
    path: Path | str,
    model: AMES,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    epoch: int = 0,
    provenance: Mapping[str, object] | None = None,
) -> None:
    """A training checkpoint {'state', 'optim', 'epoch', 'about'}, published keys first; atomic."""
    optim = {} if optimizer is None else optimizer.state_dict()
    content = {"state": model.state_dict(), "optim": optim, "epoch": epoch}
    save_content(path, content, {"model": arguments(model)} | dict(provenance or {}))


def save_content(path: Path | str, content: Mapping[str, object], about: Mapping[str, object]) -> None:
    """A .pt file: ``content``, of which 'state' is a state dict, and what is to be said of it; atomic."""
    with _writing(path) as temporary:
        torch.save(dict(content) | {"about": json.dumps(dict(about))}, temporary)


def save_weights(
    path: Path | str, model: AMES, *, half: bool = False, provenance: Mapping[str, object] | None = None
) -> None:
    """Weights alone, as safetensors with their arguments; ``half``: matrices as fp16 (half the size)."""
    state = {name: x.half() if half and x.ndim == 2 else x for name, x in model.state_dict().items()}
    save_state(path, state, {"model": arguments(model)} | dict(provenance or {}))


def save_state(path: Path | str, state: Mapping[str, Tensor], about: Mapping[str, object]) -> None:
    """Tensors as safetensors, with what is to be said of them."""
    tensors = {name: x.contiguous() for name, x in state.items()}
    with _writing(path) as temporary:
        save_file(tensors, temporary, {"about": json.dumps(dict(about))})


def weights_for(backbone: str, path: Path | str) -> Weights:
    """As ``read_weights``; AmesError if the file says that another backbone's descriptors trained it."""
    weights = read_weights(path)
    found = weights.about.get("backbone")
    if found not in (None, backbone):
        raise AmesError(f"{path}: trained on {found} descriptors, not on {backbone}")
    return weights


def read_weights(path: Path | str) -> Weights:
    """The state dict of a checkpoint (.pt) or of a safetensors file, float32, on the CPU.

    Prefixes that all names have and no model (``ames.weights.tensor_names``) are taken away, which is logged
    once.
    """
    return with_plain_names(read_as_written(path), path)


def with_plain_names(weights: Weights, path: Path | str) -> Weights:
    """What ``read_weights`` makes of ``read_as_written``."""
    state, taken = plain_names(weights.state, source=str(path))
    if taken:
        _say_taken(str(path), taken)
    return weights._replace(state=state)


@functools.cache
def _say_taken(path: str, prefixes: tuple[str, ...]) -> None:
    log.warning("%s: names of tensors are read without %s", path, " and ".join(prefixes))


def read_as_written(path: Path | str) -> Weights:
    """As ``read_weights``, under the names that the file has."""
    path = Path(path)
    if not path.is_file():
        raise AmesError(f"{path}: no such checkpoint")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                about = (file.metadata() or {}).get("about", "{}")
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except SafetensorError as error:
            raise AmesError(f"{path}: not a readable safetensors file ({first_line(error)})") from error
    else:
        content = _unpickled(path)
        if not isinstance(content, dict):
            raise AmesError(f"{path}: holds a {type(content).__name__}, not a checkpoint")
        wrapped = [content[key] for key in _WRAPPERS if key in content]
        state = wrapped[0] if wrapped else content
        about = content.get("about", "{}")
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(name, str) and isinstance(x, Tensor) for name, x in state.items())
    ):
        raise AmesError(f"{path}: no weights in it (expected a dict of tensors, or one under 'state')")
    length = path.stat().st_size
    for name, x in state.items():
        if x.numel() > length:  # a stride of 0 repeats one value as often as is asked for
            raise AmesError(f"{path}: {name} claims {x.numel()} values, in a file of {length} bytes")
    state = {name: x.float() if x.is_floating_point() else x for name, x in state.items()}
    return Weights(state, _description(path, about))


def load_model(path: Path | str, **overrides: Any) -> AMES:
    """AMES as the file describes itself, in evaluation mode; ``overrides`` are constructor arguments.

    Files without a description (published checkpoints) are read off their tensors; nhead and activation,
    which no tensor shows, are then the paper's unless given. AmesError names an override that contradicts
    the file.
    """
    weights = read_weights(path)
    return model_of(weights, source=str(path), **overrides)


def model_of(weights: Weights, *, source: str, **overrides: Any) -> AMES:
    """As ``load_model``, from what ``read_weights`` returned."""
    seen = arguments_of_state(weights.state, source=source)
    described = {k: v for k, v in weights.about.get("model", {}).items() if k in _STRUCTURE}
    known = described or seen
    for name, value in overrides.items():
        if name in known and value != known[name]:
            raise AmesError(
                f"{source}: weights of another model: its {name} is {known[name]!r}, not {value!r}"
            )
    try:
        model = AMES(**known | overrides)
    except (TypeError, ValueError) as error:
        raise AmesError(f"{source}: describes a model that cannot be built ({first_line(error)})") from error
    load_state(model, weights.state, source=source)
    return model.eval()


def arguments_of_state(state: Mapping[str, Tensor], *, source: str = "the state") -> dict[str, Any]:
    """Constructor arguments of AMES, read off names and shapes; nhead and activation cannot be seen.

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


def read_detector(path: Path | str) -> dict[str, Tensor]:
    """A published feature detector, <backbone>_detector.pt: conv1 -> batch norm -> ReLU -> conv2.

    -> conv1.weight [D, D, 1, 1], conv1.bias, bn.{weight, bias, running_mean, running_var} [D] and
    conv2.weight [1, D, 1, 1], conv2.bias [1], float32. AmesError names what is missing or of another shape.
    """
    state = read_weights(path).state
    name = "conv1.weight"
    D = state[name].shape[0] if name in state and state[name].ndim else 0
    norm = {f"bn.{part}": (D,) for part in ("weight", "bias", "running_mean", "running_var")}
    wanted = (
        {name: (D, D, 1, 1), "conv1.bias": (D,)} | norm | {"conv2.weight": (1, D, 1, 1), "conv2.bias": (1,)}
    )
    for key, shape in wanted.items():
        if key not in state:
            raise AmesError(f"{path}: not a feature detector: it lacks {key}")
        if tuple(state[key].shape) != shape:
            raise AmesError(
                f"{path}: not a feature detector: {key} is {tuple(state[key].shape)}, expected {shape}"
            )
    surplus = sorted(set(state) - set(wanted) - {"bn.num_batches_tracked"})
    if surplus:
        raise AmesError(f"{path}: not a feature detector: {surplus[0]} has no place in it")
    return {key: state[key] for key in wanted}


def read_itq(path: Path | str) -> Tensor:
    """W float32 [D, bits] of a published binary projection, itq_<backbone>_D128.pt ('W') or .npz ('proj')."""
    path = Path(path)
    if path.suffix == ".npz":
        W = _projection(path)
    else:
        found = read_weights(path).state
        if "W" not in found:
            raise AmesError(f"{path}: no ITQ projection: it has no tensor W")
        W = found["W"]
    if W.ndim != 2 or W.shape[1] % 8 or not 0 < W.shape[1] <= W.shape[0]:
        raise AmesError(
            f"{path}: no ITQ projection: W is {tuple(W.shape)}, expected (width, bits), bits a multiple of 8"
        )
    return W


def _projection(path: Path) -> Tensor:
    with reading_npz(path, "a readable .npz file"), np.load(path, allow_pickle=False) as archive:
        if "proj" not in archive:
            raise AmesError(f"{path}: no ITQ projection: it has no array proj")
        found = archive["proj"]
    if found.dtype.kind != "f":
        raise AmesError(f"{path}: no ITQ projection: proj holds {found.dtype}")
    return torch.from_numpy(found.astype(np.float32))


def load_state(model: torch.nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Strict loading; the first name or shape that does not fit is named in the error."""
    check_shapes(state, {name: tuple(x.shape) for name, x in model.state_dict().items()}, source=source)
    model.load_state_dict(state)


def check_shapes(state: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], *, source: str) -> None:
    """AmesError names the first tensor that is missing, of another shape, or more than is wanted."""
    for name, shape in wanted.items():
        if name not in state:
            raise AmesError(f"{source}: weights of another model: it lacks {name} {shape}")
        if tuple(state[name].shape) != shape:
            raise AmesError(
                f"{source}: weights of another model: {name} is {tuple(state[name].shape)}, "
                f"this model's is {shape}"
            )
    for name, x in state.items():
        if name not in wanted:
            raise AmesError(
                f"{source}: weights of another model: {name} {tuple(x.shape)} has no place in this one"
            )


def arguments(model: AMES) -> dict[str, Any]:
    """Constructor arguments that rebuild ``model``."""
    layer = model.decoder.stack[0]
    return {
        "local_dim": model.local_dim,
        "model_dim": model.model_dim,
        "nhead": layer.cross_attn.heads,
        "num_encoder_layers": len(model.decoder.stack),
        "dim_feedforward": layer.linear1.out_features,
        "activation": layer.activation_name,
        "normalize_before": layer.pre_norm,
        "binarized": model.binarized,
    }


@contextmanager
def _writing(path: Path | str) -> Iterator[Path]:
    """As ``atomic_path``; what torch and safetensors raise on a full disk is no OSError."""
    with atomic_path(path) as temporary:
        try:
            yield temporary
        except (RuntimeError, SafetensorError) as error:
            raise AmesError(f"{path}: cannot be written ({first_line(error)})") from error


def _unpickled(path: Path) -> Any:
    """Content of a .pt file: tensors, numbers (numpy's too), text, lists and dicts, and nothing else."""
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_SCALARS):
            warnings.simplefilter("ignore")  # of pickle protocols; the error says what matters
            if _begins(path, b"PK"):  # not the form of torch before 1.6
                check_zip(path)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused is None:
            raise AmesError(f"{path}: not a checkpoint, or a damaged one") from error
        raise AmesError(f"{path}: holds more than weights ({refused[1]}), which is refused") from error
    except Exception as error:  # a file that is no pickle can stop the unpickler in any way
        why = "" if isinstance(error, LookupError) else f" ({first_line(error)})"  # a bare key, such as 101
        raise AmesError(f"{path}: not a checkpoint, or a damaged one{why}") from error


def _begins(path: Path, mark: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(mark)) == mark


def _description(path: Path, about: object) -> dict[str, Any]:
    """What a file says of itself (JSON text)."""
    try:
        description = parsed(about) if isinstance(about, str) else None
    except ValueError:
        description = None
    if not isinstance(description, dict):
        raise AmesError(f"{path}: what it says of itself ('about') is not a JSON object: write the file anew")
    return description
