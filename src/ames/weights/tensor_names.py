"""Names of tensors: without the prefixes that training programs add, and beside those that a model has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from torch import Tensor

from ames.errors import AmesError

# DataParallel's and DistributedDataParallel's, torch.compile's, Lightning's, MoCo's.
PREFIXES = ("module.", "_orig_mod.", "model.", "encoder_q.")
_COMPILED = re.compile(r"(?:^|(?<=\.))_orig_mod\.")  # torch.compile's stands before any part of a model
_COUNT = "n_averaged"  # what torch's AveragedModel has beside the model

T = TypeVar("T")


def plain_names(state: Mapping[str, T], *, source: str) -> tuple[dict[str, T], tuple[str, ...]]:
    """Return the tensors without the prefixes that all of them have, and those prefixes, outermost first.

    AmesError where two tensors would then have one name.
    """
    taken: list[str] = []
    names = {name: _COMPILED.sub("", name) for name in state}
    _check_one_each(names, source)
    if any(old != new for old, new in names.items()):
        taken.append("_orig_mod.")
    wrapped = {name for name in names if name != _COUNT}
    if len(wrapped) < len(names) and all(names[name].startswith("module.") for name in wrapped):
        del names[_COUNT]
    while found := next((p for p in PREFIXES if _all_begin(names, p)), None):
        names = {old: new.removeprefix(found) for old, new in names.items()}
        taken.append(found)
    written = {new: old for old, new in names.items()}
    for prefix in PREFIXES:
        for new, old in written.items():
            if new.startswith(prefix) and new.removeprefix(prefix) in written:
                raise _clash(written[new.removeprefix(prefix)], old, source)
    return {new: state[old] for old, new in names.items()}, tuple(taken)


def own_tensors(state: Mapping[str, T], part: str) -> tuple[dict[str, T], int]:
    """Return the tensors whose names begin with ``part``, without it, and the number of all others; without
    any such name (or with ``part`` ""), all tensors and 0.
    """
    own = {name.removeprefix(part): x for name, x in state.items() if name.startswith(part)}
    return (own, len(state) - len(own)) if own else (dict(state), 0)


def count_layers(names: Iterable[str], stack: str) -> int:
    """Return how many layers ``stack`` has, whose tensors are named STACK.NUMBER.…; 0 without any."""
    found = (re.match(rf"{re.escape(stack)}\.(\d+)\.", name) for name in names)
    return max((1 + int(layer[1]) for layer in found if layer), default=0)


def check_shapes(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    source: str,
    complaint: str = "weights of another model",
) -> None:
    """AmesError, "SOURCE: COMPLAINT: ...", names the first tensor that is missing, misshapen or extra."""
    for name, shape in wanted.items():
        if name not in state:
            raise AmesError(f"{source}: {complaint}: it lacks {name} {shape}")
        found = tuple(state[name].shape)
        if found != shape:
            raise AmesError(f"{source}: {complaint}: {name} is {found}, this model's is {shape}")
    for name, x in state.items():
        if name not in wanted:
            raise AmesError(f"{source}: {complaint}: {name} {tuple(x.shape)} has no place in this one")


def _all_begin(names: Mapping[str, str], prefix: str) -> bool:
    return bool(names) and all(x.startswith(prefix) and x != prefix for x in names.values())


def _check_one_each(names: Mapping[str, str], source: str) -> None:
    first: dict[str, str] = {}
    for old, new in names.items():
        if new in first:
            raise _clash(first[new], old, source)
        first[new] = old


def _clash(one: str, other: str, source: str) -> AmesError:
    return AmesError(f"{source}: holds both {one} and {other}: write a file of the model's own tensors alone")
