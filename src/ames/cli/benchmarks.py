"""``ames benchmark-lists``: the lists and the ground truth of a published benchmark."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ames.cli.options import add_examples


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
    written = write_benchmark_lists(args.out, found, overwrite=args.overwrite)
    queries = counted(len(found.queries), "query", "queries")
    print(f"{wanted.title}: {queries}, {counted(len(found.gallery), 'gallery image')}")
    if found.distractors is not None:
        print(f"distractors: those of {found.distractors.path}, behind the gallery")
    if wanted.query_box == "crop" and found.boxes is None:
        print(f"{found.source}: has no boxes, to which the queries of this benchmark are cropped")
    for line in left_out(query_counts(found.ground_truth(), wanted.protocols)):
        print(line)
    said = "lists and ground truth of paths below" if written else "has these files already, below"
    print(f"{args.out}: {said} {args.root}")
