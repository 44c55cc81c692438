"""Measure from which sameness on two photos show the same, on generated validation pictures.

    python scripts/measure_sameness.py --model rootsift_ames_dist data/val data/val-photos

Each folder is a set of `ames landmarks`. Its pictures become a collection in --out, all pairs that the global
search proposes are compared in both directions, and the labels say which are right. The lowest threshold, in
thousandths, at which PRECISION of the pairs of all folders together are right is the model's ``same`` in
``ames.models.registry``. Recall is over the right ones of the proposed pairs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import ames_retrieval.door  # noqa: F401 - sees to it that what follows is this library
from ames.datasets.ground_truth import load_ground_truth
from ames.datasets.layout import DatasetFolder
from ames.errors import AmesError
from ames.io.console import OneLineParser, run_script
from ames.models.registry import model_entry
from ames.reporting.tables import format_table
from ames.reranking.scorer import PairScorer
from ames.retrieval.duplicates import mutual_pairs
from ames.retrieval.indexing import index_photos
from ames.retrieval.retriever import Retriever

PRECISION = 0.95
STEPS = 1000  # thresholds in [0, 1]
SHOWN = (0.5, 0.9, 0.95, 0.98, 0.99)


def judged(first: str, second: str, junk: set[str]) -> bool | None:
    """Return whether two pictures, by the names that ``ames landmarks`` gives, show one landmark.

    junk: names of junk views. None: not judged: a junk view with its landmark, and two pictures of no
    landmark, which may share a background.
    """
    one, other = (name.rsplit("_", 1)[0] for name in (first, second))
    if one.startswith("clutter") and other.startswith("clutter"):
        return None
    if one == other and junk & {first, second}:
        return None
    return one == other


def lowest(same: np.ndarray, right: np.ndarray, precision: float) -> float | None:
    """Return the lowest threshold i / STEPS from which on so large a share of the pairs is right; None: at
    no threshold is it.
    """
    for threshold in np.arange(STEPS // 2, STEPS) / STEPS:
        kept = right[same >= threshold]
        if len(kept) and kept.mean() >= precision:
            return float(threshold)
    return None


def measure(folder: Path, model: str, out: Path, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sameness float64 [P] and bool [P], whether it is right, of the judged pairs of a set."""
    truth = load_ground_truth(DatasetFolder(folder, "").find_ground_truth(None))
    junk = {Path(truth.imlist[i]).name for query in truth.queries for i in query["junk"]}
    collection = out / f"{model}-{folder.name}"
    index_photos(folder / "images", collection, model, workers=workers)
    index = Retriever.open(collection)
    scorer = index.reranker.scorer
    if not isinstance(scorer, PairScorer):
        raise AmesError(f"{model} is list-wise: it scores lists, not pairs")
    pairs, names = mutual_pairs(index.database, scorer, threshold=0.0), index.database.names
    labels = [
        judged(names[first], names[second], junk)
        for first, second in zip(pairs.first, pairs.second, strict=True)
    ]
    known = np.array([label is not None for label in labels])
    return pairs.same[known], np.array([bool(label) for label in labels])[known]


def _row(name: str, threshold: float, same: np.ndarray, right: np.ndarray) -> dict[str, object]:
    kept = right[same >= threshold]
    return {
        "pictures": name,
        "threshold": f"{threshold:.3f}",
        "pairs": len(kept),
        "precision": 100 * float(kept.mean()) if len(kept) else None,
        "recall": 100 * int(kept.sum()) / max(int(right.sum()), 1),
    }


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="measure_sameness", description="Threshold of ames duplicates for a model.")
    parser.add_argument("folders", type=Path, nargs="+", help="sets of ames landmarks")
    parser.add_argument("--model", required=True, help="a name of ames models")
    parser.add_argument("--threshold", type=float, help="report this one; do not choose")
    parser.add_argument("--out", type=Path, default=Path("runs/sameness"), help="folder of the collections")
    parser.add_argument("--workers", type=int, default=1, help="processes of the extraction (1)")
    return parser


def main() -> None:
    args = _parser().parse_args()
    model_entry(args.model)
    found = {str(folder): measure(folder, args.model, args.out, args.workers) for folder in args.folders}
    same, right = (np.concatenate(parts) for parts in zip(*found.values(), strict=True))
    chosen = lowest(same, right, PRECISION) if args.threshold is None else args.threshold
    if chosen is None:
        raise AmesError(f"{args.model}: at no threshold are {100 * PRECISION:g} % of the pairs right")
    sets = found | {"all": (same, right)}
    shown = [x for x in SHOWN if args.threshold is None] + [chosen]
    print(format_table([_row(name, x, *pairs) for name, pairs in sets.items() for x in shown]))
    print(f"{args.model}: same={chosen:g}")


if __name__ == "__main__":
    run_script("measure_sameness", main)
