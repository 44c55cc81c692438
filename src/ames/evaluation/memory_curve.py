"""Memory against accuracy: models at several numbers of database descriptors, as rows and as a plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ames.database.store import check_codes
from ames.datasets.ground_truth import GroundTruth
from ames.descriptors.local import check_backbone
from ames.errors import AmesError
from ames.evaluation.evaluate import Scoring, score_once
from ames.evaluation.protocols import Protocol, Result
from ames.evaluation.sweep import Grid, columns, evaluate_initial, metrics
from ames.evaluation.test_set import TestSet
from ames.global_search.shortlist import Shortlist
from ames.io.atomic import atomic_file
from ames.models.base import Similarity
from ames.models.load import load
from ames.reporting.style import COLOURS, MARKERS, new_figure, plain, tidy
from ames.reranking.fusion import Fusion

GLOBAL = "global only"


@dataclass(frozen=True, eq=False)
class Contender:
    """A line of the curve: a model, its name, and its fusion at every count."""

    name: str
    model: Similarity
    fusion: Fusion

    @property
    def kind(self) -> str:
        return "full precision" if self.model.code_bits is None else "binary"


def load_contenders(paths: Sequence[Path | str], *, backbone: str, fusion: Fusion) -> list[Contender]:
    """Load checkpoints, named by their files without suffix, or by the paths where these are equal.

    backbone: the descriptors that they must have been trained on, if they say so. fusion: for files without
    one. AmesError names the file that is missing, no checkpoint, or for another backbone.
    """
    stems = [Path(path).stem for path in paths]
    contenders = []
    for stem, path in zip(stems, paths, strict=True):
        model, name, about, _ = load(path, backbone=backbone)
        own = Fusion.from_checkpoint(about, source=name)
        contenders.append(Contender(stem if stems.count(stem) == 1 else str(path), model, own or fusion))
    return contenders


def curve(
    test: TestSet,
    contenders: Sequence[Contender],
    protocols: Sequence[Protocol],
    scorings: Sequence[Scoring],
    *,
    num_rerank: int,
    extra_bytes: int = 0,
) -> list[dict[str, Any]]:
    """Return one row per model and scoring, after the row of the global ranking (``db_desc_num`` 0).

    A row has model, kind ("binary", "full precision"), db_desc_num, bytes, lamb, temp, the metrics of each
    protocol in percent as ``ames.evaluation.sweep.metrics`` gives them, their ``mean_map``, and seconds of
    scoring, reading included. bytes: those of an image of db_desc_num descriptors in a database, and
    ``extra_bytes`` for its global descriptor and all else that is stored of it.

    Everything is checked before the first pair is scored. AmesError for counts that the files do not hold,
    a model made for other descriptors, and two models of one name.
    """
    _check(test, contenders, protocols, scorings, num_rerank)
    rows = [first_row(test.shortlist, test.ground_truth, protocols, extra_bytes)]
    for one, scoring in product(contenders, dict.fromkeys(scorings)):
        results, _, seconds = score_once(scoring, one.model, test, protocols, num_rerank, one.fusion)
        count = scoring.database_count
        stored = one.model.slots_of(min(count, one.model.most or count), coded=True)
        size = stored * one.model.code_bytes + extra_bytes
        point = _point(one.name, one.kind, count, size, one.fusion)
        rows.append(point | _with_mean(results) | {"seconds": round(seconds, 4)})
    return rows


def first_row(
    shortlist: Shortlist, truth: GroundTruth, protocols: Sequence[Protocol], size: int
) -> dict[str, Any]:
    """Return the row of a global ranking, whose images take ``size`` bytes each."""
    results = _with_mean(evaluate_initial(shortlist, truth, protocols))
    return _point(GLOBAL, None, 0, size, None) | results | {"seconds": None}


def _point(model: str, kind: str | None, count: int, size: int, fusion: Fusion | None) -> dict[str, Any]:
    """Return a row without its metrics; all rows have the same keys, because the first heads the table."""
    keys = {"lamb": None, "temp": None} if fusion is None else fusion.to_keys()
    return {"model": model, "kind": kind, "db_desc_num": count, "bytes": size} | keys


def _check(
    test: TestSet,
    contenders: Sequence[Contender],
    protocols: Sequence[Protocol],
    scorings: Sequence[Scoring],
    num_rerank: int,
) -> None:
    for what, values in (("model", contenders), ("protocol", protocols), ("count", scorings)):
        if not len(values):
            raise AmesError(f"no {what} given: a curve needs at least one")
    columns(protocols)
    for scoring in scorings:
        for file, what, count in (
            (test.queries, "query_desc_num", scoring.query_count),
            (test.gallery, "db_desc_num", scoring.database_count),
        ):
            if not 1 <= count <= file.slots:
                raise AmesError(
                    f"{what} {count} is outside 1 ... {file.slots}, what {file.path} holds of an image"
                )
    names = [one.name for one in contenders]
    for one in contenders:
        if names.count(one.name) > 1 or one.name == GLOBAL:
            raise AmesError(f"two lines of the curve are called {one.name!r}: give each model a name")
        if not one.model.code_bytes:
            raise AmesError(f"{one.name}: does not say what it stores of a descriptor (code_bytes is 0)")
        Grid([num_rerank], [one.fusion.lamb], [one.fusion.gamma]).check(test.shortlist)
        test.prepared_for(one.model)
        for file in (test.queries, test.gallery):
            check_backbone(file, width=one.model.local_dim, backbone=None)
            check_codes(one.model, file)


def _with_mean(results: Mapping[Protocol, Result]) -> dict[str, Any]:
    """Return the metrics of each protocol, and the mean of the defined mAPs (None: there is none)."""
    row = metrics(dict(results))
    maps = [row[key] for key in columns(results).values() if row[key] is not None]
    return row | {"mean_map": round(float(np.mean(maps)), 3) if maps else None}


def draw(
    rows: Sequence[Mapping[str, Any]],
    path: Path | str,
    *,
    metric: str = "mean_map",
    label: str = "mAP (%)",
    title: str = "",
) -> Path:
    """Draw rows of ``curve`` as a PNG, atomically, and return its path.

    Bytes per image (logarithmic) against ``metric``, the key of a mAP: a line per model, each point with its
    number of descriptors; the global ranking as a dashed line. label: of the vertical axis. AmesError
    without matplotlib, for a metric that the rows lack, or where the file cannot be written.
    """
    missing = [row for row in rows if metric not in row]
    if missing:
        raise AmesError(f"no metric {metric!r} in the rows; they have {', '.join(missing[0])}")

    picture = new_figure(8, 5)
    axes = picture.add_subplot()
    models = list(dict.fromkeys(row["model"] for row in rows if row["db_desc_num"]))
    for number, name in enumerate(models):
        line = sorted((row for row in rows if row["model"] == name), key=lambda row: row["bytes"])
        colour, marker = (kinds[number % len(kinds)] for kinds in (COLOURS, MARKERS))
        look: dict[str, Any] = {"color": colour, "marker": marker, "linewidth": 2, "markersize": 7}
        x, y = (
            [row["bytes"] for row in line],
            [math.nan if row[metric] is None else row[metric] for row in line],
        )
        axes.plot(x, y, **look, label=plain(f"{name} ({line[0]['kind']})"))
        words: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": 9}
        for row, point in zip(line, zip(x, y, strict=True), strict=True):
            axes.annotate(str(row["db_desc_num"]), point, (0, 8), color=colour, **words)
    for row in rows:
        if not row["db_desc_num"] and row[metric] is not None:
            look = {"color": "#555555", "linestyle": "--", "linewidth": 1.5}
            axes.axhline(row[metric], **look, label=plain(row["model"]))

    scale_bytes(axes, [row["bytes"] for row in rows if row["db_desc_num"]])
    axes.set_xlabel("bytes per image (points: database descriptors)")
    axes.set_ylabel(plain(label))
    axes.set_title(plain(title))
    tidy(axes)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    path = Path(path)
    with atomic_file(path) as file:
        picture.canvas.print_png(file)
    return path


def scale_bytes(axes: Any, stored: Sequence[int]) -> None:
    """Make the horizontal axis logarithmic, with round numbers of bytes."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    steps = (1.0, 2.0, 5.0) if stored and max(stored) / min(stored) < 1e4 else (1.0,)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=20))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.margins(x=0.06, y=0.12)
