"""Extraction as Hydra configures it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ames.config.values import plain
from ames.errors import AmesError
from ames.extraction.config import ExtractionConfig
from ames.pipelines.extract import extract_images


def extract(config: DictConfig) -> None:
    """Call ``extract_images``: keys are the options of ``ames extract``, but ``shard`` and ``shards`` are two
    numbers, so that a sweep can count. AmesError names a key that is missing or out of bounds.
    """
    values = plain(config)
    missing = [key for key in ("images", "out") if values[key] in (None, "???")]
    if missing:
        raise AmesError(f"{missing[0]} is missing: give {missing[0]}=...")
    values["vector"] = values.pop("global")
    if isinstance(values["scales"], (int, float)):
        values["scales"] = [values["scales"]]
    kinds = {option.name: str(option.type).partition(" ")[0] for option in fields(ExtractionConfig)}
    options = {name: _typed(values[name], kind) for name, kind in kinds.items() if values[name] is not None}
    extract_images(
        ExtractionConfig(**options),
        images=_typed(values["images"], "Path"),
        out=str(values["out"]),
        listed=_typed(values["list"], "Path"),
        boxes=_typed(values["boxes"], "str"),
        shard=f"{values['shard']}/{values['shards']}",
    )


def _typed(value: Any, kind: str) -> Any:
    """Names and paths that YAML read as numbers are text."""
    if value is None or kind not in ("str", "Path"):
        return value
    return Path(str(value)) if kind == "Path" else str(value)
