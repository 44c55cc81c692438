"""YAML files that are no group of Hydra's, read and checked: one line names a wrong key and the nearest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from ames.errors import AmesError, first_line, unknown

SUFFIXES = (".yaml", ".yml")


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML's own reader would keep the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for place, key in enumerate(keys) if key in keys[:place] and key != "<<"), None)
        if twice is not None:
            line = node.start_mark.line + 1
            raise ValueError(f"the key {twice!r} stands twice below line {line}")
        return super().construct_mapping(node, deep)


def load_yaml(path: Path) -> Any:
    """Return the content of a file. AmesError where it cannot be read, is not YAML, or has a key twice."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise AmesError(f"{path}: cannot be read ({error.strerror or error})") from error
    except RecursionError as error:
        raise AmesError(f"{path}: not YAML (nested too deeply)") from error
    except (yaml.YAMLError, ValueError, TypeError) as error:  # not UTF-8, a date or a key that is none
        raise AmesError(f"{path}: not YAML ({first_line(error)})") from error


def read_yaml(path: Path, known: Collection[str]) -> dict[str, Any]:
    """Return the content of a file with keys among ``known``; AmesError for anything else."""
    return check_keys(path, "the file", load_yaml(path), known)


def names_in(folder: Path) -> list[str]:
    """Return the names of the files of a folder of conf/."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def named_file(folder: Path, name: str | Path, what: str) -> Path:
    """Return the path of a file of a folder of conf/ by its name, or of another file by its path, FILE.yaml.

    AmesError for a name that does not exist names the nearest ones.
    """
    if not isinstance(name, (str, Path)):
        raise AmesError(f"{what} is a {type(name).__name__}: give a name, or the path of a file")
    if Path(name).suffix in SUFFIXES:
        return Path(name)
    known = names_in(folder)
    if str(name) not in known:
        hint = "a file is given by its path, FILE.yaml"
        raise AmesError(unknown(what, str(name), known, hint=hint))
    return folder / f"{name}.yaml"


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
