"""The command ``ames explain``: why two photos have their score."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from ames.cli.options import add_examples, add_output, box, tell_progress
from ames.errors import AmesError
from ames.io.console import add_device, check_device, positive

PICTURE = Path("match.png")
TOP = 50


def register(commands: Any) -> None:
    """Add the command to the sub-parsers of ``ames``."""
    parser = commands.add_parser(
        "explain",
        help="show why two photos are alike: what is tied to what, and what counts",
        description="Draw which local features of a photo the model ties to which of another one, and what "
        "each contributes to the score (docs/explain.md). A is the query, B a photo of a collection.",
    )
    add = parser.add_argument
    add("a", type=Path, metavar="A", help="photo: the query")
    add("b", type=Path, metavar="B", help="photo: as one of a collection")
    add("-o", "--out", type=Path, help=f"picture to write, .png or .jpg ({PICTURE}; with --json none)")
    add(
        "--preset",
        help="aliked, rootsift, a model of ames models, or a checkpoint (default: aliked where it is "
        "installed, else rootsift)",
    )
    add("--backbone", help="with a checkpoint: the backbone that it was trained on")
    for side in "ab":
        text = f"describe this part of {side.upper()}, in pixels"
        add(f"--box-{side}", type=box, metavar="X1,Y1,X2,Y2", help=text)
    add("--top", type=positive, default=TOP, help=f"links at most ({TOP})")
    add_output(parser)
    add_device(parser)
    add_examples(
        parser,
        "ames explain query.jpg found.jpg",
        "ames explain query.jpg found.jpg --box-a 40,60,300,280 -o why.png",
        "ames explain query.jpg found.jpg --preset rootsift_elvis_binary --json",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    from ames.models.registry import preset_model
    from ames.pipelines.explain import explain_photos
    from ames.reporting.match_plot import check_picture
    from ames.retrieval.planning import default_model

    out = PICTURE if args.out is None and not args.json else args.out
    if out is not None:
        _check_output(check_picture(out), args.a, args.b)
    check_device(args.device)
    tell_progress(args)
    model = default_model() if args.preset is None else preset_model(args.preset)
    pair = explain_photos(
        (args.a, args.b),
        model,
        boxes=(args.box_a, args.box_b),
        backbone=args.backbone,
        top=args.top,
        device=args.device,
    )
    if out is not None:
        pair.write_picture(out)
    if args.json:
        about = {"a": str(args.a), "b": str(args.b), "model": pair.model}
        picture = None if out is None else str(out)
        print(json.dumps(about | {"picture": picture} | pair.explanation.as_dict(), indent=1))
    elif not args.quiet:
        print(f"{pair.text()}\n{out}")


def _check_output(out: Path, *photos: Path) -> None:
    """AmesError where the picture would take the place of a photo."""
    if any(out.exists() and photo.exists() and os.path.samefile(out, photo) for photo in photos):
        raise AmesError(f"{out}: is one of the photos: give another name with -o")
