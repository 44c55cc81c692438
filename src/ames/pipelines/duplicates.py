"""Groups of photos of one object in a collection: found, told, and shown on a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ames.errors import AmesError
from ames.io.text import counted, printable
from ames.models.registry import MODELS
from ames.reporting.html import Hit, Strip, write_report
from ames.reranking.scorer import PairScorer
from ames.retrieval.collection import Collection
from ames.retrieval.duplicates import CANDIDATES, Group, exact_copies, group, mutual_pairs
from ames.retrieval.retriever import Retriever

GROUPS = 200  # on a page
SHOWN = 30  # photos of a group on a page
_PRINTED = 20  # groups on a terminal
_NAMED = 4  # photos of a group on a terminal


@dataclass(frozen=True)
class Duplicates:
    """Groups of a collection, the largest first. copies: photos that are exact copies of another one."""

    groups: Sequence[Group]
    photos: int
    threshold: float
    copies: int
    index: Retriever

    def lines(self) -> list[str]:
        """Return sentences on what was found."""
        inside = sum(len(one.names) for one in self.groups)
        lines = [
            f"{counted(len(self.groups), 'group')} of {inside:,} of {self.photos:,} photos; pairs from "
            f"{self.threshold:g} on (--threshold), by stored codes. A group is joined by pairs: not each two "
            "of its photos need to show the same"
        ]
        if self.copies:
            said = counted(self.copies, "file is an exact copy", "files are exact copies")
            lines.append(f"{said} of another one (same contents), grouped without a score")
        return lines

    def text(self) -> str:
        """Return what a terminal shows."""
        lines = []
        for one in self.groups[:_PRINTED]:
            more = len(one.names) - _NAMED
            named = ", ".join(map(printable, one.names[:_NAMED])) + (
                f", ... ({more} more)" if more > 0 else ""
            )
            lines.append(f"{len(one.names):4d}  {_joined(one)}  {named}")
        rest = len(self.groups) - _PRINTED
        if rest > 0:
            lines.append(f"... {counted(rest, 'smaller group')} (--json has all)")
        return "\n".join(lines + self.lines())

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        groups = [{"photos": one.names, "same": one.same, "copies": one.copies} for one in self.groups]
        return {"photos": self.photos, "threshold": self.threshold, "copies": self.copies, "groups": groups}

    def write_page(self, path: Path | str, *, title: str) -> Path:
        """Write a page with a strip for each group, and return its path.

        Where nobody knows the folder of the photos, their names are taken for paths.
        """
        root = self.index.root or Path()
        strips = []
        for one in self.groups[:GROUPS]:
            files = [root / name for name in one.names[: SHOWN + 1]]
            same = 1.0 if one.same is None else one.same
            hits = [
                Hit(file, "found", 1.0 if name in one.copies else same, name)
                for file, name in zip(files[1:], one.names[1:], strict=False)
            ]
            strips.append(
                Strip(files[0], f"{len(one.names)} photos", [(_joined(one), hits)], label=one.names[0])
            )
        notes = self.lines()
        if len(self.groups) > GROUPS:
            notes.append(f"the first {GROUPS} of {len(self.groups)} groups")
        return write_report(path, title=title, rows=[], strips=strips, notes=notes)


def _joined(one: Group) -> str:
    return "exact copies" if one.same is None else f"same {one.same:.4f} or more"


def find_duplicates(
    folder: Path | str,
    *,
    threshold: float | None = None,
    candidates: int = CANDIDATES,
    device: str = "cpu",
) -> Duplicates:
    """Return groups of photos that show the same.

    threshold: of ``ames.retrieval.duplicates.sameness`` in both directions; None: what was measured for the
    collection's model. candidates: photos that each is compared with. AmesError for a list-wise model, a
    model without a measured threshold where none is given, and one outside (0, 1).
    """
    index = Retriever.open(folder, device=device)
    scorer = index.reranker.scorer
    if not isinstance(scorer, PairScorer):
        raise AmesError(f"{folder}: its model is list-wise: it scores lists, not pairs")
    threshold = _measured(Path(folder)) if threshold is None else threshold
    if not 0 < threshold < 1:
        raise AmesError(f"threshold {threshold:g} is outside (0, 1)")
    copies = exact_copies(index.database)
    skip = np.array([other for others in copies.values() for other in others], np.int64)
    pairs = mutual_pairs(index.database, scorer, threshold=threshold, candidates=candidates, skip=skip)
    groups = group(index.database, pairs, copies)
    return Duplicates(groups, len(index), threshold, len(skip), index)


def _measured(folder: Path) -> float:
    built = Collection.load(folder)
    entry = MODELS.get(built.model) if built is not None else None
    if entry is None or entry.same is None:
        name = "its model" if built is None else built.model
        raise AmesError(f"{folder}: no threshold was measured for {name}; give --threshold, such as 0.99")
    return entry.same
