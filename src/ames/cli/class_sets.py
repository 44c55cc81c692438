"""Commands of class-labelled data sets: ``ames class-lists``, ``ames evaluate-classes``."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ames.cli.options import add_examples
from ames.io.console import natural

if TYPE_CHECKING:
    from ames.evaluation.class_metrics import ClassResult
    from ames.evaluation.class_protocol import ClassProtocol


# Those of ames.datasets.classes.readers, which takes long to import for every command's parser.
KINDS = ("cub", "cars196", "sop", "inshop", "gldv2-clean", "folder", "csv")


def register(commands: Any) -> None:
    """Add the commands to the sub-parsers of ``ames``."""
    lists = commands.add_parser(
        "class-lists",
        help="lists of a data set with classes: CUB, Cars196, SOP, In-Shop, GLDv2-clean, own labels",
        description="Write train.txt, test_query.txt and test_gallery.txt, path,label a line, from the lists "
        "of an archive or from own labels (docs/class_datasets.md).",
    )
    add = lists.add_argument
    add("kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    add("root", type=Path, metavar="ROOT", help="folder of the archive or of the images; csv: the file")
    add("-o", "--out", type=Path, required=True, metavar="FOLDER", help="folder of the lists")
    add("--train-share", type=float, metavar="SHARE", help="own labels: of the classes that train (0.5)")
    add("--seed", type=natural, help="own labels: another seed draws other classes (0)")
    add("--overwrite", action="store_true", help="replace lists of other content")
    add_examples(
        lists,
        "ames class-lists sop Stanford_Online_Products -o data/sop",
        "ames class-lists folder PHOTOS -o data/mine --train-share 0.5",
    )
    lists.set_defaults(run=_lists)
    _register_evaluate(commands)


def _register_evaluate(commands: Any) -> None:
    evaluate = commands.add_parser(
        "evaluate-classes",
        help="recall@k and mAP of global descriptors on a data set with classes",
        description="Search for each query's class with <NAME>_query_global.hdf5 and "
        "<NAME>_gallery_global.hdf5 (docs/class_datasets.md).",
    )
    add = evaluate.add_argument
    add("folder", type=Path, metavar="FOLDER", help="folder of the lists and of the descriptors")
    add("--name", required=True, help="beginning of the names of the descriptor files")
    add("--query-name", metavar="NAME", help="of the queries' file, for an asymmetric search (--name)")
    add(
        "--protocol", required=True, help="cub, cars196, sop, sop-rrt, inshop, own, own-gallery, or FILE.yaml"
    )
    add("-o", "--out", type=Path, metavar="FILE", help="write the figures as JSON")
    add_examples(
        evaluate,
        "ames evaluate-classes data/sop --name dinov2 --protocol sop",
        "ames evaluate-classes data/cub --name teacher --query-name student --protocol cub -o figures.json",
    )
    evaluate.set_defaults(run=_evaluate)


def _lists(args: argparse.Namespace) -> None:
    from ames.config.classes import published_sizes
    from ames.datasets.classes.class_lists import write_class_lists
    from ames.datasets.classes.class_set import differences, numbers
    from ames.datasets.classes.own import ClassRule
    from ames.datasets.classes.readers import read_class_set

    given = {"share": args.train_share, "seed": args.seed}
    given = {key: value for key, value in given.items() if value is not None}
    found = read_class_set(args.kind, args.root, ClassRule(**given) if given else None)
    for line in (*found.notes, *differences(found, published_sizes(args.kind))):
        print(line)
    written = write_class_lists(args.out, found, overwrite=args.overwrite)
    for name, split in found.splits().items():
        print(f"{name}: {numbers(split)}")
    if found.query is not None and found.gallery is None:
        print("gallery: the queries; each is searched for among the others")
    print(
        f"{args.out}: {'lists of paths below' if written else 'has these lists already, below'} {found.root}"
    )


def _evaluate(args: argparse.Namespace) -> None:
    from ames.config.classes import class_protocol
    from ames.evaluation.class_files import open_class_test_set
    from ames.io.atomic import atomic_file
    from ames.io.text import counted
    from ames.reporting.tables import format_table

    protocol = class_protocol(args.protocol)
    test = open_class_test_set(args.folder, args.name, protocol, query_name=args.query_name)
    result = test.evaluate(protocol)
    names = {"query": args.query_name or args.name, "gallery": args.name}
    removed = "each searched for among the others" if protocol.skip_self else "apart"
    print(
        f"{args.folder}: {counted(len(test.query), 'query', 'queries')}, "
        f"{counted(len(test.gallery), 'gallery image')}, {removed}; protocol {protocol.name} (%)"
    )
    print(format_table([names | _row(result, protocol)]))
    if result.num_without:
        said = counted(result.num_without, "query has", "queries have")
        print(f"{said} no image of the class to find: a miss in recall, left out of mAP")
    if protocol.transform != "any":
        print(f"published figures are of the test transform {protocol.transform!r}, which is not checked")
    if args.out is not None:
        figures = names | {"folder": str(args.folder)} | _as_dict(result, protocol)
        figures |= {"images": {"query": len(test.query), "gallery": len(test.gallery)}}
        with atomic_file(args.out) as file:
            file.write(json.dumps(figures, indent=1).encode())
        print(args.out)


def _row(result: ClassResult, protocol: ClassProtocol) -> dict[str, str]:
    """Figures with two decimals, as they are published."""
    cells = {f"R@{k}": value for k, value in result.recall.items()}
    cells |= {protocol.heading(rule): value for rule, value in result.map.items()}
    return {name: "-" if math.isnan(value) else f"{value:.2f}" for name, value in cells.items()}


def _as_dict(result: ClassResult, protocol: ClassProtocol) -> dict[str, Any]:
    from dataclasses import asdict

    means = {rule: None if math.isnan(value) else value for rule, value in result.map.items()}
    return {
        "protocol": asdict(protocol),
        "recall": {str(k): value for k, value in result.recall.items()},
        "map": means,
        "without_positive": result.num_without,
    }
