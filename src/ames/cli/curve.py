"""The command that measures memory against accuracy: ``ames curve``."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from ames.errors import AmesError
from ames.io.atomic import atomic_file
from ames.io.console import add_device, check_device, natural, positive


def register(commands: Any) -> None:
    """Add the command to the sub-parsers of ``ames``."""
    curve = commands.add_parser(
        "curve",
        help="bytes per image against mAP, at several numbers of database descriptors",
        description="Score models on a prepared test set at each count; write OUT.json and OUT.png.",
    )
    add = curve.add_argument
    add("folder", type=Path, help="a prepared test set")
    add("--descriptors", help="of the folder's files (default: those with shipped models that are there)")
    add("--models", type=Path, nargs="+", metavar="FILE", help="checkpoints (default: the shipped two)")
    add("--db-desc-num", type=positive, nargs="+", default=[10, 25, 50, 100, 200], help="(10 25 50 100 200)")
    add("--query-desc-num", type=positive, default=200, help="descriptors of a query (200)")
    add("--num-rerank", type=positive, default=100, help="candidates re-ranked a query (100)")
    add("--lamb", type=float, default=0.0, help="lambda for checkpoints without their own (0)")
    add("--temp", type=float, default=1.0, help="gamma for checkpoints without their own (1)")
    add("--protocol", nargs="+", default=[], metavar="NAME", help="(default: those for the ground truth)")
    add("--extra-bytes", type=natural, default=0, help="bytes per image beside local descriptors (0)")
    add("--embedders", nargs="+", metavar="FILE[:QUERYFILE]", help="vectors against mAP instead, made here")
    add("--images", type=Path, help="with --embedders: the root of the lists' paths (default: the folder)")
    add("--boxes", help="with --embedders: what queries are cut to, as in ames prepare")
    add("--precision", default="fp32", help="fp32, tf32, bf16, fp16, int8 (fp32)")
    add_device(curve)
    add("--workers", type=natural, default=0, help="threads that read ahead (0)")
    add("-o", "--out", type=Path, required=True, help="OUT.json and OUT.png are written")
    curve.set_defaults(run=_curve)


def _curve(args: argparse.Namespace) -> None:
    from ames.datasets.layout import DatasetFolder
    from ames.evaluation.evaluate import Scoring
    from ames.evaluation.memory_curve import curve, draw, load_contenders
    from ames.evaluation.protocols import choose_protocols
    from ames.evaluation.test_set import open_test_set
    from ames.reranking.fusion import Fusion
    from ames.reranking.scorer import ComputeConfig

    _outputs(args.out)
    check_device(args.device)
    compute = ComputeConfig(devices=(args.device,), precision=args.precision, workers=args.workers)
    scorings = [
        Scoring(query_count=args.query_desc_num, database_count=count, compute=compute)
        for count in args.db_desc_num
    ]
    descriptors = args.descriptors or _prepared(args.folder)
    folder = DatasetFolder(args.folder, descriptors)
    paths = args.models or ([] if args.embedders else _shipped(descriptors))
    contenders = load_contenders(paths, backbone=descriptors, fusion=Fusion(args.lamb, args.temp))
    if args.embedders:
        _vector_curve(args, folder, contenders, scorings)
        return
    test = open_test_set(folder, contenders[0].model)
    protocols = choose_protocols(test.ground_truth, args.protocol)
    sizes = {"num_rerank": args.num_rerank, "extra_bytes": args.extra_bytes}
    rows = curve(test, contenders, protocols, scorings, **sizes)
    about = {"dataset": folder.name, "shortlist": test.shortlist_file.name, "precision": compute.precision}
    _report(args, draw, rows, about, test.ground_truth, protocols)


def _vector_curve(args: argparse.Namespace, folder: Any, contenders: Any, scorings: Any) -> None:
    from ames.evaluation.protocols import choose_protocols
    from ames.evaluation.test_set import open_test_set
    from ames.evaluation.vector_curve import Reranked, draw_vectors, vector_curve
    from ames.extraction.config import ExtractionConfig
    from ames.pipelines.vector_curve import open_truth, parse_pair, vector_sources

    truth = open_truth(folder)
    protocols = choose_protocols(truth, args.protocol)
    reranked = None
    if contenders:
        test = open_test_set(folder, contenders[0].model)
        reranked = Reranked(test, contenders, scorings, args.num_rerank)
    config = ExtractionConfig(workers=args.workers, device=args.device, batch_size=32)
    places = {"images": args.images, "boxes": args.boxes, "say": print}
    pairs = [parse_pair(word) for word in args.embedders]
    sources = vector_sources(folder, pairs, config, truth, **places)
    rows = vector_curve(truth, sources, protocols, reranked, extra_bytes=args.extra_bytes)
    about = {"dataset": folder.name, "shortlists": {x.name: x.file.name for x in sources}}
    about |= {"precision": scorings[0].compute.precision}
    _report(args, draw_vectors, rows, about, truth, protocols)


def _report(
    args: argparse.Namespace, draw: Any, rows: Any, about: dict[str, Any], truth: Any, protocols: Any
) -> None:
    """Write and print rows of a curve, and its picture."""
    from ames.evaluation.evaluate import readable
    from ames.evaluation.protocols import left_out, query_counts
    from ames.reporting.tables import format_table

    table, picture = _outputs(args.out)
    names, counts = [p.name for p in protocols], query_counts(truth, protocols)
    about = about | {"protocols": names, "queries": counts}
    asked = {key: getattr(args, key) for key in ("query_desc_num", "num_rerank", "extra_bytes")}
    asked |= {"device": args.device}
    with atomic_file(table) as file:
        file.write(json.dumps(about | asked | {"rows": rows}, indent=1).encode())
    top = about["dataset"]
    if any(row["db_desc_num"] for row in rows):
        top += f": {args.query_desc_num} query descriptors, first {args.num_rerank} re-ranked"
    print(f"{top} (%)")
    print(format_table(readable(rows)))
    for line in left_out(counts):
        print(line)
    print(f"metrics: {table}")
    mean = f"mean mAP of {', '.join(names)} (%)" if len(names) > 1 else f"mAP, {names[0]} (%)"
    print(f"picture: {draw(rows, picture, label=mean, title=top)}")


def _prepared(folder: Path) -> str:
    """The backbone with shipped models whose shortlist is in the folder; of two, the default one."""
    from ames.backbones.choice import BUILT_IN, LEARNED, default_backbone
    from ames.datasets.layout import DatasetFolder

    there = [name for name in (LEARNED, BUILT_IN) if DatasetFolder(folder, name).shortlist.is_file()]
    return there[0] if len(there) == 1 else default_backbone()


def _shipped(descriptors: str) -> list[Path]:
    from ames.models.registry import all_shipped_for
    from ames.weights import shipped_path

    names = [
        name for binarized in (False, True) for name in all_shipped_for(descriptors, binarized=binarized)
    ]
    if not names:
        raise AmesError(f"--models is missing: no weights for {descriptors} descriptors are shipped")
    return [shipped_path(name) for name in names]


def _outputs(out: Path) -> tuple[Path, Path]:
    """OUT.json and OUT.png; AmesError where they cannot be written, before scoring takes its time."""
    if out.suffix in (".json", ".png"):
        out = out.with_suffix("")
    if not out.name:
        raise AmesError(f"--out {out}: is a folder; give the beginning of the files' names, DIR/NAME")
    paths = [out.with_name(out.name + ending) for ending in (".json", ".png")]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise AmesError(f"{paths[0]}: cannot be written ({error.strerror or error})") from error
    for path in paths:
        if path.is_dir():
            raise AmesError(f"{path}: is a folder; give another --out")
    return paths[0], paths[1]
