"""YAML files that are no group of Hydra's, read and checked: one line names a wrong key and the nearest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ames.errors import AmesError, unknown
from ames.io.yaml_files import load_yaml


def read_yaml(path: Path, known: Collection[str]) -> dict[str, Any]:
    """Return the content of a file with keys among ``known``; AmesError for anything else."""
    return check_keys(path, "the file", load_yaml(path), known)


def check_keys(path: Path, what: str, values: Any, known: Collection[str]) -> dict[str, Any]:
    """Return a part of a file; AmesError where it has no keys, or one that is not ``known``."""
    if not isinstance(values, Mapping):
        raise AmesError(f"{path}: {what} has no keys; expected {', '.join(sorted(known))}")
    wrong = [str(key) for key in values if key not in known]
    if wrong:
        raise AmesError(f"{path}: {unknown(f'key of {what},', wrong[0], sorted(known))}")
    return dict(values)


def as_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with tuples in place of lists."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
