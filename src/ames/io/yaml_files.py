"""YAML files by name or by path, such as those of conf/bench; every damage is an error of one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ames.errors import AmesError, first_line, unknown

_ENDINGS = (".yaml", ".yml")


def yaml_names(folder: Path) -> list[str]:
    """Return the names of a folder's files."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def find_yaml(folder: Path, name_or_path: str | Path, what: str) -> Path:
    """Return the path of a folder's file by its name, or of any file by its path, FILE.yaml.

    AmesError for a name that the folder does not have; what: the kind of file, for the message.
    """
    if Path(name_or_path).suffix in _ENDINGS:
        return Path(name_or_path)
    path = folder / f"{name_or_path}.yaml"
    if not path.is_file():
        hint = "a file is given by its path, FILE.yaml"
        raise AmesError(unknown(what, str(name_or_path), yaml_names(folder), hint=hint))
    return path


def load_yaml(path: Path) -> Any:
    """Return the content of a file; AmesError where it cannot be read, or is not YAML."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AmesError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that is none
        raise AmesError(f"{path}: not YAML ({first_line(error)})") from error
