"""Commands that describe and convert files: ``ames inspect``, ``ames convert``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ames.errors import AmesError


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
        help="convert a published pickle or checkpoint to .npz, .json or .safetensors",
        description="Convert shortlists to .npz, ground truths to .json and checkpoints to .safetensors.",
    )
    convert.add_argument("file", type=Path, help="a .pkl, .pt or .pth file")
    convert.add_argument("-o", "--out", type=Path, help="output file (default: FILE with the new suffix)")
    convert.add_argument("--columns", type=int, help="entries to keep per query of a shortlist (all)")
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
    from ames.inspection.convert import convert

    if args.columns is not None and args.columns < 1:
        raise AmesError(f"--columns {args.columns}: give at least 1")
    path, what = convert(args.file, args.out, columns=args.columns)
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
