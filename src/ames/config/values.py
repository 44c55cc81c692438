"""Values of a configuration, checked, as plain Python; each error names the key."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf

from ames.errors import AmesError

T = TypeVar("T")


def plain(config: Any, *, resolve: bool = True) -> Any:
    """Return a sub-tree as plain Python; resolve: with the values that interpolations stand for."""
    return OmegaConf.to_container(config, resolve=resolve)


def whole(config: DictConfig, key: str, *, least: int = 1) -> int:
    """A whole number of the configuration, checked."""
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise AmesError(f"{key} is {value!r}: give a whole number of at least {least}")
    return value


def flag(config: DictConfig, key: str) -> bool:
    """True or false of the configuration, checked: other words, "no" among them, would count as true."""
    value = config[key]
    if not isinstance(value, bool):
        raise AmesError(f"{key} is {value!r}: give true or false")
    return value


def number(config: DictConfig, key: str, *, least: float = 0.0) -> float:
    """A number of the configuration, checked; inf and nan are refused."""
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < float("inf"):
        raise AmesError(f"{key} is {value!r}: give a number of at least {least:g}")
    return float(value)


def several(config: DictConfig, key: str) -> list[Any]:
    """A list of the configuration; a single value is a list of one."""
    value = value_of(config, key)
    return value if isinstance(value, list) else [value]


def value_of(config: DictConfig, key: str) -> Any:
    """What stands under a key, as plain Python; a key that was taken out (``~key``) is OmegaConf's error."""
    value = config[key]
    return plain(value) if OmegaConf.is_config(value) else value


def file_name(dataset: DictConfig, key: str) -> str | None:
    """The name of a file, None where it is the usual one."""
    return None if dataset.get(key) is None else str(dataset[key])


def optional_path(config: DictConfig, key: str) -> Path | None:
    """A path, None where none is given."""
    return None if config.get(key) is None else Path(str(config[key]))


def optional(config: DictConfig, key: str) -> int | None:
    """A whole number of at least 1, or none."""
    return None if config[key] is None else whole(config, key)


def optional_number(config: DictConfig, key: str) -> float | None:
    """A number of at least 0, or none."""
    return None if config[key] is None else number(config, key)


def read_fields(kind: type[T], *trees: DictConfig, **given: Any) -> T:
    """Return the dataclass ``kind``: each field from the key of its name in the first tree that has it.

    Values are checked by the fields' types; ``given`` are taken as they are. Whole numbers whose default is 0
    may be 0, others are at least 1. A key that no tree has is OmegaConf's error.
    """
    types = get_type_hints(kind)
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name not in given:
            tree = next((x for x in trees if field.name in x), trees[0])
            given[field.name] = _typed(tree, field.name, types[field.name], least=int(field.default != 0))
    return kind(**given)


def _typed(tree: DictConfig, key: str, kind: Any, *, least: int) -> Any:
    if kind == tuple[str, ...]:
        return () if tree[key] is None else tuple(map(str, several(tree, key)))
    if type(None) in get_args(kind):
        if tree[key] is None:
            return None
        kind = next(x for x in get_args(kind) if x is not type(None))
    if kind is int:
        return whole(tree, key, least=least)
    if kind is float:
        return number(tree, key)
    return flag(tree, key) if kind is bool else str(tree[key])
