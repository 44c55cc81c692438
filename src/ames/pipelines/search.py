"""Search a collection with photos: answers for a program, a terminal, or a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ames.datasets.finding import find_images
from ames.errors import AmesError
from ames.extraction.preprocessing import Box
from ames.io.progress import progress
from ames.io.text import printable
from ames.reporting.html import Hit as Picture
from ames.reporting.html import Strip, write_report
from ames.reporting.tables import format_table
from ames.reranking.reranker import Hit
from ames.retrieval.retriever import NUM_RERANK, Retriever


@dataclass(frozen=True)
class Answer:
    """The hits of one query, best first, and the files of their photos (None: nobody knows where).

    problem: why the query cannot be read. nothing: why there is no hit.
    """

    query: Path
    hits: Sequence[Hit]
    paths: Sequence[Path | None]
    problem: str | None = None
    nothing: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what ``ames search --json`` prints of it; a score that a model does not give is None."""
        rows = [
            {
                "rank": rank,
                "name": hit.name,
                "path": None if path is None else str(path),
                "score": _finite(hit.score),
                "global": _finite(hit.global_),
                "local": _finite(hit.local),
            }
            for rank, (hit, path) in enumerate(zip(self.hits, self.paths, strict=True), 1)
        ]
        return {"query": str(self.query), "problem": self.problem or self.nothing, "hits": rows}

    def text(self) -> str:
        """Return a table with a title."""
        query = printable(str(self.query))
        if self.problem is not None:
            return f"{query}: {self.problem}"
        if not self.hits:
            return f"{query}: nothing found: {self.nothing}"
        rows = [
            {
                "rank": str(rank),
                "score": f"{hit.score:.3f}",
                "global": f"{hit.global_:.3f}",
                "local": f"{hit.local:.2f}",
                "photo": printable(str(path or hit.name)),
            }
            for rank, (hit, path) in enumerate(zip(self.hits, self.paths, strict=True), 1)
        ]
        return f"{query}\n{format_table(rows)}"


def search_photos(
    folder: Path | str,
    query: Path | str,
    *,
    box: Box | None = None,
    k: int = 10,
    num_rerank: int = NUM_RERANK,
    device: str = "cpu",
    cascade: str | Path | None = None,
) -> list[Answer]:
    """Search the collection in ``folder`` with a photo, or with each photo of a folder.

    box: as of ``Retriever.search``, for a single photo. AmesError for a photo that cannot be read; one of
    several has a ``problem`` instead, unless all have. cascade: as of ``Retriever.open``; it says itself how
    many photos are re-ranked.
    """
    query = Path(query)
    index = Retriever.open(folder, device=device, cascade=cascade)
    most = max(k, num_rerank) if cascade is None else None
    if not query.is_dir():
        return [_answer(index, query, index.search(query, k, box=box, num_rerank=most))]
    if box is not None:
        raise AmesError(f"{query}: a folder; a box is of one photo")
    names, answers = find_images(query).names, []
    with progress("search", len(names), "queries") as tick:
        for name in names:
            try:
                hits: Sequence[Hit] = index.search(query / name, k, num_rerank=most)
                answers.append(_answer(index, query / name, hits))
            except AmesError as error:
                why = str(error).removeprefix(f"{query / name}: ")
                answers.append(Answer(query / name, [], [], why))
            tick(1)
    if all(answer.problem for answer in answers):
        first = f"{names[0]}: {answers[0].problem}"
        raise AmesError(f"{query}: none of its photos can be searched with (first: {first})")
    return answers


def write_page(answers: Sequence[Answer], path: Path | str, *, title: str) -> Path:
    """Write a page with a strip of results for each query, and return its path.

    Where nobody knows the folder of the photos, their names are taken for paths.
    """
    strips = []
    for answer in answers:
        pictures = [
            Picture(path or Path(str(hit.name)), "found", hit.score, str(hit.name))
            for hit, path in zip(answer.hits, answer.paths, strict=True)
        ]
        caption = answer.problem or answer.nothing or "results"
        strips.append(Strip(answer.query, answer.query.name, [(caption, pictures)]))
    return write_report(path, title=title, rows=[], strips=strips)


def _answer(index: Retriever, query: Path, hits: Sequence[Hit]) -> Answer:
    known = index.root is not None
    paths = [index.photo(str(hit.name)) if known else None for hit in hits]
    return Answer(query, hits, paths, nothing=None if hits else _why_nothing(index))


def _why_nothing(index: Retriever) -> str:
    if not len(index):
        return "the collection holds no photo"
    if len(index.database.empty_rows()) == len(index):
        return "no photo of the collection has features"
    return "the photo has no features"


def _finite(score: float | None) -> float | None:
    return score if score is not None and math.isfinite(score) else None
