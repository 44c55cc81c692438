"""The options of extraction as configuration: for Hydra's launchers."""

from __future__ import annotations

import argparse
from typing import Any

from omegaconf import DictConfig

from ames.cli.extract import add_options
from ames.cli.options import OneLineParser
from ames.config.values import plain
from ames.errors import AmesError


def arguments(config: DictConfig) -> argparse.Namespace:
    """Those of ``ames.cli.extract.extract_images``.

    Keys are the command's options; ``shard`` and ``shards`` are two numbers here, so that a sweep can count.
    AmesError where one is missing; what the command's parser refuses ends the process.
    """
    values = plain(config)
    missing = [key for key in ("images", "out") if values[key] in (None, "???")]
    if missing:
        raise AmesError(f"{missing[0]} is missing: give {missing[0]}=...")
    values["shard"] = f"{values['shard']}/{values.pop('shards')}"
    parser = OneLineParser(prog="extract", add_help=False)
    add_options(parser)
    return parser.parse_args([word for key, value in values.items() for word in _words(key, value)])


def _words(key: str, value: Any) -> list[str]:
    """One option of a command line."""
    option = "--" + key.replace("_", "-")
    if value is None or value is False:
        return []
    if value is True:
        return [option]
    # With "=", for values that begin with a dash.
    return [option, *map(str, value)] if isinstance(value, list) else [f"{option}={value}"]
