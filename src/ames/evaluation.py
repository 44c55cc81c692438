"""Evaluation: score each pair once, then every (num_rerank, lambda, gamma) and protocol from the scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from ames.data.atomic import atomic_file
from ames.data.descriptors import DescriptorFile, check_backbone
from ames.data.folder import DatasetFolder
from ames.data.ground_truth import GroundTruth, load_ground_truth
from ames.data.shortlist import Shortlist
from ames.errors import AmesError
from ames.models.base import Similarity
from ames.protocols import Protocol, Result, evaluate, ideal
from ames.rerank import junk_of, needed, rerank, score_shortlist
from ames.runs import RESULTS, Run, padded

# The grid that a validation split chooses from.
LAMBDAS = tuple(round(0.05 * i, 2) for i in range(20))
GAMMAS = (0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0)

PREFIXES = {"easy": "E", "medium": "M", "hard": "H", "public": "pub", "private": "priv"}


@dataclass(frozen=True)
class Blend:
    """lambda and gamma of the blend lambda * s_global + (1 - lambda) * sigmoid(gamma * logit)."""

    lamb: float
    temp: float


def column(protocol: Protocol, figure: str) -> str:
    """The key of a figure in results: M_map, H_mp, pub_map; ``map`` alone where one protocol is all."""
    prefix = PREFIXES.get(protocol.name, "")
    return f"{prefix}_{figure}" if prefix else figure


def figures(results: dict[Protocol, Result]) -> dict[str, Any]:
    """{"M_map": ..., "M_mp": {"1": ..., "5": ..., "10": ...}, ...} in percent; None where no query has a
    positive.
    """
    row: dict[str, Any] = {}
    for protocol, result in results.items():
        row[column(protocol, "map")] = _rounded(result.map)
        row[column(protocol, "mp")] = {str(k): _rounded(v) for k, v in result.mp.items()}
    return row


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 3)  # JSON has no NaN


def judge_initial(
    shortlist: Shortlist, ground_truth: GroundTruth, protocols: Sequence[Protocol]
) -> dict[Protocol, Result]:
    """The shortlist as it is."""
    return {p: evaluate(shortlist.ids, ground_truth, p) for p in protocols}


def judge_ideal(
    shortlist: Shortlist, ground_truth: GroundTruth, protocols: Sequence[Protocol], num_rerank: int
) -> dict[Protocol, Result]:
    """A perfect re-ranking of the first ``num_rerank`` entries: the most that any model can reach."""
    return {
        p: evaluate(ideal(shortlist.ids, ground_truth, p, num_rerank), ground_truth, p) for p in protocols
    }


def judge(
    shortlist: Shortlist,
    logits: np.ndarray,
    ground_truth: GroundTruth,
    protocols: Sequence[Protocol],
    *,
    num_rerank: int,
    blend: Blend,
) -> dict[Protocol, Result]:
    """The re-ranked shortlist; logits float32 [Q, M] of ``ames.rerank.score_shortlist``."""
    results = {}
    for protocol in protocols:
        ranking = rerank(
            shortlist,
            logits,
            junk_of(ground_truth, protocol),
            num_rerank=num_rerank,
            lamb=blend.lamb,
            temp=blend.temp,
            queries=protocol.queries,
        )
        results[protocol] = evaluate(ranking, ground_truth, protocol)
    return results


def sweep(
    shortlist: Shortlist,
    logits: np.ndarray,
    ground_truth: GroundTruth,
    protocols: Sequence[Protocol],
    *,
    num_rerank: Iterable[int],
    lamb: Iterable[float],
    temp: Iterable[float],
) -> list[dict[str, Any]]:
    """One row for every combination, in the order given."""
    rows = []
    for k, a, t in product(num_rerank, lamb, temp):
        results = judge(shortlist, logits, ground_truth, protocols, num_rerank=k, blend=Blend(a, t))
        rows.append({"num_rerank": k, "lamb": a, "temp": t} | figures(results))
    return rows


def tune(
    shortlist: Shortlist,
    logits: np.ndarray,
    ground_truth: GroundTruth,
    protocols: Sequence[Protocol],
    *,
    num_rerank: int,
    slack: float = 0.5,
) -> tuple[Blend, float]:
    """The blend of the grid for a model, and its mean mAP over ``protocols``: for validation splits.

    mAP is flat around its best. Of all blends within ``slack`` points of it, the one that trusts the
    global similarity most is taken (the largest lambda / ((1 - lambda) gamma), the ratio of the slopes of
    the two terms): a local score learned on one domain is the part that transfers worse to another.
    """
    maps: dict[Blend, float] = {}
    for lamb, temp in product(LAMBDAS, GAMMAS):
        results = judge(
            shortlist, logits, ground_truth, protocols, num_rerank=num_rerank, blend=Blend(lamb, temp)
        )
        maps[Blend(lamb, temp)] = float(np.mean([r.map for r in results.values()]))
    good = max(maps.values()) - slack
    chosen = max(
        (blend for blend, value in maps.items() if value >= good),
        key=lambda blend: (blend.lamb / (1 - blend.lamb) / blend.temp, maps[blend]),
    )
    return chosen, maps[chosen]


@dataclass(frozen=True, eq=False)
class TestSet:
    """The files of a prepared test set, opened and checked against each other and a model."""

    __test__ = False  # no test, whatever pytest reads into the name
    folder: DatasetFolder
    ground_truth_file: Path
    shortlist_file: Path
    ground_truth: GroundTruth
    shortlist: Shortlist
    queries: DescriptorFile
    gallery: DescriptorFile


def open_test_set(
    folder: DatasetFolder,
    model: Similarity,
    *,
    shortlist: str | None = None,
    ground_truth: str | None = None,
    distractors: bool = False,
) -> TestSet:
    """Opens a prepared test set. shortlist, ground_truth: names of other files than the usual ones.

    distractors: the gallery goes on behind the images that the ground truth names. AmesError if files are
    missing, or not of the same images, or not made for the model.
    """
    truth_file, shortlist_file = folder.find_ground_truth(ground_truth), folder.find_shortlist(shortlist)
    queries, gallery = DescriptorFile(folder.local("query")), DescriptorFile(folder.local("gallery"))
    truth = load_ground_truth(truth_file)
    if not truth.imlist:  # GLDv2's file names no images
        truth = load_ground_truth(truth_file, gallery_size=len(gallery), query_size=len(queries))
    if distractors:
        truth = padded(truth, len(gallery))
    for file, images, split in (
        (queries, truth.qimlist, "queries"),
        (gallery, truth.imlist, "gallery images"),
    ):
        check_backbone(file, width=model.local_dim, backbone=folder.descriptors)
        if len(file) != len(images):
            raise AmesError(f"{file.path}: {len(file)} images, but {len(images)} {split} in the ground truth")
    entries = Shortlist.load(shortlist_file, gallery_size=len(truth.imlist))
    if len(entries.ids) != len(truth.queries):
        raise AmesError(
            f"{shortlist_file}: {len(entries.ids)} queries, but {len(truth.queries)} in the ground truth"
        )
    return TestSet(folder, truth_file, shortlist_file, truth, entries, queries, gallery)


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How pairs are scored: descriptors used of each image, pairs together, device, threads that read."""

    query_count: int
    database_count: int
    batch_size: int = 100
    device: str = "cpu"
    workers: int = 0

    def __call__(
        self, model: Similarity, test: TestSet, protocols: Sequence[Protocol], num_rerank: Sequence[int]
    ) -> np.ndarray:
        """Logits float32 [Q, M] of every pair that some protocol re-ranks at some k."""
        return score_shortlist(
            model,
            test.queries,
            test.gallery,
            test.shortlist,
            mask=needed(test.shortlist, test.ground_truth, protocols, num_rerank),
            query_count=self.query_count,
            database_count=self.database_count,
            chunk=self.batch_size,
            device=self.device,
            workers=self.workers,
        )


@dataclass(frozen=True)
class Choice:
    """The combination that a validation split picked, and its mean mAP there."""

    num_rerank: int
    blend: Blend
    dataset: str
    reached: float


def choose(
    test: TestSet,
    model: Similarity,
    protocols: Sequence[Protocol],
    scoring: Scoring,
    *,
    num_rerank: Sequence[int],
) -> Choice:
    """The best of the grid of ``tune`` at each of ``num_rerank``, the earlier one where two are equal."""
    check_sweep(test.shortlist, num_rerank, [0.0], [1.0])
    logits = scoring(model, test, protocols, num_rerank)
    best: Choice | None = None
    for k in num_rerank:
        blend, reached = tune(test.shortlist, logits, test.ground_truth, protocols, num_rerank=k)
        if best is None or reached > best.reached + 1e-9:
            best = Choice(k, blend, test.folder.name, reached)
    assert best is not None, "check_sweep refuses empty lists"
    return best


def evaluate_folder(
    folder: DatasetFolder,
    model: Similarity,
    protocols: Sequence[Protocol],
    *,
    out: Path,
    query_count: int,
    database_count: int,
    num_rerank: Sequence[int],
    lamb: Sequence[float],
    temp: Sequence[float],
    batch_size: int = 100,
    device: str = "cpu",
    description: str = "",
    workers: int = 0,
    files: Mapping[str, Any] | None = None,
    choice: Callable[[], Choice] | None = None,
) -> dict[str, Any]:
    """Scores a prepared test set once, and judges every combination, and the one that ``choice`` makes.

    Writes ``out/results.json`` (what is returned) and ``out/scores.npz`` (``ames.runs.Run``), from which
    other combinations follow. files: keywords of ``open_test_set``. ``choice`` is called when all else has
    been checked: it may take long.
    """
    test = open_test_set(folder, model, **files or {})
    check_sweep(test.shortlist, num_rerank, lamb, temp)
    chosen = None if choice is None else choice()
    scoring = Scoring(
        query_count=query_count,
        database_count=database_count,
        batch_size=batch_size,
        device=device,
        workers=workers,
    )
    logits = scoring(model, test, protocols, num_rerank)
    ranked = (test.shortlist, logits, test.ground_truth, protocols)
    about = {
        "dataset": folder.name,
        "model": description,
        "shortlist": test.shortlist_file.name,
        "query_desc_num": query_count,
        "db_desc_num": database_count,
    }
    results = about | {
        "initial": figures(judge_initial(test.shortlist, test.ground_truth, protocols)),
        "rows": sweep(*ranked, num_rerank=num_rerank, lamb=lamb, temp=temp),
        "chosen": None,
    }
    if chosen is not None:
        k, blend = chosen.num_rerank, chosen.blend
        row = sweep(*ranked, num_rerank=[k], lamb=[blend.lamb], temp=[blend.temp])[0]
        results["chosen"] = row | {"val_dataset": chosen.dataset, "val_map": round(chosen.reached, 3)}
    asked = {"num_rerank": list(num_rerank), "lamb": list(lamb), "temp": list(temp)}
    Run(
        test.shortlist,
        logits,
        test.ground_truth_file,
        len(test.ground_truth.imlist),
        tuple(protocols),
        about | asked,
    ).save(out)
    with atomic_file(out / RESULTS) as text:
        text.write(json.dumps(results, indent=1).encode())
    return results


def judge_run(
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
    judged, truth = run.choose(protocols), run.truth(ground_truth)
    if len(truth.queries) != len(run.logits):
        raise AmesError(f"the run has {len(run.logits)} queries, its ground truth {len(truth.queries)}")
    initial = figures(judge_initial(run.shortlist, truth, judged))
    try:
        rows = sweep(run.shortlist, run.logits, truth, judged, **grid)
    except AmesError as error:
        most = max(run.about["num_rerank"])
        raise AmesError(f"{error}: the run scored what it re-ranks up to {most}; evaluate anew") from error
    return [{"num_rerank": 0, "lamb": None, "temp": None} | initial, *rows]


def readable(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows for a table of text: no nested figures, lambda and gamma in full."""
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


def check_sweep(
    shortlist: Shortlist, num_rerank: Sequence[int], lamb: Sequence[float], temp: Sequence[float]
) -> None:
    """Refuses empty lists, lambda outside [0, 1], gamma <= 0 and more candidates than the shortlist has."""
    for name, values in (("num_rerank", num_rerank), ("lamb", lamb), ("temp", temp)):
        if not len(values):
            raise AmesError(f"{name} is an empty list: give at least one value")
    size = shortlist.ids.shape[1]
    for k in num_rerank:
        if not isinstance(k, Integral):
            raise AmesError(f"num_rerank {k!r} is not a whole number")
        if not 1 <= k <= size:
            raise AmesError(f"num_rerank {k} is outside 1 ... {size}, the length of the shortlist")
    for value in lamb:
        if not isinstance(value, Real) or not 0 <= value <= 1:
            raise AmesError(f"lamb {value!r} is outside [0, 1]")
    for value in temp:
        if not isinstance(value, Real) or not 0 < value < float("inf"):
            raise AmesError(f"temp {value!r} is not a number above 0")
