"""Measure the library beside twins of the released code, in one run on one machine.

    python scripts/benchmark.py scoring|evaluate|loader|train|database|search [--json OUT]
    python scripts/benchmark.py elvis|rrt|locore|asmk [--json OUT]
    python scripts/benchmark.py all --device cuda [--markdown OUT.md] [--minutes 8]

"all" measures scoring, training, search, evaluation and reads, in this order, and begins none of them after
the given minutes. A part whose libraries are missing is left out, which is said: scoring needs torch and
numpy alone. The twins are in tests/twins. docs/performance.md keeps the tables.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import torch
from benchmarks import machine

import ames_retrieval.door  # noqa: F401 - ends the script if another package is named ames
from ames.errors import AmesError
from ames.io.console import OneLineParser, positive, run_script
from ames.reporting.tables import format_table, table_cells

PARTS = ("scoring", "train", "search", "evaluate", "loader")
MORE = ("database", "elvis", "rrt", "locore", "asmk")  # that "all" leaves out


def main() -> None:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("all", *PARTS, *MORE))
    parser.add_argument("--json", type=Path, help="file for the rows and the machine")
    parser.add_argument("--device", default="cpu", help="torch's name (default: cpu)")
    parser.add_argument("--threads", type=int, help="of the CPU (default: as torch finds them)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, of which the median counts")
    pairs = "scoring, elvis, rrt"
    parser.add_argument("--pairs", type=int, default=16, help=f"{pairs}: database images of the query")
    parser.add_argument("--sizes", nargs="+", help=f"{pairs}: query x database descriptors, as 600x50")
    parser.add_argument("--candidates", type=positive, default=100, help="locore: images of the list (100)")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], help="scoring")
    parser.add_argument(
        "--images", type=positive, help="made-up images: database (1000000), search (100000), asmk (5000)"
    )
    parser.add_argument("--global-factory", default="PCA64,SQ8", help="database: FAISS factory")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark"), help="for data that is made")
    parser.add_argument("--minutes", type=float, default=8.0, help="all: no part begins later (8)")
    parser.add_argument("--markdown", type=Path, help="file for the tables, as docs/performance.md has them")
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise AmesError(f"device {args.device}: no CUDA device here")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    about = machine.describe(args.device)
    print(", ".join(f"{key}: {value}" for key, value in about.items()), flush=True)
    start, tables = time.perf_counter(), {}
    for part in PARTS if args.what == "all" else (args.what,):
        if args.what == "all" and time.perf_counter() - start > 60 * args.minutes:
            print(f"{part}: left out, {args.minutes:g} minutes are over")
            continue
        try:
            tables[part] = measure(args, part)
        except ModuleNotFoundError as error:
            if args.what != "all":
                raise
            print(f"{part}: left out, {error.name} is not installed")
            continue
        heading = f"\n{part}\n" if args.what == "all" else ""
        print(f"{heading}{format_table(texts(tables[part]))}", flush=True)
    for path, text in (
        (args.json, json.dumps({"machine": about, **tables}, indent=1)),
        (args.markdown, markdown(tables)),
    ):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def texts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cells of a table: three digits of numbers below 1,000."""
    return [{key: _text(value) for key, value in row.items()} for row in rows]


def markdown(tables: dict[str, list[dict[str, Any]]]) -> str:
    """The tables as Markdown, one below the other."""
    parts = []
    for name, rows in tables.items():
        columns, cells = table_cells(texts(rows))
        lines = [[column.name for column in columns], ["---"] * len(columns), *cells]
        parts.append("\n".join([f"### {name}", "", *(f"| {' | '.join(line)} |" for line in lines), ""]))
    return "\n".join(parts)


def measure(args: argparse.Namespace, part: str) -> list[dict[str, Any]]:
    usual = {"repeats": args.repeats, "device": args.device}
    scoring = {
        "sizes": args.sizes and [parse_size(text) for text in args.sizes],
        "pairs": args.pairs,
        **usual,
    }
    options: dict[str, dict[str, Any]] = {
        "scoring": scoring | {"precisions": args.precisions},
        "elvis": scoring,
        "rrt": scoring | {"precisions": args.precisions},
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
        "asmk": {"images": args.images or 5000, "repeats": args.repeats},
        "locore": {"candidates": args.candidates, **usual},
    }
    return import_module(f"benchmarks.{part}").run(**options[part])


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
