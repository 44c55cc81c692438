"""Commands of published benchmarks: ``ames benchmark-lists``, ``ames evaluate-benchmark``."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ames.cli.options import add_examples

if TYPE_CHECKING:
    from ames.evaluation.benchmark_files import BenchmarkResult


def register(commands: Any) -> None:
    """Add the command to the sub-parsers of ``ames``."""
    lists = commands.add_parser(
        "benchmark-lists",
        help="lists and ground truth of a published benchmark: ROxford, GLDv2, INSTRE, MET, ILIAS, places",
        description="Write test_query.txt, test_gallery.txt and gnd_<FOLDER>.json from the files of a "
        "benchmark as they are published (docs/protocols.md).",
    )
    add = lists.add_argument
    add("name", metavar="NAME", help="a file of conf/benchmark, such as roxford5k, or FILE.yaml")
    add("root", type=Path, metavar="ROOT", help="folder of the published files, with or without images")
    add("-o", "--out", type=Path, required=True, metavar="FOLDER", help="folder of the lists")
    add("--overwrite", action="store_true", help="replace files of other content")
    add_examples(
        lists,
        "ames benchmark-lists instre INSTRE -o data/instre",
        "ames benchmark-lists pitts30k datasets/pitts30k -o data/pitts30k",
    )
    lists.set_defaults(run=_lists)
    _register_evaluate(commands)


def _register_evaluate(commands: Any) -> None:
    evaluate = commands.add_parser(
        "evaluate-benchmark",
        help="every figure of a shortlist by the rules of a published benchmark: mAP, recall@k, GAP",
        description="Evaluate nn_<NAME> of a folder by conf/benchmark (docs/protocols.md).",
    )
    add = evaluate.add_argument
    add("folder", type=Path, metavar="FOLDER", help="folder of the lists, ground truth and shortlist")
    add("--benchmark", required=True, metavar="NAME", help="a file of conf/benchmark, or FILE.yaml")
    add("--name", required=True, help="beginning of the names of the descriptor files")
    add("--shortlist", metavar="FILE", help="another shortlist of the folder (nn_<NAME>)")
    add("--validation", type=Path, metavar="FOLDER", help="whose queries choose the rule of GAP (MET)")
    add("-o", "--out", type=Path, metavar="FILE", help="write the figures as JSON")
    add_examples(
        evaluate,
        "ames evaluate-benchmark data/pitts30k --benchmark pitts30k --name dinov2",
        "ames evaluate-benchmark data/met --benchmark met --name dinov2 --validation data/met-val",
    )
    evaluate.set_defaults(run=_evaluate)


def _lists(args: argparse.Namespace) -> None:
    from ames.config.benchmarks import benchmark
    from ames.datasets.benchmarks.benchmark_lists import check_images
    from ames.datasets.benchmarks.readers import read_lists_of
    from ames.datasets.benchmarks.writer import write_benchmark_lists
    from ames.evaluation.protocols import left_out, query_counts
    from ames.io.text import counted

    wanted = benchmark(args.name)
    found = read_lists_of(wanted.reader, args.root, wanted.files, skip_self=wanted.skip_self)
    sizes = wanted.size_notes(len(found.queries), len(found.gallery))
    for line in (*found.notes, *check_images(found), *sizes):
        print(line)
    for line in wanted.unsure:
        print(f"not verified: {line}")
    lines = left_out(query_counts(found.ground_truth(), wanted.protocols))  # what the rules cannot read
    written = write_benchmark_lists(args.out, found, overwrite=args.overwrite)
    queries = counted(len(found.queries), "query", "queries")
    print(f"{wanted.title}: {queries}, {counted(len(found.gallery), 'gallery image')}")
    if found.distractors is not None:
        print(f"distractors: those of {found.distractors.path}, behind the gallery")
    if wanted.query_box == "crop" and found.boxes is None:
        print(f"{found.source}: has no boxes, to which the queries of this benchmark are cropped")
    for line in lines:
        print(line)
    said = "lists and ground truth of paths below" if written else "has these files already, below"
    print(f"{args.out}: {said} {args.root}")


def _evaluate(args: argparse.Namespace) -> None:
    from ames.config.benchmarks import benchmark
    from ames.datasets.layout import DatasetFolder
    from ames.evaluation.benchmark_files import evaluate_benchmark
    from ames.evaluation.protocols import left_out, query_counts
    from ames.io.atomic import atomic_file
    from ames.reporting.tables import format_table

    rule = benchmark(args.benchmark)
    other = None if args.validation is None else DatasetFolder(args.validation, args.name)
    folder = DatasetFolder(args.folder, args.name)
    found = evaluate_benchmark(folder, rule, shortlist=args.shortlist, validation=other)
    print(f"{rule.title}: {found.shortlist} (%)")
    for protocol, figures in found.figures.items():
        cells = {name: "-" if math.isnan(x) else f"{x:.2f}" for name, x in figures.items()}
        print(format_table([{"protocol": protocol, **cells}]))
    if found.recognition is not None:
        known = found.recognition
        print(f"GAP {known.gap:.2f}, GAP- {known.gap_known:.2f}, ACC {known.accuracy:.2f}, by {known.rule}")
    elif rule.recognition:
        print("GAP needs --validation: its queries choose the number of neighbours and the temperature")
    for line in left_out(query_counts(found.ground_truth, rule.protocols)):
        print(line)
    if args.out is not None:
        with atomic_file(args.out) as file:
            file.write(json.dumps(_as_dict(found, rule.name), indent=1).encode())
        print(args.out)


def _as_dict(found: BenchmarkResult, name: str) -> dict[str, Any]:
    from dataclasses import asdict

    figures = {
        protocol: {key: None if math.isnan(x) else x for key, x in means.items()}
        for protocol, means in found.figures.items()
    }
    recognition = None if found.recognition is None else asdict(found.recognition)
    return {
        "benchmark": name,
        "shortlist": str(found.shortlist),
        "figures": figures,
        "recognition": recognition,
    }
