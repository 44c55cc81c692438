"""The command that prepares a data set's folder: ``ames prepare``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ames.cli.extract import add_source, source_of


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
    add_source(prepare)
    prepare.set_defaults(run=_prepare)


def _prepare(args: argparse.Namespace) -> None:
    from ames.datasets.layout import DatasetFolder
    from ames.errors import AmesError
    from ames.pipelines.prepare import extract_split, make_shortlist

    if args.vector == "none":
        raise AmesError("--global none: a shortlist needs global descriptors")
    folder = DatasetFolder(args.folder, args.backbone)
    training = folder.image_list().exists()
    if training and args.boxes is not None:
        raise AmesError(f"{folder.path}: a training set, which has no queries; leave --boxes out")
    source = source_of(args, args.device)
    for split in ("",) if training else ("query", "gallery"):
        done = extract_split(
            folder,
            split,
            source,
            images=args.images,
            boxes=args.boxes if split == "query" else None,
            dtype=args.dtype,
            overwrite=args.overwrite,
        )
        print(done.summary(), flush=True)
    print(make_shortlist(folder, training=training, overwrite=args.overwrite, device=args.device))
