"""Measure the library beside twins of the released code, in one run on one machine.

    python scripts/benchmark.py scoring|evaluate|loader|train|database|search [--json OUT] [--device cuda]

The twins are in tests/twins. docs/performance.md keeps the tables.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import torch
from benchmarks import machine

import ames_retrieval.door  # noqa: F401 - ends the script if another package is named ames
from ames.errors import AmesError
from ames.io.console import OneLineParser, positive, run_script
from ames.reporting.tables import format_table


def main() -> None:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("scoring", "evaluate", "loader", "train", "database", "search"))
    parser.add_argument("--json", type=Path, help="file for the rows and the machine")
    parser.add_argument("--device", default="cpu", help="torch's name (default: cpu)")
    parser.add_argument("--threads", type=int, help="of the CPU (default: as torch finds them)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, of which the median counts")
    parser.add_argument("--pairs", type=int, default=16, help="scoring: database images of the query")
    parser.add_argument("--sizes", nargs="+", help="scoring: query x database descriptors, as 600x50")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], help="scoring")
    parser.add_argument("--images", type=positive, help="made-up images: database (1000000), search (100000)")
    parser.add_argument("--global-factory", default="PCA64,SQ8", help="database: FAISS factory")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark"), help="for data that is made")
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise AmesError(f"device {args.device}: no CUDA device here")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    rows = measure(args)
    about = machine.describe(args.device)
    print(", ".join(f"{key}: {value}" for key, value in about.items()))
    print(format_table([{key: _text(value) for key, value in row.items()} for row in rows]))
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"what": args.what, "machine": about, "rows": rows}, indent=1))


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    usual = {"repeats": args.repeats, "device": args.device}
    options: dict[str, dict[str, Any]] = {
        "scoring": {
            "sizes": args.sizes and [parse_size(text) for text in args.sizes],
            "precisions": args.precisions,
            "pairs": args.pairs,
            **usual,
        },
        "evaluate": {"folder": args.folder, "device": args.device},
        "loader": {"folder": args.folder, "images": 2000, "seed": 0},
        "train": usual,
        "database": {
            "folder": args.folder,
            "images": args.images or 1_000_000,
            "factory": args.global_factory,
            "repeats": args.repeats,
        },
        "search": {"images": args.images or 100_000, **usual},
    }
    return import_module(f"benchmarks.{args.what}").run(**options[args.what])


def _text(value: Any) -> Any:
    """Three digits of a number below 1,000."""
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else value


def parse_size(text: str) -> tuple[int, int]:
    try:
        n, m = (int(x) for x in text.split("x"))
    except ValueError as error:
        raise AmesError(f"size {text!r}: give query x database descriptors, as 600x50") from error
    return n, m


if __name__ == "__main__":
    run_script("benchmark", main)
