"""Evaluation of a model on a test set: score each pair once, write metrics, and read them again."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ames.database.store import slots_read
from ames.errors import AmesError
from ames.evaluation.protocols import Protocol, Result, query_counts
from ames.evaluation.runs import RESULTS, Run
from ames.evaluation.sweep import (
    Grid,
    Reranked,
    choose_fusion,
    columns,
    evaluate_initial,
    metrics,
    needed,
    sweep,
    validation_metrics,
)
from ames.evaluation.test_set import TestSet
from ames.io.atomic import atomic_file
from ames.models.base import PairSimilarity, Similarity
from ames.reranking.fusion import Fusion
from ames.reranking.list_scorer import ListScorer
from ames.reranking.list_scores import ListScores, ListSource
from ames.reranking.score_cache import ListCache, ScoreCache, scores_key
from ames.reranking.scorer import ComputeConfig, PairScorer
from ames.reranking.shortlist_scores import score_shortlist
from ames.reranking.windows import Windows

log = logging.getLogger(__name__)

C = TypeVar("C", ScoreCache, ListCache)


class Scores(NamedTuple):
    """Logits float32 [Q, M] of a shortlist, NaN where no protocol needs the pair, or those of lists, which
    are scored when they are needed; and their cache.
    """

    scores: np.ndarray | ListScores
    cache: ScoreCache | ListCache | None


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How pairs, or lists, are scored.

    query_count, database_count: descriptors used of each image. score_cache: folder that keeps the scores of
    an interrupted call, so that the same call resumes; None: nothing is kept. windows: of a list-wise model
    that reads fewer candidates than are re-ranked.
    """

    query_count: int
    database_count: int
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    score_cache: Path | None = None
    windows: Windows = field(default_factory=Windows)

    def __call__(
        self, model: Similarity, test: TestSet, protocols: Sequence[Protocol], num_rerank: Sequence[int]
    ) -> Scores:
        """Score every pair that some protocol re-ranks at some k; lists are scored later."""
        files, counts = (test.queries, test.gallery), (self.query_count, self.database_count)
        if not isinstance(model, PairSimilarity):
            lists = ListScorer(model, self.compute)
            kept = self._cache(ListCache, scores_key(lists, files, counts))
            source = ListSource(lists, *files, *counts)
            return Scores(ListScores(lists.window, self.windows, source, kept), kept)
        scorer = PairScorer(model, self.compute)
        cache = self._cache(ScoreCache, scores_key(scorer, files, counts))
        mask = needed(test.shortlist, test.ground_truth, protocols, num_rerank)
        logits = score_shortlist(
            scorer,
            *files,
            test.shortlist.where(mask),
            query_count=counts[0],
            database_count=counts[1],
            cache=cache,
        )
        return Scores(logits, cache)

    def _cache(self, kind: type[C], key: str) -> C | None:
        if self.score_cache is None:
            return None
        cache = kind(self.score_cache, key)
        if len(cache):
            log.info("%d scores of an interrupted call are used", len(cache))
        return cache


class Scored(NamedTuple):
    """Results of one fusion, the scores behind them, and the seconds of scoring, reading included."""

    results: dict[Protocol, Result]
    scores: np.ndarray | ListScores
    seconds: float


def score_once(
    scoring: Scoring,
    model: Similarity,
    test: TestSet,
    protocols: Sequence[Protocol],
    num_rerank: int,
    fusion: Fusion,
) -> Scored:
    """Score a test set and evaluate one fusion, with the time that scoring takes."""
    start = time.perf_counter()
    scores, _ = scoring(model, test, protocols, [num_rerank])
    seconds = time.perf_counter() - start
    results = Reranked(test.shortlist, scores, test.ground_truth, protocols).evaluate(num_rerank, fusion)
    if isinstance(scores, ListScores):  # lists are scored when they are ranked
        seconds = time.perf_counter() - start
    return Scored(results, scores, seconds)


@dataclass(frozen=True)
class Choice:
    """The combination that a validation split picked, its mean mAP there, and the ``validation_metrics`` that
    this is the mean of. cache: of the scores on the split.
    """

    num_rerank: int
    fusion: Fusion
    dataset: str
    reached: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    cache: ScoreCache | ListCache | None = field(default=None, compare=False)


def choose(
    test: TestSet,
    model: Similarity,
    protocols: Sequence[Protocol],
    scoring: Scoring,
    *,
    num_rerank: Sequence[int],
) -> Choice:
    """Return the best fusion at the best of ``num_rerank``, the earlier of two equal ones."""
    Grid(num_rerank).check(test.shortlist)
    columns(protocols)
    scores, cache = scoring(model, test, protocols, num_rerank)
    reranked = Reranked(test.shortlist, scores, test.ground_truth, protocols)
    found = {k: choose_fusion(reranked, k, unit=model.score_unit) for k in num_rerank}
    k = max(found, key=lambda k: round(found[k][1], 9))
    fusion, reached = found[k]
    own = validation_metrics(reranked.evaluate(k, fusion))
    return Choice(k, fusion, test.folder.name, reached, own, cache)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Results of a test set, the run that they follow from, and caches of its scores."""

    results: dict[str, Any]
    run: Run
    caches: Sequence[ScoreCache | ListCache | None]

    def save(self, out: Path) -> dict[str, Any]:
        """Write ``out/results.json``, which is returned, and ``out/scores.npz``; then clear the caches."""
        self.run.save(out)
        with atomic_file(out / RESULTS) as text:
            text.write(json.dumps(self.results, indent=1).encode())
        for cache in self.caches:
            if cache is not None:
                cache.clear()
        return self.results


def evaluate_test_set(
    test: TestSet,
    model: Similarity,
    protocols: Sequence[Protocol],
    scoring: Scoring,
    grid: Grid,
    *,
    description: str = "",
    choice: Callable[[Similarity], Choice] | None = None,
) -> Evaluation:
    """Score a test set once, and evaluate every combination of the grid, and the one that ``choice`` picks.

    ``choice`` is called after all other checks, because it may take long. In the results, ``queries`` has the
    counts of ``query_counts``: the means leave queries without positives out.
    """
    columns(protocols)
    grid.check(test.shortlist)
    counts = query_counts(test.ground_truth, protocols)
    chosen = None if choice is None else choice(model)
    scores, cache = scoring(model, test, protocols, grid.num_rerank)
    about = {
        "dataset": test.folder.name,
        "model": description,
        "shortlist": test.shortlist_file.name,
        "query_desc_num": scoring.query_count,
        "db_desc_num": scoring.database_count,
        "desc_num_used": [
            min(scoring.query_count, test.queries.slots),
            min(scoring.database_count, test.gallery.slots - slots_read(model, test.gallery, 0)),
        ],
        "precision": scoring.compute.precision,
    }
    reranked = Reranked(test.shortlist, scores, test.ground_truth, protocols)
    initial = metrics(evaluate_initial(test.shortlist, test.ground_truth, protocols))
    results = about | {"queries": counts, "initial": initial, "rows": sweep(reranked, grid), "chosen": None}
    if chosen is not None:
        row = sweep(reranked, Grid([chosen.num_rerank], [chosen.fusion.lamb], [chosen.fusion.gamma]))[0]
        results["chosen"] = row | {"val_dataset": chosen.dataset, "val_map": round(chosen.reached, 3)}
    gallery_size = len(test.ground_truth.imlist)
    asked = about | {key: list(values) for key, values in vars(grid).items()}
    run = Run(test.shortlist, scores, test.ground_truth_file, gallery_size, tuple(protocols), asked)
    return Evaluation(results, run, (cache, chosen.cache if chosen else None))


def evaluate_run(
    run: Run,
    *,
    num_rerank: Sequence[int] | None = None,
    lamb: Sequence[float] | None = None,
    temp: Sequence[float] | None = None,
    protocols: Sequence[str] = (),
    ground_truth: Path | None = None,
) -> list[dict[str, Any]]:
    """Return rows of a finished run, without its model: the initial ranking (num_rerank 0), then every
    combination.

    Arguments that are not given are as in the run. AmesError where a pair was not scored in the run.
    """
    asked = {"num_rerank": num_rerank, "lamb": lamb, "temp": temp}
    values: dict[str, Any] = {k: run.about[k] if given is None else given for k, given in asked.items()}
    grid = Grid(**values)
    grid.check(run.shortlist)
    chosen, truth = run.choose(protocols), run.truth(ground_truth)
    columns(chosen)
    if len(truth.queries) != len(run.shortlist.ids):
        raise AmesError(
            f"the run has {len(run.shortlist.ids)} queries, its ground truth {len(truth.queries)}"
        )
    initial = metrics(evaluate_initial(run.shortlist, truth, chosen))
    try:
        rows = sweep(Reranked(run.shortlist, run.scores, truth, chosen), grid)
    except AmesError as error:
        most = max(run.about["num_rerank"])
        raise AmesError(f"{error}: the run scored what it re-ranks up to {most}; evaluate again") from error
    return [{"num_rerank": 0, "lamb": None, "temp": None} | initial, *rows]


def counts_used(about: Mapping[str, Any]) -> str:
    """Return the numbers of descriptors that results come from, "query x database"; those that were asked for
    in results of earlier versions.
    """
    query, database = about.get("desc_num_used", (about["query_desc_num"], about["db_desc_num"]))
    return f"{query} x {database}"


def readable(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows for a table of text: without nested metrics, lambda and gamma with all digits."""

    def cell(key: str, value: Any) -> Any:
        if key not in ("lamb", "temp"):
            return value
        return "-" if value is None else f"{value:g}"

    return [{k: cell(k, v) for k, v in row.items() if not isinstance(v, dict)} for row in rows]


def objective(results: Mapping[str, Any]) -> float:
    """Return what a sweeper maximizes: the mean of medium and hard mAP (else ``map``, else the mean) of the
    chosen row, or of the best one where none was chosen; NaN where all are undefined.
    """
    rows = [results["chosen"]] if results["chosen"] else results["rows"]
    means = []
    for row in rows:
        names = [k for k in ("M_map", "H_map") if k in row] or [k for k in ("map",) if k in row]
        names = names or [k for k in row if k.endswith("_map") and k != "val_map"]
        values = [row[k] for k in names if row[k] is not None]
        means += [float(np.mean(values))] if values else []
    return max(means, default=float("nan"))
