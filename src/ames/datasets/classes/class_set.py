"""Images with classes, split for training and for testing: what every reader of this room returns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ames.errors import AmesError
from ames.io.text import counted

SPLITS = ("train", "query", "gallery")
UNLISTABLE = re.compile("[\n\r\ud800-\udfff]")  # what a list in UTF-8, one image a line, cannot hold


class Row(NamedTuple):
    """An image as a source gives it. split: one of ``SPLITS``. line: of the source, 0 where it has none."""

    path: str
    label: str
    split: str
    source: Path
    line: int = 0

    def where(self) -> str:
        """Return the place of the row, for a message."""
        return f"{self.source}: line {self.line}" if self.line else str(self.source)


@dataclass(frozen=True, eq=False)
class ClassSplit:
    """paths [n], relative to the root of the set, and labels [n], as text."""

    paths: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.paths)

    def count_classes(self) -> int:
        """Return the number of different labels."""
        return len(set(self.labels))


@dataclass(frozen=True, eq=False)
class ClassSet:
    """A data set whose images have classes.

    root: the folder that paths are relative to. train, query, gallery: None where the set has no such split.
    A gallery of None beside queries: every query is searched for among all other queries. notes: lines about
    what was left out.
    """

    root: Path
    train: ClassSplit | None = None
    query: ClassSplit | None = None
    gallery: ClassSplit | None = None
    notes: list[str] = field(default_factory=list)

    def splits(self) -> dict[str, ClassSplit]:
        """Return the splits that the set has, by name."""
        every = zip(SPLITS, (self.train, self.query, self.gallery), strict=True)
        return {name: split for name, split in every if split is not None}


def collect(
    rows: Iterable[Row],
    root: Path,
    source: Path,
    *,
    needed: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> ClassSet:
    """Return the set of some rows, in their order.

    source: what a message about the whole names. needed: splits that must have an image.
    AmesError for an image without a path or a label, for one that comes twice, in whatever splits, for a
    needed split without an image, for a gallery without queries, and where no class of a query is in the
    gallery.
    """
    splits: dict[str, ClassSplit] = {}
    seen: dict[str, Row] = {}
    for row in rows:
        for what, text in (("path", row.path), ("label", row.label)):
            if not text or UNLISTABLE.search(text):
                raise AmesError(f"{row.where()}: {what} {text!a} is empty, or cannot be written in a line")
        before = seen.setdefault(row.path, row)
        if before is not row:
            raise AmesError(_repeated(row, before))
        split = splits.setdefault(row.split, ClassSplit())
        split.paths.append(row.path)
        split.labels.append(row.label)
    if not splits:
        raise AmesError(f"{source}: lists no image")
    for name in needed:
        if name not in splits:
            raise AmesError(f"{source}: lists no image of the split {name!r}; is a part of the file missing?")
    query, gallery = splits.get("query"), splits.get("gallery")
    if gallery is not None and (query is None or set(query.labels).isdisjoint(gallery.labels)):
        said = "no image is a query" if query is None else "no class of a query is in the gallery"
        raise AmesError(f"{source}: {said}, so that nothing can be found; check the splits and the labels")
    return ClassSet(root, splits.get("train"), query, gallery, list(notes))


def _repeated(row: Row, before: Row) -> str:
    if row.label != before.label:
        said = f"has the label {row.label!r}, and {before.label!r}"
    elif row.split != before.split:
        said = f"is in the split {row.split!r}, and in {before.split!r}"
    else:
        said = "is listed again, first"
    place = f"line {before.line}" if row.source == before.source else before.where()
    return f"{row.where()}: {row.path} {said} in {place}; remove one of the lines"


def differences(found: ClassSet, published: Mapping[str, tuple[int, int]]) -> list[str]:
    """Return a line for each split whose (images, classes) are not the published ones."""
    lines = []
    splits = found.splits()
    for name, (images, classes) in published.items():
        split = splits.get(name, ClassSplit())
        if (len(split), split.count_classes()) != (images, classes):
            lines.append(
                f"{name}: {numbers(split)} were read, {images:,} of {classes:,} are published: this is a "
                "subset, or another version"
            )
    return lines


def numbers(split: ClassSplit) -> str:
    """Return the size of a split for people: 59,551 images of 11,318 classes."""
    return f"{counted(len(split), 'image')} of {counted(split.count_classes(), 'class', 'classes')}"
