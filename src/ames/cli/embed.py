"""The command that makes vectors with a trained embedder: ``ames embed``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ames.cli.options import add_examples, add_workers
from ames.errors import AmesError
from ames.io.console import add_device, positive

if TYPE_CHECKING:
    from ames.extraction.config import ExtractionConfig


def register(commands: Any) -> None:
    """Add the command to the sub-parsers of ``ames``."""
    embed = commands.add_parser(
        "embed",
        help="global vectors by a trained embedder: of images, or of stored features",
        description="Global vectors by a trained embedder, alone. The same command resumes after an "
        "interruption and skips what is complete.",
    )
    add = embed.add_argument
    add("embedder", type=Path, help="its file")
    add("--side", help="query or gallery (default: the only one of the file)")
    add("-o", "--out", help="OUT_global.hdf5 is written")
    add("--images", type=Path, help="folder, image, or list of paths; with --dataset, the root of its lists")
    add("--features", nargs="+", metavar="NAME=FILE", help="files of the features that the embedder reads")
    add("--list", type=Path, help="lines path[,label,...]: images, or names where feature files have none")
    add("--boxes", help="what images (with --dataset: queries) are cut to, as in ames extract")
    add("--shard", metavar="I/N", help="with -o and --images: the I-th of N parts (1/1; torchrun: more)")
    add("--dataset", type=Path, metavar="FOLDER", help="a prepared data set, whose lists are embedded")
    add("--name", help="with --dataset: of the files, NAME_query_global.hdf5 ... and nn_NAME.npz")
    add("--query-embedder", type=Path, help="with --dataset: the query side's file (default: the same)")
    add("--batch-size", type=positive, default=32, help="images computed at a time (32)")
    add("--max-pixels", type=positive, default=argparse.SUPPRESS, help="larger images are left out")
    add("--overwrite", action="store_true", help="replace files of other settings")
    add_workers(embed)
    add_device(embed)
    add_examples(
        embed,
        "ames embed aff.pt --side query --images PHOTOS -o photos",
        "ames embed aff.pt --side gallery --features dino=dinov2_cls.hdf5 cv=cvnet_global.hdf5 -o photos",
        "ames embed aff.pt --dataset data/roxford5k --name aff",
    )
    embed.set_defaults(run=_embed)


def _embed(args: argparse.Namespace) -> None:
    from ames.pipelines.embed import embed_dataset, embed_features
    from ames.pipelines.extract import extract_images

    _check_words(args)
    config = _config(args)
    if args.dataset is not None:
        given = {key: getattr(args, key) for key in ("query_embedder", "images", "boxes")}
        for line in embed_dataset(args.dataset, args.name, config, **given):
            print(line, flush=True)
    elif args.features is not None:
        files = dict(_named(word) for word in args.features)
        print(embed_features(config, files, out=args.out, listed=args.list).summary())
    else:
        images = {"images": args.images, "listed": args.list, "boxes": args.boxes}
        images["shard"] = args.shard or "1/1"
        extract_images(config, out=args.out, vectors_alone=True, **images)


def _config(args: argparse.Namespace) -> ExtractionConfig:
    from ames.extraction.config import ExtractionConfig

    names = ("embedder", "side", "batch_size", "max_pixels", "overwrite", "workers", "device")
    return ExtractionConfig(**{name: getattr(args, name) for name in names if hasattr(args, name)})


def _check_words(args: argparse.Namespace) -> None:
    """AmesError unless the words are those of one of the three uses."""
    wanted: tuple[str, ...]
    others: tuple[str, ...]
    if args.dataset is not None:
        wanted, others = ("name",), ("out", "features", "list", "shard")
    elif args.features is not None:
        wanted, others = ("out",), ("images", "boxes", "shard", "name", "query_embedder")
    else:
        wanted, others = ("out", "images"), ("name", "query_embedder")
    for name in wanted:
        if getattr(args, name) is None:
            raise AmesError(
                f"--{name} is missing: give --dataset and --name, or -o and --images or --features"
            )
    for name in others:
        if getattr(args, name) is not None:
            use = "--dataset" if args.dataset is not None else "--features" if args.features else "--images"
            raise AmesError(f"--{name.replace('_', '-')} does not go with {use}: leave it out")


def _named(word: str) -> tuple[str, Path]:
    name, equals, path = word.partition("=")
    if not (name and equals and path):
        raise AmesError(f"--features {word}: give NAME=FILE")
    return name, Path(path)
