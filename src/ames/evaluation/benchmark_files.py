"""A published benchmark on disk: a shortlist evaluated by every rule of its file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ames.datasets.ground_truth import GroundTruth, load_ground_truth
from ames.datasets.layout import DatasetFolder
from ames.datasets.lists import read_list
from ames.errors import AmesError
from ames.evaluation.benchmarks import Benchmark
from ames.evaluation.chains import check_list
from ames.evaluation.protocol_figures import evaluate_protocol
from ames.evaluation.recognition import (
    UNKNOWN,
    RecognitionFigures,
    choose_rule,
    predict,
    recognition_figures,
)
from ames.evaluation.runs import padded
from ames.global_search.shortlist import Shortlist


@dataclass(frozen=True, eq=False)
class BenchmarkResult:
    """shortlist: its file. figures: protocol -> figure -> mean in percent, NaN where no query has one.

    recognition: GAP and others; None: the benchmark has none, or no validation set was given.
    """

    shortlist: Path
    figures: dict[str, dict[str, float]]
    ground_truth: GroundTruth
    recognition: RecognitionFigures | None = None


def evaluate_benchmark(
    folder: DatasetFolder,
    benchmark: Benchmark,
    *,
    shortlist: str | None = None,
    validation: DatasetFolder | None = None,
) -> BenchmarkResult:
    """Evaluate a folder's shortlist (None: that of its descriptors) by the rules of a benchmark.

    validation: the folder whose queries choose K and temperature of the recognition; its gallery must be the
    same. AmesError where lists, ground truth and shortlist are not of the same images.
    """
    truth, found, path = _open(folder, shortlist)
    figures = {p.name: evaluate_protocol(found.ids, truth, p).means for p in benchmark.protocols}
    recognition = None
    if benchmark.recognition and validation is not None:
        other, chosen_on, _ = _open(validation, shortlist)
        if other.imlist != truth.imlist:
            raise AmesError(f"{validation.path}: its gallery is not that of {folder.path}")
        gallery, val_queries = _classes(validation)
        rule = choose_rule(chosen_on.ids, chosen_on.similarities, gallery, val_queries, benchmark.recognition)
        gallery, queries = _classes(folder)
        predictions = predict(found.ids, found.similarities, gallery, rule)
        recognition = recognition_figures(predictions, queries, rule)
    return BenchmarkResult(path, figures, truth, recognition)


def _open(folder: DatasetFolder, shortlist: str | None) -> tuple[GroundTruth, Shortlist, Path]:
    """Ground truth, shortlist and the shortlist's file of a folder, checked against each other."""
    truth_file, path = folder.find_ground_truth(), folder.find_shortlist(shortlist)
    truth = load_ground_truth(truth_file)
    for split, names in (("query", truth.qimlist), ("gallery", truth.imlist)):
        check_list(folder.image_list(split), names, truth_file)
    found = Shortlist.load(path)
    if len(found.ids) != len(truth.queries):
        raise AmesError(f"{path}: {len(found.ids)} queries, but {len(truth.queries)} in {truth_file}")
    listed_or_found = max(len(truth.imlist), int(found.ids.max(initial=-1)) + 1)
    size = int(found.meta.get("gallery_size") or listed_or_found)
    if size < len(truth.imlist):
        said = f"of a gallery of {size} images, but {len(truth.imlist)} in {truth_file}"
        raise AmesError(f"{path}: {said}: make the shortlist again")
    return padded(truth, size), found, path


def _classes(folder: DatasetFolder) -> tuple[np.ndarray, np.ndarray]:
    """Classes int64 of gallery and queries, ``UNKNOWN`` of a query without a label."""
    gallery, queries = (
        [item.label for item in read_list(folder.image_list(split))] for split in ("gallery", "query")
    )
    unlabelled = next((row for row, label in enumerate(gallery, 1) if label is None), None)
    if unlabelled is not None:
        raise AmesError(f"{folder.image_list('gallery')}: image {unlabelled} has no label, which GAP needs")
    names = {label: number for number, label in enumerate(dict.fromkeys(gallery))}
    return (
        np.array([names[label] for label in gallery], np.int64),
        np.array([UNKNOWN if label is None else names.get(label, UNKNOWN) for label in queries], np.int64),
    )
