"""The command that prepares a data set's folder: ``ames prepare``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ames.cli.extract import add_config, read_config


def register(commands: Any) -> None:
    """Adds the command to the sub-parsers of ``ames``."""
    prepare = commands.add_parser(
        "prepare",
        help="descriptors and shortlist of a data set's lists",
        description="Descriptors and shortlist of a data set's lists, under the names of the published "
        "files. The same command goes on where it was interrupted and leaves out what is done.",
    )
    add = prepare.add_argument
    add("folder", type=Path, help="with train.txt, or test_query.txt and test_gallery.txt")
    add("--images", type=Path, help="the root of the lists' paths (default: the folder)")
    add("--boxes", help="what queries are cut to: as in ames extract, files of the folder by their names")
    add_config(prepare)
    prepare.set_defaults(run=_prepare)


def _prepare(args: argparse.Namespace) -> None:
    from ames.pipelines.prepare import prepare

    for line in prepare(args.folder, read_config(args), images=args.images, boxes=args.boxes):
        print(line, flush=True)
