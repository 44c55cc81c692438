"""Commands that make descriptor files: ``ames extract``, ``ames prepare``."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ames.io.console import natural, positive

if TYPE_CHECKING:
    from ames.extraction.config import ExtractionConfig


def register(commands: Any) -> None:
    """Add the commands to the sub-parsers of ``ames``."""
    extract = commands.add_parser(
        "extract",
        help="local and global descriptors of images",
        description="Local and global descriptors of images. The same command resumes after an interruption; "
        "docs/extraction.md has conventions and sizes.",
    )
    add_options(extract)
    extract.set_defaults(run=_extract)

    prepare = commands.add_parser(
        "prepare",
        help="descriptors and shortlist of a data set's lists",
        description="Descriptors and shortlist of a data set's lists, under the names of the published "
        "files. The same command resumes after an interruption and skips what is complete.",
    )
    add = prepare.add_argument
    add("folder", type=Path, help="with train.txt, or test_query.txt and test_gallery.txt")
    add("--images", type=Path, help="the root of the lists' paths (default: the folder)")
    add("--boxes", help="what queries are cut to: as in ames extract, files of the folder by their names")
    add("--query-embedder", type=Path, help="the file of the query side, if --embedder does not hold it")
    add_config(prepare)
    prepare.set_defaults(run=_prepare)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``ames.pipelines.extract.extract_images``."""
    add = parser.add_argument
    add("--images", type=Path, required=True, help="folder, image, or list of paths relative to its folder")
    add("--list", type=Path, help="lines path[,label,...] relative to --images, a folder then")
    add("-o", "--out", required=True, help="OUT_local.hdf5 and OUT_global.hdf5 are written")
    add("--boxes", help="ground truth, file of lines x1,y1,x2,y2, or the list's first column of four (1 ...)")
    add("--shard", default="1/1", metavar="I/N", help="the I-th of N parts (torchrun: more)")
    add("--pack", type=Path, default=argparse.SUPPRESS, metavar="MODEL", help="write a binary model's codes")
    add_config(parser)


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the fields of ``ExtractionConfig``, which has the defaults: what is not given is left out."""
    add = partial(parser.add_argument, default=argparse.SUPPRESS)
    add(
        "--backbone",
        help="aliked, rootsift, dinov2, xfeat+efficientnet-lite0 ... (aliked if installed, else rootsift)",
    )
    add("--desc-num", type=positive, help="local descriptors per image (of keypoints 400, of maps 700)")
    add("--dtype", choices=("float16", "float32"), help="of local descriptors (float16)")
    add("--overwrite", action="store_true", help="replace files, complete or partial, of other settings")
    add("--max-pixels", type=positive, help="larger images are left out (200,000,000)")
    add("--embedder", type=Path, help="a file whose embedder gives the global vectors (docs/embedders.md)")
    add("--side", help="of the embedder, query or gallery (default: the only one of the file)")
    add("--workers", type=natural, help="processes, threads of networks, 0 = none (one per core, at most 8)")
    add = partial(parser.add_argument_group("networks").add_argument, default=argparse.SUPPRESS)
    add("--weights", help="of the network: file, folder, or random for trying (default: the published ones)")
    add("--detector", type=Path, help="a feature detector's file")
    add("--weight-by", help="detector, attention, norm or cls (detector if given, else norm)")
    add("--descriptors", help="raw (default), or projected: the detector's")
    add("--detector-input", help="network or normalized features (default: as the detector's file says)")
    add("--nms", type=positive, help="keep the largest weights of K x K cells alone (1: all)")
    add("--global", dest="vector", help="cls (default), average, gem, superglobal (CVNet) or none")
    add("--long-side", type=natural, help="pixels of the whole image, 0: as it is (default: the network's)")
    add("--scales", type=float, nargs="+", help="relative to that (default: the network's)")
    add("--coordinates", help="normalized (default), or published: CVNet's in pixels")
    add("--batch-size", type=positive, help="images computed at a time (8)")
    add("--device", help="cpu, cuda, cuda:1, ... (cpu)")
    add("--autocast", help="bf16 or fp16 (default: fp32)")


def read_config(args: argparse.Namespace) -> ExtractionConfig:
    """Return the options of ``add_config``; AmesError names a value that is out of bounds.

    A line says which backbone is taken where none is named.
    """
    from dataclasses import fields

    from ames.backbones.choice import chosen, default_backbone
    from ames.extraction.config import ExtractionConfig
    from ames.models.load import load

    if "backbone" not in args:
        packer = getattr(args, "pack", None)
        trained_on = None if packer is None else load(packer).about.get("backbone")
        args.backbone = trained_on or default_backbone()
        print(
            chosen(args.backbone) if trained_on is None else f"backbone {trained_on}, of {packer}", flush=True
        )
    names = {option.name for option in fields(ExtractionConfig)}
    return ExtractionConfig(**{name: value for name, value in vars(args).items() if name in names})


def _extract(args: argparse.Namespace) -> None:
    from ames.pipelines.extract import extract_images

    extract_images(
        read_config(args),
        images=args.images,
        out=args.out,
        listed=args.list,
        boxes=args.boxes,
        shard=args.shard,
    )


def _prepare(args: argparse.Namespace) -> None:
    from ames.pipelines.prepare import prepare

    given = {key: getattr(args, key) for key in ("images", "boxes", "query_embedder")}
    for line in prepare(args.folder, read_config(args), **given):
        print(line, flush=True)
