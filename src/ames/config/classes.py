"""Class-labelled data sets as conf/classes describes them: published sizes and protocols."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ames.config.launch import CONF
from ames.datasets.classes.class_set import SPLITS
from ames.errors import AmesError, unknown
from ames.evaluation.class_protocol import ClassProtocol
from ames.io.yaml_files import as_tuples, check_keys, read_yaml

FOLDER = Path(CONF) / "classes"
_KEYS = {"reader", "published", "protocol"}
_PROTOCOL = {"recall_at", "average_precision", "cutoff", "skip_self", "transform"}


@dataclass(frozen=True)
class ClassDescription:
    """A file of conf/classes. reader: the kind that it describes, None: of no published set.

    published: split -> (images, classes). protocol: None for a set that is for training alone.
    """

    reader: str | None
    published: dict[str, tuple[int, int]] = field(default_factory=dict)
    protocol: ClassProtocol | None = None


def published_sizes(kind: str) -> dict[str, tuple[int, int]]:
    """Return the published (images, classes) of the splits of a kind; none for own labels."""
    path = FOLDER / f"{kind}.yaml"
    return read_description(path).published if path.is_file() else {}


def class_protocol(name: str) -> ClassProtocol:
    """Return the protocol of a file of conf/classes, or of another file, NAME.yaml.

    AmesError for an unknown name, and for a file that has none.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if path.parent == FOLDER and not path.is_file():
        raise AmesError(unknown("protocol", name, _names(), hint="a file is given by its path, FILE.yaml"))
    protocol = read_description(path).protocol
    if protocol is None:
        raise AmesError(f"{path}: describes a data set for training alone, without a protocol")
    return protocol


def read_description(path: Path) -> ClassDescription:
    """Read a file; AmesError for keys and values that are not those of conf/classes/own.yaml."""
    found = read_yaml(path, _KEYS)
    reader, protocol = found.get("reader"), found.get("protocol")
    if reader is not None and not isinstance(reader, str):
        raise AmesError(f"{path}: reader is {reader!r}: give a kind of data set, or null")
    sizes = _sizes(path, found.get("published") or {})
    return ClassDescription(reader, sizes, None if protocol is None else _protocol(path, protocol))


def _protocol(path: Path, values: Any) -> ClassProtocol:
    check_keys(path, "protocol", values, _PROTOCOL)
    try:
        return ClassProtocol(path.stem, **as_tuples(values))
    except AmesError as error:
        raise AmesError(f"{path}: {error}") from error


def _sizes(path: Path, values: Any) -> dict[str, tuple[int, int]]:
    check_keys(path, "published", values, set(SPLITS))
    for split, pair in values.items():
        whole = isinstance(pair, list) and all(type(number) is int and number > 0 for number in pair)
        if not whole or len(pair) != 2:
            raise AmesError(f"{path}: published {split} is {pair!r}: give [IMAGES, CLASSES]")
    return {split: (pair[0], pair[1]) for split, pair in values.items()}


def _names() -> list[str]:
    """Names of the protocols of conf/classes."""
    return [
        path.stem for path in sorted(FOLDER.glob("*.yaml")) if read_description(path).protocol is not None
    ]
