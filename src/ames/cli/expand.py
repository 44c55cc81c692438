"""The command ``ames expand``: query expansion and database augmentation."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ames.cli.options import add_examples, tell_progress
from ames.errors import AmesError
from ames.io.console import add_device, check_device, natural, positive

METHODS = ("alpha-qe", "average-qe", "dba")


def register(commands: Any) -> None:
    """Add the command to the sub-parsers of ``ames``."""
    expand = commands.add_parser(
        "expand",
        help="query expansion and database augmentation of global descriptors",
        description="Join the global descriptors of a test set with those of their nearest images, and "
        "search again: alpha-qe and average-qe expand the queries, dba augments the gallery "
        "(docs/expansion.md).",
    )
    add = expand.add_argument
    add("folder", type=Path, metavar="DATASET_FOLDER", help="folder of a prepared test set")
    add("--name", required=True, help="the descriptors: NAME_query_global.hdf5, NAME_gallery_global.hdf5")
    add("--method", choices=METHODS, required=True, help="what is done")
    add("--neighbours", type=natural, default=10, help="images that are joined, besides itself (10)")
    add("--alpha", type=float, help="power of their similarities (3; average-qe has none)")
    add("-o", "--out", metavar="NEW_NAME", help="name of what is written (NAME+METHOD)")
    add("--size", type=positive, help="entries per query (as many as nn_NAME has; dba: the whole gallery)")
    add("--overwrite", action="store_true", help="replace files of other settings or other descriptors")
    add("-q", "--quiet", action="store_true", help="print no messages but errors")
    add_device(expand)
    add_examples(
        expand,
        "ames expand data/roxford5k --name dinov2 --method alpha-qe",
        "ames expand data/roxford5k --name dinov2 --method dba --neighbours 10 --alpha 3",
        "ames expand data/roxford5k --name dinov2+dba --method alpha-qe -o dinov2+both",
    )
    expand.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    from ames.datasets.layout import DatasetFolder
    from ames.global_search.build import Source
    from ames.global_search.expansion import Expansion

    check_device(args.device)
    tell_progress(args)
    if args.method == "average-qe":
        if args.alpha is not None:
            raise AmesError("--alpha: average-qe takes all neighbours alike; leave it out, or take alpha-qe")
        alpha = 0.0
    else:
        alpha = 3.0 if args.alpha is None else args.alpha
    settings = Expansion(neighbours=args.neighbours, alpha=alpha)
    folder = DatasetFolder(args.folder, args.name)
    training = not folder.vectors("gallery").is_file() and folder.vectors().is_file()
    source = Source(folder=folder, training=training)
    (_augment if args.method == "dba" else _expand)(args, source, settings)


def _expand(args: argparse.Namespace, source: Any, settings: Any) -> None:
    from ames.global_search.expanded import make_expanded

    name = args.out or f"{args.name}+{args.method}"
    there = (args.folder / f"nn_{name}.npz").is_file() and not args.overwrite
    options = {"overwrite": args.overwrite, "device": args.device, "size": args.size}
    path = make_expanded(source, settings, name=name, **options)
    print(f"{path}: exists already, with the same settings" if there else path)


def _augment(args: argparse.Namespace, source: Any, settings: Any) -> None:
    from ames.global_search.build import make
    from ames.global_search.expanded import make_augmented

    options = {"overwrite": args.overwrite, "device": args.device}
    made, done = make_augmented(source, settings, name=args.out, **options)
    path = done.files[0]
    print(f"{path}: exists already, with the same settings" if done.already else path, flush=True)
    kept = made.folder.shortlist.is_file() and not args.overwrite
    path = make(made, size=args.size, **options)
    print(f"{path}: exists already, of the same descriptors" if kept else path)
