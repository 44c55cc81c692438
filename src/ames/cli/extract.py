"""The command that makes descriptor files of images: ``ames extract``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ames.cli.options import check_device, natural, positive
from ames.errors import AmesError


def register(commands: Any) -> None:
    """Adds the command to the sub-parsers of ``ames``."""
    extract = commands.add_parser(
        "extract",
        help="local and global descriptors of images",
        description="Local and global descriptors of images. The same command goes on where it was "
        "interrupted; docs/extraction.md has conventions and sizes.",
    )
    add_options(extract)
    extract.set_defaults(run=extract_images)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``extract_images``."""
    add = parser.add_argument
    add(
        "--images",
        type=Path,
        required=True,
        help="a folder, an image, or a list of paths relative to its own folder",
    )
    add("--list", type=Path, help="lines path[,label,...] relative to --images, a folder then")
    add("-o", "--out", type=_beginning, required=True, help="OUT_local.hdf5 and OUT_global.hdf5 are written")
    add(
        "--boxes",
        help="a ground truth, a file of lines x1,y1,x2,y2, or the list's first column of four (1, ...)",
    )
    add("--pack", type=Path, metavar="MODEL", help="write the codes of this binary model in their place")
    add("--shard", type=_shard, default=(1, 1), metavar="I/N", help="the I-th of N parts (torchrun: more)")
    add_source(parser)


def add_source(parser: argparse.ArgumentParser) -> None:
    """Options of ``source_of``, and those of every file that is written from it."""
    add = parser.add_argument
    add("--backbone", default="rootsift", help="rootsift (default), or a network: dinov2, cvnet ...")
    add("--desc-num", type=positive, help="local descriptors an image (rootsift 400, networks 700)")
    add("--dtype", choices=("float16", "float32"), default="float16", help="of local descriptors (float16)")
    add("--overwrite", action="store_true", help="what is there, or was begun, made otherwise may go")
    add("--max-pixels", type=positive, default=200_000_000, help="larger images are left out (200,000,000)")
    workers = min(os.cpu_count() or 1, 8)
    add(
        "--workers",
        type=natural,
        default=workers,
        help=f"processes, threads of networks, 0 = none ({workers})",
    )
    _network(parser.add_argument_group("networks"))


def source_of(args: argparse.Namespace, device: str) -> Any:
    """The source of features that the options describe."""
    from ames.extraction.factory import ExtractionConfig, build_extractor

    check_device(device)
    wanted = ExtractionConfig(
        args.backbone,
        count=args.desc_num,
        workers=args.workers,
        max_pixels=args.max_pixels,
        weights=args.weights,
        detector=args.detector,
        select=args.select,
        descriptors=args.descriptors,
        detector_input=args.detector_input,
        suppression=args.nms,
        vector=None if args.vector == "none" else args.vector,
        long_side=args.long_side,
        scales=None if args.scales is None else tuple(args.scales),
        published_locations=args.locations == "published",
        batch=args.batch_size,
        device=device,
        autocast=args.autocast,
    )
    return build_extractor(wanted)


def _network(group: Any) -> None:
    add = group.add_argument
    add(
        "--weights",
        help="of the network, a file, a folder, or random for trying (default: the published ones)",
    )
    add("--detector", type=Path, help="a feature detector's file")
    add("--select", help="weights by detector, attention, norm or cls (detector if given, else norm)")
    add("--descriptors", default="raw", help="raw (default), or projected: the detector's")
    add("--detector-input", help="network or normalized features (normalized if ames trained the detector)")
    add("--nms", type=positive, default=1, help="keep the largest weights of K x K cells alone (1: all)")
    add(
        "--global",
        dest="vector",
        default="cls",
        help="cls (default: the network's), average, gem, superglobal (CVNet) or none",
    )
    add("--long-side", type=natural, help="pixels of the whole image, 0: as it is (default: the network's)")
    add("--scales", type=float, nargs="+", help="relative to that (default: the network's)")
    add("--locations", choices=("shares", "published"), default="shares", help="CVNet's published: in pixels")
    add("--batch-size", type=positive, default=8, help="images computed at a time (8)")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, ... (cpu)")
    add("--autocast", help="bfloat16 or float16 (default: float32)")


def extract_images(args: argparse.Namespace) -> None:
    """Extracts a part of the images, and merges all parts if it is the last one."""
    from ames.datasets.lists import check_all_exist
    from ames.extraction.factory import open_packer
    from ames.extraction.pipeline import Target, plan_of, run
    from ames.extraction.shards import Part, check_merge, merge_when_complete
    from ames.io.text import size_text

    part = Part.of_this_process(*args.shard)
    device = part.device(args.device)
    images, notes = _images(args)
    for note in notes if part.number == 1 else ():
        print(note, flush=True)
    if part.of > 1:  # a part alone may be without a readable image
        check_all_exist(images.root, images.names)
    source = source_of(args, device)
    kinds = _kinds(source)
    check_merge(args.out, part, kinds)
    packer, packed = (None, {}) if args.pack is None else open_packer(args.pack, source.local_dim)
    out = part.named(args.out)
    files = [out.with_name(f"{out.name}_{kind}.hdf5") for kind in kinds]
    target = Target(
        files[0],
        files[1] if len(files) > 1 else None,
        dtype=args.dtype,
        packer=packer,
        errors=out.with_name(f"{out.name}.errors.csv"),
        keep=True,
        overwrite=args.overwrite,
        about=packed | {"boxes": images.boxes is not None, "list": images.digest},
        copies=part.here,
    )
    mine = images.part(part.number, part.of)
    each = plan_of(mine, source, target).image_bytes
    size = size_text(each * len(mine.names))
    print(f"{out}: {len(mine.names):,} images of {each:,} bytes, {size} in all", flush=True)
    print(run(mine, source, target).summary(), flush=True)
    for line in merge_when_complete(args.out, part, images, kinds):
        print(line)


def _kinds(source: Any) -> list[str]:
    """What the names of the files end in."""
    from ames.datasets.layout import vector_kind

    return ["local"] if source.global_dim is None else ["local", vector_kind(source.name)]


def _images(args: argparse.Namespace) -> tuple[Any, list[str]]:
    """The images that the options name, and what to say of those that they leave out."""
    from ames.datasets.boxes import read_boxes
    from ames.datasets.finding import find_images, is_image_file
    from ames.datasets.lists import read_list
    from ames.extraction.pipeline import Images

    listed, root, one = args.list, args.images, None
    if root.is_file():
        if listed is not None:
            raise AmesError(f"--images {root}: is a file; with --list, --images is the folder of the images")
        if not is_image_file(root):
            listed = root
        root, one = root.parent, root.name
    notes: list[str] = []
    if listed is not None:
        names = [item.path for item in read_list(listed)]
    elif one is not None:
        names = [one]
    else:
        found = find_images(root)
        names, notes = found.names, found.notes()
    boxes = None if args.boxes is None else read_boxes(args.boxes, names, listed)
    return Images(root, names, boxes), notes


def _beginning(text: str) -> Path:
    """What files' names begin with, DIR/NAME."""
    path = Path(text)
    if not path.name or path.name == ".." or text.endswith(os.sep):  # of which Path keeps nothing
        raise argparse.ArgumentTypeError(
            f"{text} is a folder; give the beginning of the files' names, DIR/NAME"
        )
    if path.parent.exists() and not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: {path.parent} is a file, no folder to write to")
    return path


def _shard(text: str) -> tuple[int, int]:
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text!r} is none of 1/N ... N/N")
    return int(number), int(of)
