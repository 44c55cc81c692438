"""The `ames` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ames import __version__
from ames.cli import curve as cli_curve
from ames.cli import database as cli_store
from ames.cli import extract as cli_extract
from ames.cli import inspect as cli_files
from ames.cli import plot as cli_plot
from ames.cli import prepare as cli_prepare
from ames.cli.options import OneLineParser, natural, positive, tell
from ames.errors import AmesError
from ames.io.device import check_device


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; wrong input is one line on stderr and status 2."""
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except (AmesError, OSError, KeyboardInterrupt) as error:
        status = tell(f"ames {args.command}", error)
        if status is None:
            raise
        return status
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="ames", description="Instance-level image retrieval.")
    parser.add_argument("--version", action="version", version=f"ames {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="from images to a re-ranked, measured result and a page to look at",
        description="Searches, re-ranks and measures: on generated test landmarks, or on your own photos.",
    )
    demo.add_argument(
        "--images", type=Path, help="a folder with one sub-folder an object (default: generated)"
    )
    demo.add_argument(
        "--distractors",
        default="distractors",
        help="the sub-folder of --images that shows none of the objects",
    )
    demo.add_argument(
        "-o", "--out", type=Path, default=Path("demo"), help="where everything is written (demo)"
    )
    demo.add_argument("--num-rerank", type=positive, default=100, help="candidates re-ranked a query (100)")
    demo.add_argument("--landmarks", type=positive, default=40, help="generated landmarks (40)")
    demo.add_argument("--seed", type=natural, default=0, help="of the generated landmarks (0)")
    demo.add_argument("--model", type=Path, help="full-precision checkpoint (default: the shipped one)")
    demo.add_argument("--binary-model", type=Path, help="binary checkpoint (default: the shipped one)")
    _machine(demo, device=True)
    demo.set_defaults(run=_demo)

    cli_extract.register(commands)
    cli_prepare.register(commands)

    landmarks = commands.add_parser("landmarks", help="draw a data set of made-up landmarks")
    landmarks.add_argument("folder", type=Path)
    landmarks.add_argument("--split", choices=("train", "val", "test"), required=True)
    landmarks.add_argument("--landmarks", type=positive, default=40)
    landmarks.add_argument("--easy", type=natural, default=4, help="easy views a landmark (4)")
    landmarks.add_argument("--hard", type=natural, default=6, help="hard views a landmark (6)")
    landmarks.add_argument("--junk", type=natural, default=2, help="junk views a landmark, not for train (2)")
    landmarks.add_argument("--distractors", type=natural, default=500)
    landmarks.add_argument("--seed", type=natural, default=0)
    _machine(landmarks)
    landmarks.set_defaults(run=_landmarks)

    cli_files.register(commands)
    cli_store.register(commands)
    cli_curve.register(commands)
    cli_plot.register(commands)

    report = commands.add_parser("report", help="figures of a finished evaluation, without its model")
    report.add_argument("folder", type=Path, help="the run's folder, which holds scores.npz")
    report.add_argument("--num-rerank", type=positive, nargs="+", help="(default: as in the run)")
    report.add_argument("--lamb", type=float, nargs="+", help="lambda (default: as in the run)")
    report.add_argument("--temp", type=float, nargs="+", help="gamma (default: as in the run)")
    report.add_argument("--protocol", nargs="+", default=[], metavar="NAME", help="(default: the run's)")
    report.add_argument("--ground-truth", type=Path, help="the file, where it has moved since")
    report.set_defaults(run=_report)
    return parser


def _machine(parser: argparse.ArgumentParser, *, device: bool = False) -> None:
    workers = min(os.cpu_count() or 1, 8)
    parser.add_argument("--workers", type=natural, default=workers, help=f"processes, 0 = none ({workers})")
    if device:
        parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (cpu)")


def _demo(args: argparse.Namespace) -> None:
    from ames.pipelines.demo import run_demo

    check_device(args.device)
    run_demo(
        args.out,
        images=args.images,
        distractors=args.distractors,
        landmarks=args.landmarks,
        num_rerank=args.num_rerank,
        seed=args.seed,
        workers=args.workers,
        device=args.device,
        model=args.model,
        binary_model=args.binary_model,
    )


def _landmarks(args: argparse.Namespace) -> None:
    from ames.datasets.landmarks.build import DESCRIPTION, make_landmarks

    there = (args.folder / DESCRIPTION).is_file()
    path = make_landmarks(
        args.folder,
        split=args.split,
        landmarks=args.landmarks,
        easy=args.easy,
        hard=args.hard,
        junk=0 if args.split == "train" else args.junk,
        distractors=args.distractors,
        seed=args.seed,
        workers=args.workers,
    )
    print(f"{path}: is there already, of the same parameters" if there else path)


def _report(args: argparse.Namespace) -> None:
    from ames.evaluation.evaluate import judge_run, readable
    from ames.evaluation.protocols import left_out, query_counts
    from ames.evaluation.runs import Run
    from ames.reporting.report import format_table

    run = Run.load(args.folder)
    rows = judge_run(
        run,
        num_rerank=args.num_rerank,
        lamb=args.lamb,
        temp=args.temp,
        protocols=args.protocol,
        ground_truth=args.ground_truth,
    )
    counts = f"{run.about['query_desc_num']} x {run.about['db_desc_num']}"
    print(f"{run.about['model']} on {run.about['dataset']}, {counts} descriptors (%)")
    print(format_table(readable(rows)))
    for line in left_out(query_counts(run.truth(args.ground_truth), run.choose(args.protocol))):
        print(line)


if __name__ == "__main__":
    sys.exit(main())
