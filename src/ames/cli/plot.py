"""The command that shows how trainings went: ``ames plot``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ames.cli.options import positive


def register(commands: Any) -> None:
    """Adds the command to the sub-parsers of ``ames``."""
    plot = commands.add_parser(
        "plot",
        help="loss and validation mAP of trainings, also while they run",
        description="Draws the journals of trainings, one beside another, and prints where they have come.",
    )
    plot.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="a journal, a model file, or a training's folder"
    )
    plot.add_argument("-o", "--out", type=Path, required=True, help="the picture: OUT.png, .pdf or .svg")
    plot.add_argument(
        "--smooth", type=positive, metavar="N", help="points in a mean, 1: as they are (a fiftieth of them)"
    )
    plot.set_defaults(run=_plot)


def _plot(args: argparse.Namespace) -> None:
    from ames.reporting.tables import format_table
    from ames.reporting.training_plot import check_format, draw, find_journals, load_curves

    check_format(args.out)
    runs = load_curves(find_journals(args.runs))
    print(format_table([run.row() for run in runs]))
    print(f"picture: {draw(runs, args.out, width=args.smooth)}")
