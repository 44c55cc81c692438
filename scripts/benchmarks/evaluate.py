"""A whole evaluation of a folder as large as ROxford beside a twin of the released one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.machine import timed

from ames.datasets.layout import DatasetFolder
from ames.evaluation.evaluate import Scoring
from ames.evaluation.protocols import HARD, MEDIUM
from ames.evaluation.sweep import Grid, Reranked, sweep
from ames.evaluation.test_set import TestSet, open_test_set
from ames.models.ames import AMES
from ames.reranking.scorer import ComputeConfig
from golden import data_root
from twins.released_evaluation import released_evaluation
from twins.released_model import ReleasedAMES

# 70 queries, 4,993 images: real ground truth, made-up descriptors of 64 dimensions.
CASE: dict[str, Any] = {"dataset": "roxford5k", "seed": 1, "desc_num": 400, "padded": False}
WIDTH, COUNT, KS = 64, 200, (100, 400)  # counts and ks: the released configuration's
LAMB, TEMP = 0.5, 0.5


def _prepared(folder: Path) -> DatasetFolder:
    """The data set, made once."""
    data = DatasetFolder(folder / CASE["dataset"], "dinov2")
    if not data.shortlist.is_file():
        shutil.rmtree(data.path, ignore_errors=True)
        data.path.mkdir(parents=True)
        data_root.make(folder, CASE, width=WIDTH, layout="float32")
    return data


def run(folder: Path, *, device: str = "cpu") -> list[dict[str, Any]]:
    """One row per side. The model is a small one, so that reading counts."""
    data = _prepared(folder)
    model = AMES(local_dim=WIDTH, model_dim=64, num_encoder_layers=2, dim_feedforward=128).eval()
    twin = ReleasedAMES(model).eval()
    protocols = (MEDIUM, HARD)

    def ours() -> tuple[TestSet, np.ndarray, list[dict[str, Any]]]:
        test = open_test_set(data, model)
        compute = ComputeConfig(devices=(device,), workers=1)
        scoring = Scoring(query_count=COUNT, database_count=COUNT, compute=compute)
        logits = np.asarray(scoring(model, test, protocols, KS).scores)
        reranked = Reranked(test.shortlist, logits, test.ground_truth, protocols)
        return test, logits, sweep(reranked, Grid(KS, [LAMB], [TEMP]))

    (test, logits, our_rows), our_seconds = timed(ours)
    paths = (test.queries.path, test.gallery.path)
    inputs = (twin, *paths, test.shortlist, test.ground_truth, protocols)
    settings = {"counts": (COUNT, COUNT), "ks": KS, "lamb": LAMB, "temp": TEMP}
    (twin_rows, scored), twin_seconds = timed(lambda: released_evaluation(*inputs, **settings))
    image = COUNT * test.gallery.image_bytes // test.gallery.slots
    used = len(np.unique(test.shortlist.ids[~np.isnan(logits)]))
    both = zip(our_rows, twin_rows, strict=True)
    gap = max(abs(a[key] - b[key]) for a, b in both for key in ("M_map", "H_map"))
    sides = (
        ("ames", our_seconds, np.isfinite(logits).sum(), test.gallery.bytes_read),
        ("twin", twin_seconds, scored, scored * image),
    )
    return [
        {
            "side": side,
            "seconds": seconds,
            "ratio": twin_seconds / seconds,
            "pairs scored": int(pairs),
            "gallery MB read": read / 1e6,
            "times each byte": read / (used * image),
            "mAP difference": gap,
        }
        for side, seconds, pairs, read in sides
    ]
