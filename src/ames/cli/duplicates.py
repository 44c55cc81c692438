"""The command ``ames duplicates``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ames.cli.options import add_collection, add_examples, add_output, show, tell_progress
from ames.io.console import add_device, check_device, positive


def register(commands: Any) -> None:
    """Add the command to the sub-parsers of ``ames``."""
    duplicates = commands.add_parser(
        "duplicates",
        help="group the photos of a collection that show the same object",
        description="Compare each photo of a collection with its nearest others by their stored codes, and "
        "group those that show the same. An interrupted call resumes (docs/own_photos.md).",
    )
    add_collection(duplicates)
    duplicates.add_argument(
        "--threshold", type=float, help="least sameness of a pair, 0 to 1 (default: measured for the model)"
    )
    duplicates.add_argument(
        "--candidates", type=positive, default=20, help="photos that each photo is compared with (20)"
    )
    duplicates.add_argument("-o", "--out", type=Path, metavar="PAGE", help="write a page of groups, .html")
    add_output(duplicates)
    add_device(duplicates)
    add_examples(duplicates, "ames duplicates photos.db", "ames duplicates photos.db -o groups.html")
    duplicates.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    from ames.pipelines.duplicates import find_duplicates

    check_device(args.device)
    tell_progress(args)
    found = find_duplicates(
        args.database, threshold=args.threshold, candidates=args.candidates, device=args.device
    )
    show(args, found, title=f"Groups of {args.database}")
