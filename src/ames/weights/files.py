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
from ames.io.atomic import atomic_path
from ames.io.claims import check_zip, parsed
from ames.weights.tensor_names import check_shapes, plain_names

# What optimizer states of published files may hold beside tensors: numpy's numbers, under both of its names.
_SCALARS: list[Any] = [
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("_core", "core")),
    np.dtype,
    *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"},
]

# Under what a file holds its state dict: ours and the released ones, pycls' and so CVNet's, others' habits,
# DISK's, and those of DINO's training codes.
_WRAPPERS = ("state", "model_state", "state_dict", "model_state_dict", "extractor", "teacher", "student")

log = logging.getLogger(__name__)


class Weights(NamedTuple):
    """A state dict and what the file says of it: ``model`` (constructor arguments), ``backbone``, ..."""

    state: dict[str, Tensor]
    about: dict[str, Any]


def save_content(path: Path | str, content: Mapping[str, object], about: Mapping[str, object]) -> None:
    """Write a .pt file: ``content``, whose 'state' is a state dict, and its description; atomic."""
    with _writing(path) as temporary:
        torch.save(dict(content) | {"about": json.dumps(dict(about))}, temporary)


def save_state(path: Path | str, state: Mapping[str, Tensor], about: Mapping[str, object]) -> None:
    """Write tensors as safetensors, with their description; atomic."""
    tensors = {name: x.contiguous() for name, x in state.items()}
    with _writing(path) as temporary:
        save_file(tensors, temporary, {"about": json.dumps(dict(about))})


def weights_for(backbone: str | None, path: Path | str) -> Weights:
    """As ``read_weights``; AmesError if the file says that it was trained on another backbone (None: any)."""
    weights = read_weights(path)
    found = weights.about.get("backbone")
    if found is not None and backbone not in (None, found):
        raise AmesError(f"{path}: trained on {found} descriptors, not on {backbone}")
    return weights


def read_weights(path: Path | str) -> Weights:
    """Read the state dict of a checkpoint (.pt) or a safetensors file as float32, on the CPU.

    Prefixes that training programs add to all names (``ames.weights.tensor_names``) are removed, which is
    logged once.
    """
    return with_plain_names(read_as_written(path), path)


def with_plain_names(weights: Weights, path: Path | str) -> Weights:
    """Remove the prefixes from weights of ``read_as_written``."""
    state, taken = plain_names(weights.state, source=str(path))
    if taken:
        _say_taken(str(path), taken)
    return weights._replace(state=state)


@functools.cache
def _say_taken(path: str, prefixes: tuple[str, ...]) -> None:
    log.warning("%s: names of tensors are read without %s", path, " and ".join(prefixes))


@functools.cache
def _say_teacher(path: str) -> None:
    log.warning("%s: holds a teacher and a student: the teacher is read", path)


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
        wrapped = [key for key in _WRAPPERS if key in content]
        state = content[wrapped[0]] if wrapped else content
        if wrapped[:2] == ["teacher", "student"]:
            _say_teacher(str(path))
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


def load_state(model: torch.nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Load strictly; AmesError names the first tensor that does not fit."""
    check_shapes(state, {name: tuple(x.shape) for name, x in model.state_dict().items()}, source=source)
    model.load_state_dict(state)


@contextmanager
def _writing(path: Path | str) -> Iterator[Path]:
    """As ``atomic_path``; on a full disk torch and safetensors raise no OSError."""
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
            with path.open("rb") as file:
                is_zip = file.read(2) == b"PK"  # not the form of torch before 1.6
            if is_zip:
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


def _description(path: Path, about: object) -> dict[str, Any]:
    """Parse a file's description, JSON text."""
    try:
        description = parsed(about) if isinstance(about, str) else None
    except ValueError:
        description = None
    if not isinstance(description, dict):
        raise AmesError(
            f"{path}: what it says of itself ('about') is not a JSON object: write the file again"
        )
    return description
