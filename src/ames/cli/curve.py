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
    add("--precision", default="fp32", help="fp32, tf32, bf16, fp16, int8 (fp32)")
    add_device(curve)
    add("--workers", type=natural, default=0, help="threads that read ahead (0)")
    add("-o", "--out", type=Path, required=True, help="OUT.json and OUT.png are written")
    curve.set_defaults(run=_curve)


def _curve(args: argparse.Namespace) -> None:
    from ames.datasets.layout import DatasetFolder
    from ames.evaluation.evaluate import Scoring, readable
    from ames.evaluation.memory_curve import curve, draw, load_contenders
    from ames.evaluation.protocols import choose_protocols, left_out, query_counts
    from ames.evaluation.test_set import open_test_set
    from ames.reporting.tables import format_table
    from ames.reranking.fusion import Fusion
    from ames.reranking.scorer import ComputeConfig

    table, picture = _outputs(args.out)
    check_device(args.device)
    compute = ComputeConfig(devices=(args.device,), precision=args.precision, workers=args.workers)
    scorings = [
        Scoring(query_count=args.query_desc_num, database_count=count, compute=compute)
        for count in args.db_desc_num
    ]
    descriptors = args.descriptors or _prepared(args.folder)
    folder = DatasetFolder(args.folder, descriptors)
    paths, fusion = args.models or _shipped(descriptors), Fusion(args.lamb, args.temp)
    contenders = load_contenders(paths, backbone=descriptors, fusion=fusion)
    test = open_test_set(folder, contenders[0].model)
    protocols = choose_protocols(test.ground_truth, args.protocol)
    sizes = {"num_rerank": args.num_rerank, "extra_bytes": args.extra_bytes}
    rows = curve(test, contenders, protocols, scorings, **sizes)
    names = [p.name for p in protocols]
    counts = query_counts(test.ground_truth, protocols)
    about: dict[str, Any] = {"dataset": folder.name, "shortlist": test.shortlist_file.name}
    about |= {"protocols": names, "queries": counts}
    asked = {key: getattr(args, key) for key in ("query_desc_num", "num_rerank", "extra_bytes")}
    computed = {"precision": compute.precision, "device": args.device}
    with atomic_file(table) as file:
        file.write(json.dumps(about | asked | computed | {"rows": rows}, indent=1).encode())
    top = f"{folder.name}: {args.query_desc_num} query descriptors, first {args.num_rerank} re-ranked"
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
