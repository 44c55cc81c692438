"""How good is my collection: figures of a person's own queries, before and after re-ranking."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ames.errors import AmesError
from ames.evaluation.per_query import Figures, figures
from ames.evaluation.protocols import LEAVE_ONE_OUT
from ames.io.text import counted
from ames.pipelines.own_set import OwnSet, open_own_set
from ames.reporting.html import Hit, Strip, write_report
from ames.reporting.tables import format_table
from ames.reranking.fusion import Fusion
from ames.retrieval.retriever import NUM_RERANK

SHOWN = 8  # results in a strip
STRIPS = 60  # of a page
_NAMED = 5  # queries that a note names
_PRINTED = 20  # objects on a terminal


@dataclass(frozen=True)
class Ranked:
    """The first results of a query: names, files, fused or global scores, and whether they answer it."""

    names: list[str]
    paths: list[Path]
    scores: list[float]
    right: list[bool]


@dataclass(frozen=True, eq=False)
class PhotoEvaluation:
    """Figures of a truth's queries. before: of the global search alone; after: of re-ranking.

    queries: name, file and object of each. shown: the first results of each before and after.
    """

    queries: list[tuple[str, Path, str]]
    before: Figures
    after: Figures
    shown: list[tuple[Ranked, Ranked]]
    photos: int
    num_rerank: int
    fusion: Fusion
    without_answers: list[str]
    unreadable: dict[str, str]
    notes: list[str]

    def objects(self) -> dict[str, list[int]]:
        """Return the rows of the queries of each object."""
        found: dict[str, list[int]] = {}
        for row, (_, _, name) in enumerate(self.queries):
            found.setdefault(name, []).append(row)
        return dict(sorted(found.items()))

    def rows(self, most: int | None = None) -> list[dict[str, Any]]:
        """Return a table: all queries before and after re-ranking, then ``most`` objects, worst first."""
        total = len(self.queries) - len(self.unreadable)
        head = [
            {
                "object": f"all, {name}",
                "queries": total,
                **found.mean(),
                "mAP before": self.before.mean()["mAP"],
            }
            for name, found in (("global alone", self.before), ("re-ranked", self.after))
        ]
        rows = [
            {"object": name, "queries": len(rows), **self.after.mean(rows)}
            | {"mAP before": self.before.mean(rows)["mAP"]}
            for name, rows in self.objects().items()
        ]
        rows.sort(key=lambda row: np.inf if row["mAP"] is None else row["mAP"])
        return head + rows[:most]

    def lines(self) -> list[str]:
        """Return sentences on what the figures are of."""
        said = counted(len(self.queries) - len(self.unreadable), "query", "queries")
        first = f"{said}, {self.photos:,} photos; the first {self.num_rerank} re-ranked"
        missing = len(self.without_answers)
        lines = [f"{first}, lambda {self.fusion.lamb:g}, gamma {self.fusion.gamma:g}; figures in percent"]
        if missing:
            named = ", ".join(self.without_answers[:_NAMED]) + ", ..." * (missing > _NAMED)
            verbs = ("query has", "queries have")
            lines.append(f"{counted(missing, *verbs)} no answer, and no part in the figures: {named}")
        return lines + self.notes

    def text(self) -> str:
        """Return what a terminal shows."""
        more = len(self.objects()) - _PRINTED
        rest = [f"... {counted(more, 'more object')}, all better (--json has them)"] if more > 0 else []
        return "\n".join([format_table(self.rows(_PRINTED)), *rest, *self.lines()])

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints; None where no query has an answer."""
        per_query = [
            {
                "query": name,
                "path": str(path),
                "object": of,
                "before": self.before.mean([row]),
                "after": self.after.mean([row]),
            }
            for row, (name, path, of) in enumerate(self.queries)
        ]
        objects = [
            {
                "object": name,
                "queries": len(rows),
                "before": self.before.mean(rows),
                "after": self.after.mean(rows),
            }
            for name, rows in self.objects().items()
        ]
        return {
            "photos": self.photos,
            "queries": len(self.queries) - len(self.unreadable),
            "without_answers": self.without_answers,
            "unreadable": self.unreadable,
            "num_rerank": self.num_rerank,
            "fusion": self.fusion.to_keys(),
            "before": self.before.mean(),
            "after": self.after.mean(),
            "objects": objects,
            "per_query": per_query,
            "notes": self.notes,
        }

    def write_page(self, path: Path | str, *, title: str) -> Path:
        """Write a page with the table and strips of the worst queries, worst first, and return its path."""
        aps = self.after.aps
        worst = [row for row in np.argsort(aps, kind="stable") if not np.isnan(aps[row])]  # NaN is last
        strips = []
        for row in worst[:STRIPS]:
            name, file, of = self.queries[row]
            captions = (("global alone", self.before), ("re-ranked", self.after))
            rankings = [
                (f"{caption}: AP {found.aps[row]:.1f}", _pictures(ranked))
                for (caption, found), ranked in zip(captions, self.shown[row], strict=True)
            ]
            strips.append(Strip(file, f"{name} ({of})", rankings))
        notes = self.lines()
        if len(worst) > STRIPS:
            notes.append(f"the {STRIPS} worst of {len(worst)} queries, worst first")
        return write_report(path, title=title, rows=self.rows(), strips=strips, notes=notes)


def evaluate_photos(
    folder: Path | str,
    truth: Path | str,
    *,
    num_rerank: int = NUM_RERANK,
    device: str = "cpu",
    workers: int = 0,
) -> PhotoEvaluation:
    """Search a collection with every query of a truth, and return the figures of the rankings.

    A query that is a photo of the collection is junk for itself (``LEAVE_ONE_OUT``). AmesError as
    ``open_own_set``, and where no query has an answer.
    """
    with open_own_set(folder, truth, num_rerank=num_rerank, device=device, workers=workers) as own:
        if not any(len(query["ok"]) for query in own.truth.queries):
            raise AmesError(f"{truth}: no query has an answer in {folder}; nothing can be measured")
        k = min(num_rerank, own.shortlist.ids.shape[1])
        fusion = own.index.reranker.fusion
        assert fusion is not None, "a retriever has a fusion"
        scores = own.scores(k, device=device)
        after = own.reranked(scores, k, fusion)
        before = own.shortlist.ids
        similarities = own.shortlist.similarities
        fused = fusion.fuse(similarities, scores) if isinstance(scores, np.ndarray) else similarities * np.nan
        shown = [
            (_ranked(own, row, before[row], similarities[row]), _ranked(own, row, after[row], fused[row]))
            for row in range(len(before))
        ]
        return PhotoEvaluation(
            queries=[(q.name, q.path, q.object) for q in own.questions.asked],
            before=figures(before, own.truth, LEAVE_ONE_OUT),
            after=figures(after, own.truth, LEAVE_ONE_OUT),
            shown=shown,
            photos=len(own.index),
            num_rerank=k,
            fusion=fusion,
            without_answers=own.without_answers(),
            unreadable=own.unreadable,
            notes=own.notes,
        )


def _ranked(own: OwnSet, row: int, ranking: np.ndarray, scores: np.ndarray) -> Ranked:
    """The first results of a query, itself left out; ``scores`` go with the entries of the shortlist."""
    question = own.questions.asked[row]
    value = dict(zip(own.shortlist.ids[row].tolist(), scores.tolist(), strict=True))
    first = [i for i in ranking[: SHOWN + 1].tolist() if i >= 0 and i != question.own][:SHOWN]
    names = [own.index.database.names[i] for i in first]
    return Ranked(
        names,
        [own.index.photo(name) for name in names],
        [value[i] for i in first],
        [i in question.answers for i in first],
    )


def _pictures(ranked: Ranked) -> list[Hit]:
    parts = zip(ranked.names, ranked.paths, ranked.scores, ranked.right, strict=True)
    return [Hit(path, "right" if right else "wrong", score, name) for name, path, score, right in parts]
