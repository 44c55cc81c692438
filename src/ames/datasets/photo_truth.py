"""What a person knows of own photos: which show one object, or which answer a query.

A truth is a folder with a sub-folder per object, or a CSV file whose first line is ``photo,object`` or
``query,answer``. It is read here as it is written; ``ames.retrieval.truth`` finds its photos in a collection.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ames.datasets.components import components
from ames.datasets.finding import find_images
from ames.datasets.lists import read_rows
from ames.datasets.photo_folder import DISTRACTORS
from ames.errors import AmesError
from ames.io.atomic import atomic_file

OBJECTS, ANSWERS = ("photo", "object"), ("query", "answer")  # first lines of CSV files


class Row(NamedTuple):
    """A line: a photo and its object, or a query and an answer, which is empty where there is none.

    line: of the file, 0 in a folder.
    """

    photo: str
    other: str
    line: int = 0


@dataclass(frozen=True)
class PhotoTruth:
    """Rows of a truth. header: ``OBJECTS`` or ``ANSWERS``. folder: names of photos that are no names of a
    collection are paths below it. notes: lines about files that are no images.
    """

    source: Path
    folder: Path
    header: tuple[str, str]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    def where(self, row: Row) -> str:
        """Return the place of a row, for a message."""
        return f"{self.source}: line {row.line}" if row.line else str(self.source)

    def objects(self) -> dict[str, list[Row]]:
        """Return the rows of each object, sorted by its name.

        Of queries and answers, an object is all that they connect; it has the name of its first query.
        """
        groups = defaultdict(list)
        if self.header == OBJECTS:
            for row in self.rows:
                groups[row.other].append(row)
        else:
            for name, row in zip(connected([(x.photo, x.other) for x in self.rows]), self.rows, strict=True):
                groups[name].append(row)
        return dict(sorted(groups.items()))


def connected(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return for each pair (query, answer) the first query that it is connected with; "" is no answer."""
    places: dict[str, int] = {}
    edges = []
    for pair in pairs:
        one, other = (places.setdefault(name, len(places)) for name in (pair[0], pair[1] or pair[0]))
        edges.append((one, other))
    group = {node: nodes[0] for nodes in components(len(places), edges) for node in nodes}
    first: dict[int, str] = {}
    return [first.setdefault(group[node], query) for (query, _), (node, _) in zip(pairs, edges, strict=True)]


def read_truth(path: Path | str) -> PhotoTruth:
    """Read a folder with a sub-folder per object, or a CSV file.

    Images in the sub-folder ``distractors`` and directly in the folder are of no object. AmesError, which
    names the line, for another first line, other numbers of fields, a row that comes twice, a photo of two
    objects, an answer that is its query, and a query with answers that is also said to have none; and where
    nothing is left.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    rows = [(line, [text.strip() for text in fields]) for line, fields in read_rows(path, "truth")]
    header = tuple(rows[0][1]) if rows else ()
    if header not in (OBJECTS, ANSWERS):
        kinds = " or ".join(",".join(x) for x in (OBJECTS, ANSWERS))
        raise AmesError(f"{path}: its first line is {','.join(header)!r}; expected {kinds}")
    found = []
    for line, fields in rows[1:]:
        if len(fields) != 2:
            raise AmesError(f"{path}: line {line}: {len(fields)} fields; expected 2 ({','.join(header)})")
        found.append(Row(fields[0], fields[1], line))
    if not found:
        raise AmesError(f"{path}: has no row after its first line; give one per photo")
    truth = PhotoTruth(path, path.resolve().parent, header, found)  # type: ignore[arg-type]
    (_check_objects if header == OBJECTS else _check_answers)(truth)
    return truth


def _read_folder(root: Path) -> PhotoTruth:
    found, folder = find_images(root), root.resolve()
    rows = []
    for name in found.names:
        top, _, rest = name.partition("/")
        if rest and top != DISTRACTORS:
            rows.append(Row(str(folder / name), top))
    if not rows:
        raise AmesError(f"{root}: no images in sub-folders; expected one sub-folder per object")
    return PhotoTruth(root, folder, OBJECTS, rows, found.notes())


def _check_objects(truth: PhotoTruth) -> None:
    seen: dict[str, Row] = {}
    for row in truth.rows:
        if not row.photo or not row.other:
            raise AmesError(f"{truth.where(row)}: a field is empty; give a photo and its object")
        before = seen.setdefault(row.photo, row)
        if before is not row:
            of = "again" if before.other == row.other else f"of {row.other!r}, and of {before.other!r}"
            advice = "remove one" if of == "again" else "give query,answer rows for photos of several objects"
            raise AmesError(f"{truth.where(row)}: {row.photo} is {of} in line {before.line}; {advice}")


def _check_answers(truth: PhotoTruth) -> None:
    seen: dict[tuple[str, str], Row] = {}
    answered: dict[str, set[bool]] = defaultdict(set)
    for row in truth.rows:
        if not row.photo:
            raise AmesError(f"{truth.where(row)}: the query is empty; give a photo")
        if row.photo == row.other:
            raise AmesError(f"{truth.where(row)}: {row.photo} is its own answer; a query never counts itself")
        before = seen.setdefault((row.photo, row.other), row)
        if before is not row:
            raise AmesError(f"{truth.where(row)}: repeats line {before.line}; remove one")
        answered[row.photo].add(bool(row.other))
        if len(answered[row.photo]) > 1:
            raise AmesError(
                f"{truth.where(row)}: {row.photo} has an answer, and a row without one; remove it"
            )


# ---- parts ----------------------------------------------------------------------------------------


def split(truth: PhotoTruth, shares: Sequence[float], *, seed: int = 0) -> list[list[Row]]:
    """Return the rows of parts that share no object; part i has about ``shares[i]`` of the objects.

    The same seed gives the same parts. AmesError for shares that are not above 0 or do not sum to 1, and
    where a part gets no object.
    """
    if not shares or any(not 0 < share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise AmesError(f"parts {','.join(f'{x:g}' for x in shares)}: give shares above 0 that sum to 1")
    objects = truth.objects()
    cuts = np.rint(np.cumsum([0, *shares]) * len(objects)).astype(int)
    if (np.diff(cuts) < 1).any():
        raise AmesError(f"{truth.source}: {len(objects)} objects are too few for {len(shares)} parts")
    names = np.array(list(objects), object)[np.random.default_rng(seed).permutation(len(objects))]
    parts = [sorted(names[a:b]) for a, b in pairwise(cuts.tolist())]
    return [[row for name in part for row in objects[name]] for part in parts]


def write_part(path: Path | str, truth: PhotoTruth, rows: Sequence[Row]) -> Path:
    """Write rows as a CSV file that ``read_truth`` reads, and return its path.

    A photo that lies below the truth's folder is written with its whole path: the new file may lie elsewhere.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(truth.header)
    for row in rows:
        other = row.other if truth.header == OBJECTS else _whole(truth, row.other)
        writer.writerow([_whole(truth, row.photo), other])
    path = Path(path)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())
    return path


def _whole(truth: PhotoTruth, name: str) -> str:
    return str(truth.folder / name) if name and (truth.folder / name).is_file() else name
