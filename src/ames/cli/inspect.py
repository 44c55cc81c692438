"""Commands that describe and convert files: ``ames inspect``, ``ames convert``."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from ames.errors import AmesError
from ames.io.console import positive


def register(commands: Any) -> None:
    """Add the commands to the sub-parsers of ``ames``."""
    inspect = commands.add_parser(
        "inspect",
        help="describe a file: descriptors, shortlist, ground truth, checkpoint, list",
        description="Describe a file and check its content, or compare an image in two files.",
    )
    inspect.add_argument("file", type=Path, help="a file, or the folder of a database")
    inspect.add_argument("--all", action="store_true", help="read all images (default: a sample of 1000)")
    inspect.add_argument("--against", type=Path, help="a second file of local descriptors")
    inspect.add_argument("--image", help="with --against: name or row of the image")
    inspect.add_argument("--against-image", help="name or row in the second file, if different")
    inspect.add_argument("--verify", action="store_true", help="check all checksums of a database")
    inspect.add_argument("--json", action="store_true", help="print JSON")
    inspect.set_defaults(run=_inspect)

    convert = commands.add_parser(
        "convert",
        help="convert pickles, checkpoints and other projects' files; descriptors to hloc's",
        description="Convert shortlists and codebooks to .npz, ground truths to .json, checkpoints to "
        ".safetensors, features of hloc and of the asmk package to descriptor files, and those to hloc's.",
    )
    add = convert.add_argument
    add("file", type=Path, help="a .pkl, .pt, .pth, .hdf5 or .h5 file")
    add("-o", "--out", type=Path, help="output file, or the beginning of its name for descriptor files")
    add("--columns", type=int, help="entries to keep per query of a shortlist (all)")
    add("--list", dest="listed", type=Path, help="hloc: order of the rows; to hloc: names, width,height")
    add("--images", type=Path, help="to hloc: folder of the images, for sizes that the list lacks")
    add("--desc-num", type=positive, help="local descriptors per image (default: all)")
    add("--dtype", choices=("float16", "float32"), help="of local descriptors (float16)")
    add(
        "--coordinates",
        choices=("normalized", "pixels"),
        help="of hloc's locations (normalized, if it can be)",
    )
    add("--overwrite", action="store_true", help="replace descriptor files of other settings")
    convert.set_defaults(run=_convert)


def _inspect(args: argparse.Namespace) -> None:
    if args.against is None and (args.image or args.against_image):
        raise AmesError("--image and --against-image need --against FILE")
    if args.against is not None:
        from ames.inspection.compare import compare

        if args.image is None:
            raise AmesError("--against needs --image: the name or the row of the image")
        found = compare(args.file, args.against, args.image, args.against_image)
    else:
        from ames.inspection.inspect import SAMPLE, inspect

        found = inspect(args.file, sample=None if args.all else SAMPLE)
        if args.verify:
            found["checksums"] = _verified(args.file)
    print(json.dumps(found, indent=1) if args.json else text(found))


def _verified(path: Path) -> str:
    from ames.database.store import Database

    if not path.is_dir():
        raise AmesError(f"{path}: --verify is for databases, the folders that ames compress makes")
    Database(path, allow_partial=True).verify()
    return "as they should be"


def _convert(args: argparse.Namespace) -> None:
    from ames.inspection.conversion import Options
    from ames.inspection.convert import convert

    if args.columns is not None and args.columns < 1:
        raise AmesError(f"--columns {args.columns}: give at least 1")
    names = {option.name for option in fields(Options)}
    how = Options(**{name: value for name, value in vars(args).items() if name in names})
    path, what = convert(args.file, args.out, how=how)
    print(f"{path}: {what}")


def text(found: dict[str, Any]) -> str:
    """Return one line per value; None and empty values are skipped."""
    lines = [f"{key.replace('_', ' '):26} {_value(v)}" for key, v in found.items() if v not in (None, {}, [])]
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " / ".join(_value(item) for item in value)
    return str(value)
