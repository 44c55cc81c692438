"""Bytes of a global vector against accuracy: several sources of vectors, alone and re-ranked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ames.datasets.ground_truth import GroundTruth
from ames.evaluation.evaluate import Scoring
from ames.evaluation.memory_curve import GLOBAL, Contender, curve, first_row, scale_bytes
from ames.evaluation.protocols import Protocol
from ames.evaluation.sweep import Grid
from ames.evaluation.test_set import TestSet
from ames.global_search.shortlist import Shortlist
from ames.io.atomic import atomic_file
from ames.reporting.style import COLOURS, MARKERS, new_figure, plain, tidy


@dataclass(frozen=True, eq=False)
class VectorSource:
    """Vectors of a test set: their name, dimensions, and the global search with them.

    query_ms: of a query from its photo to its vector; network_ms: of the network alone
    (``ames.evaluation.query_time``). None: not known.
    """

    name: str
    dim: int
    shortlist: Shortlist
    file: Path
    query_ms: float | None = None
    network_ms: float | None = None

    @property
    def fp16_bytes(self) -> int:
        return 2 * self.dim

    def row(self) -> dict[str, Any]:
        """What every row of this source begins with."""
        sizes = {
            "vectors": self.name,
            "dim": self.dim,
            "fp32_bytes": 4 * self.dim,
            "fp16_bytes": self.fp16_bytes,
        }
        return sizes | {"network_ms": self.network_ms, "query_ms": self.query_ms}


@dataclass(frozen=True, eq=False)
class Reranked:
    """Models that re-rank each source's shortlist. test: the set with its local descriptors. AmesError where
    the set's own shortlist is shorter than ``num_rerank``: before the others are made.
    """

    test: TestSet
    contenders: Sequence[Contender]
    scorings: Sequence[Scoring]
    num_rerank: int

    def __post_init__(self) -> None:
        Grid([self.num_rerank], [0.0], [1.0]).check(self.test.shortlist)


def vector_curve(
    truth: GroundTruth,
    sources: Sequence[VectorSource],
    protocols: Sequence[Protocol],
    reranked: Reranked | None = None,
    *,
    extra_bytes: int = 0,
) -> list[dict[str, Any]]:
    """Return, for each source, the row of its global ranking, and one per model and scoring.

    A row has the keys of ``VectorSource.row`` and of ``ames.evaluation.memory_curve.curve``. bytes: of the
    vector as fp16, of the local codes, and ``extra_bytes``. AmesError as ``curve``.
    """
    rows = []
    for source in sources:
        size = extra_bytes + source.fp16_bytes
        if reranked is None:
            found = [first_row(source.shortlist, truth, protocols, size)]
        else:
            test = replace(reranked.test, shortlist=source.shortlist, shortlist_file=source.file)
            models, counts = reranked.contenders, reranked.scorings
            sizes = {"num_rerank": reranked.num_rerank, "extra_bytes": size}
            found = curve(test, models, protocols, counts, **sizes)
        rows += [source.row() | row for row in found]
    return rows


def draw_vectors(
    rows: Sequence[Mapping[str, Any]], path: Path | str, *, label: str = "mAP (%)", title: str = ""
) -> Path:
    """Draw rows of ``vector_curve`` as a PNG, atomically, and return its path.

    Bytes of a vector as fp16 (logarithmic) against ``mean_map``: one kind of points per model and number of
    descriptors, each source with its name and the milliseconds of a query. AmesError without matplotlib.
    """
    picture = new_figure(8, 5)
    axes = picture.add_subplot()
    for number, (key, points) in enumerate(_series(rows).items()):
        colour, marker = (kinds[number % len(kinds)] for kinds in (COLOURS, MARKERS))
        x, y = zip(*points, strict=True)
        axes.plot(x, y, marker, color=colour, markersize=8, label=plain(key))
    for place, (name, row) in enumerate(_firsts(rows).items()):
        if row["mean_map"] is not None:
            text = name if row["query_ms"] is None else f"{name}\n{row['query_ms']:.1f} ms a query"
            beside = {"textcoords": "offset points", "ha": "center", "fontsize": 9}
            offset = (0, -26) if place % 2 else (0, 10)
            axes.annotate(plain(text), (row["fp16_bytes"], row["mean_map"]), offset, **beside)
    scale_bytes(axes, [row["fp16_bytes"] for row in rows])
    axes.set_xlabel("bytes of a global vector, fp16")
    axes.set_ylabel(plain(label))
    axes.set_title(plain(title))
    axes.margins(x=0.2, y=0.2)
    tidy(axes)
    axes.legend(frameon=False)
    with atomic_file(path) as file:
        picture.canvas.print_png(file)
    return Path(path)


def _series(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Points (bytes, mAP) by what they are of."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        count = row["db_desc_num"]
        key = GLOBAL if not count else f"{row['model']}, {count} descriptors"
        value = math.nan if row["mean_map"] is None else row["mean_map"]
        found.setdefault(key, []).append((row["fp16_bytes"], value))
    return found


def _firsts(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The global ranking of each source."""
    return {row["vectors"]: row for row in rows if not row["db_desc_num"]}
