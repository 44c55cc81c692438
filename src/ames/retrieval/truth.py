"""A person's truth about photos, in terms of a collection: queries, and the photos that answer them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ames.datasets.ground_truth import GroundTruth
from ames.datasets.photo_truth import OBJECTS, PhotoTruth, Row, connected
from ames.errors import AmesError
from ames.io.hashing import sha256
from ames.io.text import counted
from ames.retrieval.photo_record import PhotoRecord

_NAMED = 3  # photos that a note names


@dataclass(frozen=True)
class Question:
    """A query: its name to show, its file, its object, and positions in the collection: its own (None: it is
    no photo of the collection) and those of its answers, ascending.
    """

    name: str
    path: Path
    object: str
    own: int | None
    answers: tuple[int, ...]


@dataclass(frozen=True)
class Questions:
    """All queries of a truth. names: of the collection. notes: lines about photos that are left out."""

    asked: list[Question]
    names: Sequence[str]
    notes: list[str]

    def ground_truth(self, unreadable: frozenset[str] = frozenset()) -> GroundTruth:
        """Return the truth for ``LEAVE_ONE_OUT``: a query that is in the collection is junk for itself.

        unreadable: paths of queries that no one can search with; they have no answers, so that means leave
        them out.
        """
        queries = [
            {
                "ok": np.array(() if str(q.path) in unreadable else q.answers, np.int64),
                "junk": np.array(() if q.own is None else [q.own], np.int64),
            }
            for q in self.asked
        ]
        return GroundTruth(queries, list(self.names), [str(q.path) for q in self.asked])


@dataclass(frozen=True)
class _Photo:
    """A photo of a truth: where it is, and its position in the collection (None: it is not there)."""

    path: Path
    own: int | None


class Finder:
    """Finds the photos of a truth in a collection.

    A name is one of the collection, or the path of a file: whole, or below the truth's folder. A file below
    the collection's root is the photo of that name. Where there is none (macOS spells accents otherwise), it
    is the photo of the same contents; of several copies, that of the same name below both folders, else the
    first.
    """

    def __init__(self, names: Sequence[str], record: PhotoRecord) -> None:
        self.names, self.record = names, record
        self._root = record.root.resolve()
        self._places = {name: place for place, name in enumerate(names)}
        self._contents: dict[str, list[int]] = defaultdict(list)
        for name, photo in record.photos.items():
            if name in self._places and photo.sha256:
                self._contents[photo.sha256].append(self._places[name])

    def find(self, name: str, folder: Path) -> _Photo | None:
        """Return the photo of a name; None where there is no such name and no such file."""
        if name in self._places:
            return _Photo(self._root / name, self._places[name])
        path = Path(os.path.abspath(folder / name))
        if not path.is_file():
            return None
        for place in (path, path.resolve()):  # a photo may be a link to one elsewhere
            if place.is_relative_to(self._root):
                inside = place.relative_to(self._root).as_posix()
                own = self._places.get(inside)
                return _Photo(self._root / inside, self._copy(path, inside) if own is None else own)
        inside = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else name
        return _Photo(path, self._copy(path, inside))

    def _copy(self, path: Path, name: str) -> int | None:
        copies = self._contents.get(sha256(path), [])
        return min(copies, key=lambda place: self.names[place] != name, default=None)

    def below(self, top: str) -> list[int]:
        """Return the positions of the photos in a sub-folder of the collection."""
        return [place for name, place in self._places.items() if name.startswith(f"{top}/")]


def find_questions(truth: PhotoTruth, finder: Finder) -> Questions:
    """Return the queries of a truth.

    ``photo,object``: each photo is a query, and the object's others that are in the collection answer it. If
    none of an object's photos is in the collection, those in its sub-folder of the object's name answer.
    ``query,answer``: as the rows say. AmesError, which names the line, for a photo that does not exist, an
    answer that is not in the collection, and two names of one photo.
    """
    photos, left_out = _photos(truth, finder)
    notes = []
    if left_out:
        said = counted(len(left_out), "photo is", "photos are")
        named = "; ".join(f"{name}: {why}" for name, why in list(left_out.items())[:_NAMED])
        notes.append(f"{said} left out, not readable when the collection was made: {named}")
    rows = [row for row in truth.rows if not {row.photo, row.other} & left_out.keys()]
    build = _of_objects if truth.header == OBJECTS else _of_answers
    asked = build(truth, rows, photos, finder)
    if not asked:
        raise AmesError(f"{truth.source}: none of its photos can be a query ({'; '.join(notes)})")
    outside = sum(q.own is None for q in asked)
    if outside:
        said = counted(outside, "query is", "queries are")
        notes.append(f"{said} not in the collection")
    return Questions(asked, finder.names, notes)


def _photos(truth: PhotoTruth, finder: Finder) -> tuple[dict[str, _Photo], dict[str, str]]:
    """Return the photos by the names in the truth, and those the collection could not read, with reasons."""
    photos: dict[str, _Photo] = {}
    left_out: dict[str, str] = {}
    sides = (0,) if truth.header == OBJECTS else (0, 1)
    for row in truth.rows:
        for name in (row[side] for side in sides):
            if not name or name in photos or name in left_out:
                continue
            found = finder.find(str(name), truth.folder)
            known = finder.record.photos.get(_below(found, finder) or str(name))
            if known is not None and known.problem is not None:
                left_out[str(name)] = known.problem
            elif found is None:
                raise AmesError(
                    f"{truth.where(row)}: {name!r} is no photo of the collection, and no file; give a name "
                    f"below {finder.record.root}, or a path"
                )
            else:
                photos[str(name)] = found
    _check_distinct(truth, photos)
    return photos, left_out


def _below(photo: _Photo | None, finder: Finder) -> str | None:
    root = finder.record.root.resolve()
    if photo is None or not photo.path.is_relative_to(root):
        return None
    return photo.path.relative_to(root).as_posix()


def _check_distinct(truth: PhotoTruth, photos: dict[str, _Photo]) -> None:
    """AmesError where two names are one file: figures would count it twice."""
    seen: dict[Path, str] = {}
    for name, photo in photos.items():
        other = seen.setdefault(photo.path, name)
        if other != name:
            raise AmesError(f"{truth.source}: {other!r} and {name!r} are one photo; give it one name")


def _of_objects(
    truth: PhotoTruth, rows: Sequence[Row], photos: dict[str, _Photo], finder: Finder
) -> list[Question]:
    members: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        own = photos[row.photo].own
        if own is not None:
            members[row.other].add(own)
    asked = []
    for row in rows:
        photo = photos[row.photo]
        others = members[row.other] or set(finder.below(row.other))
        answers = tuple(sorted(others - {photo.own}))
        asked.append(Question(_shown(row.photo, photo, finder), photo.path, row.other, photo.own, answers))
    return asked


def _of_answers(
    truth: PhotoTruth, rows: Sequence[Row], photos: dict[str, _Photo], finder: Finder
) -> list[Question]:
    answers: dict[str, set[int]] = defaultdict(set)
    objects = dict(zip([row.photo for row in rows], connected([x[:2] for x in rows]), strict=True))
    for row in rows:
        answers[row.photo] |= set()
        if not row.other:
            continue
        place = photos[row.other].own
        if place is None:
            raise AmesError(f"{truth.where(row)}: the answer {row.other!r} is not in the collection")
        answers[row.photo].add(place)
    return [
        Question(
            _shown(name, photos[name], finder),
            photos[name].path,
            objects[name],
            photos[name].own,
            tuple(sorted(places - {photos[name].own})),
        )
        for name, places in answers.items()
    ]


def _shown(name: str, photo: _Photo, finder: Finder) -> str:
    return name if photo.own is None else finder.names[photo.own]
