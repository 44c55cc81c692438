"""Commands for a person's own truth: ``ames evaluate-photos``, ``ames split``, ``ames suggest``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ames.cli.options import add_collection, add_examples, add_output, add_workers, show, tell_progress
from ames.io.console import add_device, check_device, natural, positive

_TRUTH = "a folder with a sub-folder per object, or a CSV file: photo,object or query,answer"


def register(commands: Any) -> None:
    """Add the commands to the sub-parsers of ``ames``."""
    evaluate = commands.add_parser(
        "evaluate-photos",
        help="measure a collection of own photos: which photos show the same, and are they found?",
        description="Search a collection of ames index with each photo of a truth, and measure the answers "
        "before and after re-ranking (docs/own_photos.md).",
    )
    _add_collection_and_truth(evaluate)
    evaluate.add_argument("-o", "--out", type=Path, metavar="PAGE", help="write a page, .html")
    evaluate.add_argument("--num-rerank", type=positive, default=100, help="photos to re-rank (100)")
    add_output(evaluate)
    add_workers(evaluate)
    add_device(evaluate)
    add_examples(
        evaluate,
        "ames evaluate-photos photos.db TRUTH",
        "ames evaluate-photos photos.db truth.csv -o report.html",
    )
    evaluate.set_defaults(run=_evaluate)
    _register_split(commands)
    _register_suggest(commands)


def _add_collection_and_truth(parser: argparse.ArgumentParser) -> None:
    add_collection(parser)
    parser.add_argument("truth", type=Path, metavar="TRUTH", help=_TRUTH)


def _register_split(commands: Any) -> None:
    split = commands.add_parser(
        "split",
        help="split a truth of own photos into parts that share no object",
        description="Write part-1.csv, part-2.csv, ... of a truth. No object is in two of them.",
    )
    split.add_argument("truth", type=Path, metavar="TRUTH", help=_TRUTH)
    split.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="folder of the CSV files")
    split.add_argument("--parts", type=_shares, default=(0.5, 0.5), help="shares of the objects (0.5,0.5)")
    split.add_argument("--seed", type=natural, default=0, help="another seed gives other parts (0)")
    add_examples(split, "ames split TRUTH -o parts --parts 0.5,0.5", "ames split truth.csv -o parts --seed 1")
    split.set_defaults(run=_split)


def _register_suggest(commands: Any) -> None:
    suggest = commands.add_parser(
        "suggest",
        help="choose lambda, gamma and the number of descriptors from own labelled photos",
        description="Choose settings of a collection on half of a truth's objects, and report them on the "
        "other half (docs/own_photos.md).",
    )
    _add_collection_and_truth(suggest)
    suggest.add_argument("--apply", action="store_true", help="write lambda and gamma into the collection")
    suggest.add_argument("--num-rerank", type=positive, default=100, help="photos to re-rank (100)")
    suggest.add_argument("--desc-num", type=positive, nargs="+", help="descriptors to try (10 25 50 100 200)")
    suggest.add_argument("--seed", type=natural, default=0, help="another seed splits otherwise (0)")
    add_output(suggest)
    add_workers(suggest)
    add_device(suggest)
    add_examples(suggest, "ames suggest photos.db TRUTH", "ames suggest photos.db truth.csv --apply")
    suggest.set_defaults(run=_suggest)


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(share) for share in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of shares such as 0.5,0.5") from None


def _evaluate(args: argparse.Namespace) -> None:
    from ames.pipelines.evaluate_photos import evaluate_photos

    check_device(args.device)
    tell_progress(args)
    found = evaluate_photos(
        args.database, args.truth, num_rerank=args.num_rerank, device=args.device, workers=args.workers
    )
    show(args, found, title=f"{args.truth} in {args.database}")


def _split(args: argparse.Namespace) -> None:
    from ames.datasets.photo_truth import read_truth, split, write_part

    truth = read_truth(args.truth)
    parts = split(truth, args.parts, seed=args.seed)
    for number, rows in enumerate(parts, 1):
        path = write_part(args.out / f"part-{number}.csv", truth, rows)
        print(f"{path}: {len(rows)} rows")


def _suggest(args: argparse.Namespace) -> None:
    from ames.pipelines.suggest import COUNTS, apply_fusion, suggest

    check_device(args.device)
    tell_progress(args)
    found = suggest(
        args.database,
        args.truth,
        num_rerank=args.num_rerank,
        seed=args.seed,
        counts=args.desc_num or COUNTS,
        device=args.device,
        workers=args.workers,
    )
    said = apply_fusion(args.database, found) if args.apply else None
    if args.json:
        print(json.dumps(found.as_dict() | {"applied": said}, indent=1))
        return
    print(found.text())
    print(said or "--apply writes the lambda and gamma of the last row into the collection")
