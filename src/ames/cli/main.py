"""The command ``ames``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ames import __version__
from ames.cli import (
    asmk,
    bench,
    benchmarks,
    class_sets,
    completion,
    curve,
    database,
    duplicates,
    embed,
    evaluate_photos,
    expand,
    explain,
    extract,
    inspect,
    models,
    photos,
    plot,
    serve,
)
from ames.cli.options import add_workers
from ames.errors import AmesError
from ames.io.console import (
    OneLineParser,
    add_device,
    check_device,
    ends_with_its_reader,
    natural,
    positive,
    tell,
)

HYDRA = {
    "train": "train a model: key=value ... (docs/training.md)",
    "train-detector": "train a feature detector: key=value ... (docs/detector.md)",
    "train-embedder": "train a global descriptor (AFF, RAML): key=value ... (docs/embedders.md)",
    "evaluate": "evaluate a model on a test set: key=value ... (docs/reproduce.md)",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; wrong input is one line on stderr and status 2."""
    words = sys.argv[1:] if argv is None else list(argv)
    with ends_with_its_reader():
        return _hydra(*words) if words and words[0] in HYDRA else _run(words)


def _run(words: list[str]) -> int:
    args, unknown = _parser().parse_known_args(words)
    command = f"ames {args.command}"
    if unknown:
        OneLineParser(prog=command).error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        args.run(args)
    except (AmesError, OSError, KeyboardInterrupt) as error:
        status = tell(command, error)
        if status is None:
            raise
        return status
    return 0


def _hydra(command: str, *words: str) -> int:
    """Run a command whose words are Hydra's."""
    module = importlib.import_module(f"ames.config.commands.{command.replace('-', '_')}")
    sys.argv = [f"ames {command}", *words]
    module.start()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="ames", description="Instance-level image retrieval.")
    parser.add_argument("--version", action="version", version=f"ames {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (photos, serve, explain, duplicates, evaluate_photos):
        module.register(commands)
    _register_demo(commands)
    for module in (extract, embed, expand):
        module.register(commands)
    _register_landmarks(commands)
    _register_products(commands)
    for module in (class_sets, benchmarks, inspect, asmk, database, curve, bench, plot, models):
        module.register(commands)
    _register_report(commands)
    completion.register(commands, _parser)
    for name, text in HYDRA.items():
        commands.add_parser(name, help=text, add_help=False)  # its words are Hydra's: see ``_hydra``
    return parser


def _register_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="search, re-rank and measure images; write a page of results",
        description="Search, re-rank and measure generated test landmarks, or your own photos.",
    )
    add = demo.add_argument
    add("--images", type=Path, help="folder with one sub-folder per object (default: generated images)")
    add("--distractors", default="distractors", help="sub-folder of --images without objects (distractors)")
    add("-o", "--out", type=Path, default=Path("demo"), help="folder of all output files (demo)")
    add("--backbone", help="aliked or rootsift (default: aliked where it is installed, else rootsift)")
    add("--num-rerank", type=positive, default=100, help="candidates to re-rank per query (100)")
    add("--landmarks", type=positive, default=40, help="number of generated landmarks (40)")
    add("--seed", type=natural, default=0, help="seed of the generated landmarks (0)")
    add("--model", type=Path, help="full-precision checkpoint (default: the shipped one)")
    add("--binary-model", type=Path, help="binary checkpoint (default: the shipped one)")
    add_workers(demo)
    add_device(demo)
    demo.set_defaults(run=_demo)


def _register_landmarks(commands: Any) -> None:
    landmarks = commands.add_parser("landmarks", help="draw a data set of generated landmarks")
    add = landmarks.add_argument
    add("folder", type=Path, help="folder of the data set: new, empty, or of the same parameters")
    add("--split", choices=("train", "val", "test"), required=True, help="splits share no landmark")
    add("--landmarks", type=positive, default=40, help="number of landmarks (40)")
    add("--easy", type=natural, default=4, help="easy views per landmark (4)")
    add("--hard", type=natural, default=6, help="hard views per landmark (6)")
    add("--junk", type=natural, default=2, help="junk views per landmark, not for train (2)")
    add("--distractors", type=natural, default=500, help="images of other landmarks or of none (500)")
    add("--seed", type=natural, default=0, help="another seed draws other landmarks (0)")
    add("--photos", type=Path, metavar="FOLDER", help="make the pictures of the photographs in this folder")
    add_workers(landmarks)
    landmarks.set_defaults(run=_landmarks)


def _register_products(commands: Any) -> None:
    products = commands.add_parser(
        "products", help="draw a data set of generated products, with class labels"
    )
    add = products.add_argument
    add("folder", type=Path, help="folder of the data set: new, empty, or of the same parameters")
    add("--split", choices=("train", "val", "test"), required=True, help="splits share no product")
    add("--products", type=positive, default=200, help="number of products, the classes (200)")
    add("--views", type=positive, default=10, help="pictures per product (10)")
    add("--side", type=positive, default=192, help="pixels of a picture's side (192)")
    add("--seed", type=natural, default=0, help="another seed draws other products (0)")
    add_workers(products)
    products.set_defaults(run=_products)


def _register_report(commands: Any) -> None:
    report = commands.add_parser("report", help="metrics of a finished evaluation, without its model")
    add = report.add_argument
    add("folder", type=Path, help="run folder with scores.npz")
    add("--num-rerank", type=positive, nargs="+", help="candidates to re-rank (default: those of the run)")
    add("--lamb", type=float, nargs="+", help="lambda (default: that of the run)")
    add("--temp", type=float, nargs="+", help="gamma (default: that of the run)")
    add("--protocol", nargs="+", default=[], metavar="NAME", help="protocols (default: those of the run)")
    add("--ground-truth", type=Path, help="the ground truth file, if it has moved")
    report.set_defaults(run=_report)


def _demo(args: argparse.Namespace) -> None:
    from ames.pipelines.demo import GeneratedLandmarks, OwnPhotos, run_demo

    check_device(args.device)
    generated = GeneratedLandmarks(args.landmarks, args.seed)
    run_demo(
        args.out,
        generated if args.images is None else OwnPhotos(args.images, args.distractors),
        backbone=args.backbone,
        num_rerank=args.num_rerank,
        workers=args.workers,
        device=args.device,
        model=args.model,
        binary_model=args.binary_model,
    )


def _products(args: argparse.Namespace) -> None:
    from ames.datasets.landmarks.products import ProductSet, make_products

    wanted = ProductSet(args.split, args.products, views=args.views, side=args.side, seed=args.seed)
    print(make_products(args.folder, wanted, workers=args.workers))


def _landmarks(args: argparse.Namespace) -> None:
    from ames.datasets.landmarks.build import DESCRIPTION, Parameters, make_landmarks

    existed = (args.folder / DESCRIPTION).is_file()
    parameters = Parameters(
        split=args.split,
        landmarks=args.landmarks,
        easy=args.easy,
        hard=args.hard,
        junk=0 if args.split == "train" else args.junk,
        distractors=args.distractors,
        seed=args.seed,
    )
    path = make_landmarks(args.folder, parameters, workers=args.workers, photos=args.photos)
    print(f"{path}: exists already, with the same parameters" if existed else path)


def _report(args: argparse.Namespace) -> None:
    from ames.evaluation.evaluate import counts_used, evaluate_run, readable
    from ames.evaluation.protocols import left_out, query_counts
    from ames.evaluation.runs import Run
    from ames.reporting.tables import format_table

    run = Run.load(args.folder)
    rows = evaluate_run(
        run,
        num_rerank=args.num_rerank,
        lamb=args.lamb,
        temp=args.temp,
        protocols=args.protocol,
        ground_truth=args.ground_truth,
    )
    print(f"{run.about['model']} on {run.about['dataset']}, {counts_used(run.about)} descriptors (%)")
    print(format_table(readable(rows)))
    for line in left_out(query_counts(run.truth(args.ground_truth), run.choose(args.protocol))):
        print(line)


if __name__ == "__main__":
    sys.exit(main())
