"""``ames bench``: methods on data sets, one table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ames.cli.options import add_examples, add_workers, tell_progress
from ames.io.console import add_device, check_device


def register(commands: Any) -> None:
    """Add the command to the sub-parsers of ``ames``."""
    bench = commands.add_parser(
        "bench",
        help="methods × data sets: one table of mAP, bytes, milliseconds and memory",
        description="Measure methods on data sets, and write bench.md, bench.json, bench.csv, bench.tex and "
        "pictures. An interrupted call resumes (docs/benchmarks.md).",
    )
    add = bench.add_argument
    add(
        "suite",
        nargs="?",
        default="landmarks",
        metavar="SUITE",
        help="a suite of conf/bench, FILE.yaml, or the folder of a prepared data set (landmarks)",
    )
    add("-o", "--out", type=Path, default=Path("bench"), metavar="FOLDER", help="of all output files (bench)")
    add("--data", type=Path, metavar="FOLDER", help="that holds the data sets (default: data in --out)")
    add("--name", help="with a folder: the name in its descriptor files, such as rootsift")
    add(
        "--validation",
        type=Path,
        metavar="FOLDER",
        help="with a folder: the data set that choices are made on",
    )
    add("--benchmark", metavar="NAME", help="with a folder: its file of conf/benchmark, such as roxford5k")
    add("--precision", default="fp32", help="of scoring: fp32, tf32, bf16, fp16, int8 (fp32)")
    add("-q", "--quiet", action="store_true", help="print no messages but errors")
    add_workers(bench)
    add_device(bench)
    add_examples(
        bench,
        "ames bench -o bench",
        "ames bench my_suite.yaml --data data -o bench",
        "ames bench data/mine --name rootsift --validation data/mine-val",
    )
    bench.set_defaults(run=_bench)


def _bench(args: argparse.Namespace) -> None:
    from ames.bench.run import run_suite
    from ames.bench.suite import folder_suite, list_suites, read_suite
    from ames.errors import AmesError
    from ames.reporting.tables import format_table
    from ames.reranking.scorer import ComputeConfig

    tell_progress(args)
    check_device(args.device)
    folder = Path(args.suite)
    if folder.is_dir() and args.suite not in list_suites():  # ./landmarks is a folder of this name
        suite = folder_suite(folder, args.name, args.validation, args.benchmark)
    elif args.name or args.validation or args.benchmark:
        raise AmesError("--name, --validation and --benchmark belong to a folder: a suite says them itself")
    else:
        suite = read_suite(args.suite)
    if args.out.exists() and not args.out.is_dir():
        raise AmesError(f"{args.out}: not a folder; give another --out")
    say = (lambda line: None) if args.quiet else (lambda line: print(line, flush=True))
    report = run_suite(
        suite,
        args.out,
        data=args.data,
        workers=args.workers,
        compute=ComputeConfig(devices=(args.device,), precision=args.precision),
        say=say,
    )
    for name, table in report.tables.items():
        print(f"{suite.title}: {name}")
        print(format_table(table))
        for line in report.notes[name]:
            print(line)
    for path in report.files:
        print(path)
