"""The command that makes descriptor files of images: ``ames extract``."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ames.io.console import natural, positive

if TYPE_CHECKING:
    from ames.extraction.config import ExtractionConfig


def register(commands: Any) -> None:
    """Adds the command to the sub-parsers of ``ames``."""
    extract = commands.add_parser(
        "extract",
        help="local and global descriptors of images",
        description="Local and global descriptors of images. The same command goes on where it was "
        "interrupted; docs/extraction.md has conventions and sizes.",
    )
    add_options(extract)
    extract.set_defaults(run=_extract)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of ``ames.pipelines.extract.extract_images``."""
    add = parser.add_argument
    add(
        "--images",
        type=Path,
        required=True,
        help="a folder, an image, or a list of paths relative to its own folder",
    )
    add("--list", type=Path, help="lines path[,label,...] relative to --images, a folder then")
    add("-o", "--out", required=True, help="OUT_local.hdf5 and OUT_global.hdf5 are written")
    add(
        "--boxes",
        help="a ground truth, a file of lines x1,y1,x2,y2, or the list's first column of four (1, ...)",
    )
    add("--shard", default="1/1", metavar="I/N", help="the I-th of N parts (torchrun: more)")
    pack = "write the codes of this binary model in their place"
    add("--pack", type=Path, default=argparse.SUPPRESS, metavar="MODEL", help=pack)
    add_config(parser)


def add_config(parser: argparse.ArgumentParser) -> None:
    """Fields of ``ExtractionConfig``, which has the defaults: what is not given is left out."""
    add = partial(parser.add_argument, default=argparse.SUPPRESS)
    add("--backbone", help="rootsift (default), or a network: dinov2, cvnet ...")
    add("--desc-num", type=positive, help="local descriptors per image (rootsift 400, networks 700)")
    add("--dtype", choices=("float16", "float32"), help="of local descriptors (float16)")
    add(
        "--overwrite",
        action="store_true",
        help="replace existing or partial files that were made with other settings",
    )
    add("--max-pixels", type=positive, help="larger images are left out (200,000,000)")
    add("--workers", type=natural, help="processes, threads of networks, 0 = none (one per core, at most 8)")
    add = partial(parser.add_argument_group("networks").add_argument, default=argparse.SUPPRESS)
    add(
        "--weights",
        help="of the network, a file, a folder, or random for trying (default: the published ones)",
    )
    add("--detector", type=Path, help="a feature detector's file")
    add("--weight-by", help="detector, attention, norm or cls (detector if given, else norm)")
    add("--descriptors", help="raw (default), or projected: the detector's")
    add("--detector-input", help="network or normalized features (default: as the detector's file says)")
    add("--nms", type=positive, help="keep the largest weights of K x K cells alone (1: all)")
    add(
        "--global",
        dest="vector",
        help="cls (default: the network's), average, gem, superglobal (CVNet) or none",
    )
    add("--long-side", type=natural, help="pixels of the whole image, 0: as it is (default: the network's)")
    add("--scales", type=float, nargs="+", help="relative to that (default: the network's)")
    add("--coordinates", help="normalized (default), or published: CVNet's in pixels")
    add("--batch-size", type=positive, help="images computed at a time (8)")
    add("--device", help="cpu, cuda, cuda:1, ... (cpu)")
    add("--autocast", help="bf16 or fp16 (default: fp32)")


def read_config(args: argparse.Namespace) -> ExtractionConfig:
    """The options of ``add_config`` that were given; AmesError names a value that is out of bounds."""
    from dataclasses import fields

    from ames.extraction.config import ExtractionConfig

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
