"""Evaluation: a test set opened, each pair scored once, the metrics written and read again."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ames.datasets.layout import DatasetFolder
from ames.errors import AmesError
from ames.evaluation.protocols import Protocol, query_counts
from ames.evaluation.runs import RESULTS, Run
from ames.evaluation.sweep import (
    check_sweep,
    choose_fusion,
    columns,
    evaluate_initial,
    evaluate_reranked,
    metrics,
    needed,
    sweep,
    validation_metrics,
)
from ames.evaluation.test_set import TestSet, open_test_set
from ames.io.atomic import atomic_file
from ames.models.base import PairSimilarity
from ames.reranking.fusion import Fusion
from ames.reranking.score_cache import ScoreCache, scores_key
from ames.reranking.scorer import ComputeConfig, PairScorer
from ames.reranking.shortlist_scores import score_shortlist

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How pairs are scored.

    query_count, database_count: descriptors used of each image. workers: threads that read ahead.
    score_cache: folder for the scores of calls that were interrupted, from which the same call continues;
    None: none is kept.
    """

    query_count: int
    database_count: int
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    workers: int = 0
    score_cache: Path | None = None

    def __call__(
        self, model: PairSimilarity, test: TestSet, protocols: Sequence[Protocol], num_rerank: Sequence[int]
    ) -> Scores:
        """Scores every pair that some protocol re-ranks at some k."""
        scorer = PairScorer(model, self.compute)
        counts = {"query_count": self.query_count, "database_count": self.database_count}
        cache = None
        if self.score_cache is not None:
            cache = ScoreCache(self.score_cache, scores_key(scorer, test.queries, test.gallery, **counts))
            if len(cache):
                log.info("%d pairs were scored by an interrupted call: taken from there", len(cache))
        mask = needed(test.shortlist, test.ground_truth, protocols, num_rerank)
        logits = score_shortlist(
            scorer,
            test.queries,
            test.gallery,
            test.shortlist,
            mask=mask,
            workers=self.workers,
            cache=cache,
            **counts,
        )
        return Scores(logits, cache)


@dataclass(frozen=True, eq=False)
class Scores:
    """Logits float32 [Q, M] of a shortlist, NaN where no protocol needs the pair; ``cache`` until they are
    written elsewhere.
    """

    logits: np.ndarray
    cache: ScoreCache | None

    def clear_cache(self) -> None:
        """To be called when the scores are written, or needed no more."""
        if self.cache is not None:
            self.cache.clear()


@dataclass(frozen=True)
class Choice:
    """The combination that a validation split picked, its mean mAP there, the metrics of
    ``validation_metrics`` behind the mean, and the scores behind those.
    """

    num_rerank: int
    fusion: Fusion
    dataset: str
    reached: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    scores: Scores | None = field(default=None, compare=False)


def choose(
    test: TestSet,
    model: PairSimilarity,
    protocols: Sequence[Protocol],
    scoring: Scoring,
    *,
    num_rerank: Sequence[int],
) -> Choice:
    """Return the best fusion at the best of ``num_rerank``, the earlier of two equal ones."""
    check_sweep(test.shortlist, num_rerank, [0.0], [1.0])
    columns(protocols)
    scores = scoring(model, test, protocols, num_rerank)
    ranked = (test.shortlist, scores.logits, test.ground_truth, protocols)
    best: tuple[int, Fusion, float] | None = None
    for k in num_rerank:
        fusion, reached = choose_fusion(*ranked, num_rerank=k)
        if best is None or reached > best[2] + 1e-9:
            best = k, fusion, reached
    assert best is not None, "check_sweep refuses empty lists"
    k, fusion, reached = best
    found = validation_metrics(evaluate_reranked(*ranked, num_rerank=k, fusion=fusion))
    return Choice(k, fusion, test.folder.name, reached, found, scores)


def evaluate_folder(
    folder: DatasetFolder,
    model: PairSimilarity,
    protocols: Sequence[Protocol],
    scoring: Scoring,
    *,
    out: Path,
    num_rerank: Sequence[int],
    lamb: Sequence[float],
    temp: Sequence[float],
    description: str = "",
    files: Mapping[str, Any] | None = None,
    choice: Callable[[PairSimilarity], Choice] | None = None,
) -> dict[str, Any]:
    """Scores a prepared test set once, and judges every combination, and the one that ``choice`` makes.

    Writes ``out/results.json`` (what is returned) and ``out/scores.npz`` (``ames.evaluation.runs.Run``), from
    which other combinations follow. files: keywords of ``open_test_set``. ``choice`` is called when all else
    has been checked: it may take long. In the results, ``queries`` has what ``query_counts`` counts: the
    means leave queries without positives out.
    """
    columns(protocols)
    test = open_test_set(folder, model, **files or {})
    check_sweep(test.shortlist, num_rerank, lamb, temp)
    counts = query_counts(test.ground_truth, protocols)
    chosen = None if choice is None else choice(model)
    scores = scoring(model, test, protocols, num_rerank)
    about = {
        "dataset": folder.name,
        "model": description,
        "shortlist": test.shortlist_file.name,
        "query_desc_num": scoring.query_count,
        "db_desc_num": scoring.database_count,
        "precision": scoring.compute.precision,
    }
    asked = {"num_rerank": list(num_rerank), "lamb": list(lamb), "temp": list(temp)}
    results = about | {"queries": counts} | _all_metrics(test, scores.logits, protocols, asked, chosen)
    gallery_size, asked = len(test.ground_truth.imlist), about | asked
    Run(test.shortlist, scores.logits, test.ground_truth_file, gallery_size, tuple(protocols), asked).save(
        out
    )
    with atomic_file(out / RESULTS) as text:
        text.write(json.dumps(results, indent=1).encode())
    for done in (scores, chosen.scores if chosen else None):
        if done is not None:
            done.clear_cache()
    return results


def _all_metrics(
    test: TestSet,
    logits: np.ndarray,
    protocols: Sequence[Protocol],
    asked: Mapping[str, Any],
    chosen: Choice | None,
) -> dict[str, Any]:
    """The metrics of results: of the shortlist as it is, of every combination, of the chosen one."""
    ranked = (test.shortlist, logits, test.ground_truth, protocols)
    found: dict[str, Any] = {
        "initial": metrics(evaluate_initial(test.shortlist, test.ground_truth, protocols)),
        "rows": sweep(*ranked, **asked),
        "chosen": None,
    }
    if chosen is not None:
        k, fusion = chosen.num_rerank, chosen.fusion
        row = sweep(*ranked, num_rerank=[k], lamb=[fusion.lamb], temp=[fusion.gamma])[0]
        found["chosen"] = row | {"val_dataset": chosen.dataset, "val_map": round(chosen.reached, 3)}
    return found


def evaluate_run(
    run: Run,
    *,
    num_rerank: Sequence[int] | None = None,
    lamb: Sequence[float] | None = None,
    temp: Sequence[float] | None = None,
    protocols: Sequence[str] = (),
    ground_truth: Path | None = None,
) -> list[dict[str, Any]]:
    """Rows of a finished run, without its model: the initial ranking (num_rerank 0), then every combination.

    What is not given is as it was in the run. AmesError where a pair was not scored in the run.
    """
    grid: dict[str, Any] = {
        "num_rerank": run.about["num_rerank"] if num_rerank is None else num_rerank,
        "lamb": run.about["lamb"] if lamb is None else lamb,
        "temp": run.about["temp"] if temp is None else temp,
    }
    check_sweep(run.shortlist, *grid.values())
    chosen_protocols, truth = run.choose(protocols), run.truth(ground_truth)
    columns(chosen_protocols)
    if len(truth.queries) != len(run.logits):
        raise AmesError(f"the run has {len(run.logits)} queries, its ground truth {len(truth.queries)}")
    initial = metrics(evaluate_initial(run.shortlist, truth, chosen_protocols))
    try:
        rows = sweep(run.shortlist, run.logits, truth, chosen_protocols, **grid)
    except AmesError as error:
        most = max(run.about["num_rerank"])
        raise AmesError(f"{error}: the run scored what it re-ranks up to {most}; evaluate again") from error
    return [{"num_rerank": 0, "lamb": None, "temp": None} | initial, *rows]


def readable(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows for a table of text: no nested metrics, lambda and gamma in full."""
    found = []
    for row in rows:
        flat = {key: value for key, value in row.items() if not isinstance(value, dict)}
        blends = {k: "-" if row.get(k) is None else f"{row[k]:g}" for k in ("lamb", "temp") if k in row}
        found.append(flat | blends)
    return found


def objective(results: Mapping[str, Any]) -> float:
    """What a sweeper maximizes: the mean of medium and hard mAP (else ``map``, else the mean of all) of the
    chosen row, of the best where none was chosen; NaN where there is no figure.
    """
    rows = [results["chosen"]] if results["chosen"] else results["rows"]
    means = []
    for row in rows:
        names = [k for k in ("M_map", "H_map") if k in row] or [k for k in ("map",) if k in row]
        names = names or [k for k in row if k.endswith("_map") and k != "val_map"]
        values = [row[k] for k in names if row[k] is not None]
        means += [float(np.mean(values))] if values else []
    return max(means, default=float("nan"))
