"""Cascades by name: re-ranking in stages, many candidates cheaply, few exactly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ames.chains.chain import read_step, settings_of
from ames.chains.rerank_step import Rerank
from ames.errors import AmesError, unknown
from ames.io.atomic import atomic_file
from ames.io.package import CONF
from ames.io.yaml_files import find_yaml, load_yaml, yaml_names

FOLDER = CONF / "cascades"
_KEYS = {"descriptors", "stages", "found"}


@dataclass(frozen=True)
class Cascade:
    """Stages that follow a first search, each a ``Rerank`` of at most as many candidates as the one before.

    descriptors: the backbone's name. found: how it was found, for people.
    """

    name: str
    descriptors: str
    stages: tuple[Rerank, ...]
    found: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.stages:
            raise AmesError(f"cascade {self.name}: has no stages")
        counts = [stage.num_rerank for stage in self.stages]
        if counts != sorted(counts, reverse=True):
            raise AmesError(
                f"cascade {self.name}: re-ranks {counts}: no stage may take more than the one before"
            )

    def save(self, path: Path) -> Path:
        """Write it as a file that ``load_cascade`` reads; atomic."""
        stages = [settings_of(stage)[Rerank.name] for stage in self.stages]
        content = {"descriptors": self.descriptors, "stages": stages, "found": dict(self.found)}
        with atomic_file(path) as file:
            file.write(yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())
        return path


def list_cascades() -> list[str]:
    """Return the names of the cascades of conf/cascades."""
    return yaml_names(FOLDER)


def load_cascade(name_or_path: str | Path) -> Cascade:
    """Return a cascade of conf/cascades by its name, or of a file by its path, FILE.yaml.

    AmesError for an unknown name, and for a file of another form.
    """
    path = find_yaml(FOLDER, name_or_path, "cascade")
    return _parsed(path, load_yaml(path))


def _parsed(path: Path, content: Any) -> Cascade:
    if not isinstance(content, Mapping) or not isinstance(content.get("stages"), list):
        raise AmesError(f"{path}: not a cascade: expected descriptors and a list of stages")
    wrong = [str(key) for key in content if key not in _KEYS]
    if wrong:
        raise AmesError(f"{path}: {unknown('key', wrong[0], sorted(_KEYS))}")
    found = content.get("found") or {}
    if not isinstance(content.get("descriptors"), str) or not isinstance(found, Mapping):
        raise AmesError(f"{path}: descriptors is text, and found has keys")
    stages = tuple(_stages(path, content["stages"]))
    try:
        return Cascade(path.stem, content["descriptors"], stages, found)
    except AmesError as error:
        raise AmesError(f"{path}: {error}") from error


def _stages(path: Path, listed: list[Any]) -> Iterator[Rerank]:
    for number, settings in enumerate(listed, 1):
        step = read_step(f"{path}, stage {number}", Rerank, settings)
        assert isinstance(step, Rerank), "the kind that was asked for"
        yield step
