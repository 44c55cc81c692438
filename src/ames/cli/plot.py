"""The command that plots trainings: ``ames plot``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ames.io.console import positive


def register(commands: Any) -> None:
    """Add the command to the sub-parsers of ``ames``."""
    plot = commands.add_parser(
        "plot",
        help="plot loss and validation mAP of trainings, also while they run",
        description="Plot the journals of trainings, and print their last and best metrics.",
    )
    add = plot.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="a training's journal, model file, or folder")
    add("-o", "--out", type=Path, required=True, help="output file: OUT.png, .pdf or .svg")
    add("--smooth", type=positive, metavar="N", help="points per mean, 1: none (default: a fiftieth of all)")
    plot.set_defaults(run=_plot)


def _plot(args: argparse.Namespace) -> None:
    from ames.reporting.tables import format_table
    from ames.reporting.training_plot import check_format, draw, find_journals, load_curves

    check_format(args.out)
    runs = load_curves(find_journals(args.runs))
    print(format_table([run.row() for run in runs]))
    print(f"picture: {draw(runs, args.out, width=args.smooth)}")
