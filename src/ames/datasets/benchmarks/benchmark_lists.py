"""The lists and the ground truth of a benchmark: what every reader of this room returns."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ames.datasets.classes.class_set import UNLISTABLE
from ames.datasets.ground_truth import GroundTruth
from ames.errors import AmesError
from ames.io.text import counted

# Keys of the ground truth. A set whose queries are in its gallery has each query's own image as junk.
POSITIVE_KEY, SELF_KEY = "ok", "junk"


@dataclass(frozen=True)
class Distractors:
    """Images behind the gallery that no query is of. path: a text file, one a line, or such a .gz.

    before, after: what a line lacks of the image's path.
    """

    path: Path
    before: str = ""
    after: str = ""

    def __iter__(self) -> Iterator[str]:
        """Yield the paths, one at a time; AmesError where the file cannot be read."""
        try:
            if self.path.suffix == ".gz":
                file = gzip.open(self.path, "rt", encoding="utf-8")  # noqa: SIM115  # closed below
            else:
                file = self.path.open(encoding="utf-8")
            with file:
                for line in file:
                    if text := line.strip():
                        yield f"{self.before}{text}{self.after}"
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise AmesError(f"{self.path}: cannot be read as a list of images ({error})") from error


@dataclass(frozen=True, eq=False)
class BenchmarkLists:
    """Images are paths relative to ``root``.

    source: what a message names. truth: for each query, key -> int64 [n] positions in ``gallery``.
    query_labels, gallery_labels: one for each image, "" for none; empty where the set has no labels.
    boxes: float64 [Q, 4], x1, y1, x2, y2 in pixels of the query's image, or None. distractors: images behind
    the gallery, which the ground truth does not name. notes: lines about what was left out.
    AmesError for an image that a list has twice, or whose path a list cannot hold, for sizes that disagree,
    for an id that is outside of the gallery, and without a query or a gallery.
    """

    root: Path
    source: Path
    queries: list[str]
    gallery: list[str]
    truth: list[dict[str, np.ndarray]]
    query_labels: list[str] = field(default_factory=list)
    gallery_labels: list[str] = field(default_factory=list)
    boxes: np.ndarray | None = None
    distractors: Distractors | None = None
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for what, names, labels in (
            ("query", self.queries, self.query_labels),
            ("gallery image", self.gallery, self.gallery_labels),
        ):
            _check_names(self.source, what, names)
            if labels and len(labels) != len(names):
                raise AmesError(f"{self.source}: {len(labels)} labels, but {len(names)} of {what}")
            wrong = next((label for label in labels if UNLISTABLE.search(label)), None)
            if wrong is not None:
                raise AmesError(f"{self.source}: {what}: label {wrong!a} cannot be written in a line")
        if len(self.truth) != len(self.queries):
            raise AmesError(
                f"{self.source}: ground truth of {len(self.truth)} queries, but {len(self.queries)} listed"
            )
        for number, query in enumerate(self.truth):
            for key, ids in query.items():
                if len(ids) and not 0 <= ids.min() <= ids.max() < len(self.gallery):
                    raise AmesError(
                        f"{self.source}: query {number} ({self.queries[number]}), {key}: an id is outside of "
                        f"the gallery, which has {len(self.gallery)} images"
                    )

    def ground_truth(self) -> GroundTruth:
        """Return the ground truth with the names of the lists."""
        return GroundTruth(self.truth, self.gallery, self.queries, self.boxes)


def truth_of_labels(
    source: Path,
    queries: tuple[Sequence[str], Sequence[str]],
    gallery: tuple[Sequence[str], Sequence[str]],
    *,
    skip_self: bool,
) -> list[dict[str, np.ndarray]]:
    """Return the ground truth of (paths, labels): the gallery images of a query's label are right.

    A label of "" is none. skip_self: each query is in the gallery, as junk; else none may be.
    AmesError for a query that is, or is not, in the gallery against the rule.
    """
    members = _members(gallery[1])
    places = {path: number for number, path in enumerate(gallery[0])}
    none, truth = np.empty(0, np.int64), []
    for path, label in zip(*queries, strict=True):
        own, found = places.get(path), members.get(label, none)
        if skip_self and own is None:
            raise AmesError(
                f"{source}: query {path} is not in the gallery, but queries are searched for among the others"
            )
        if not skip_self and own is not None:
            raise AmesError(
                f"{source}: query {path} is in the gallery, too, where it would find itself; give lists that "
                "are apart"
            )
        if skip_self:
            truth.append({POSITIVE_KEY: found[found != own], SELF_KEY: np.array([own], np.int64)})
        else:
            truth.append({POSITIVE_KEY: found})
    return truth


def check_images(lists: BenchmarkLists) -> list[str]:
    """Return notes about listed images that cannot be looked for: the root has none of a list.

    Distractors are not looked for. AmesError where the root has some images of a list and lacks others.
    """
    notes = []
    for what, names in (("query", lists.queries), ("gallery", lists.gallery)):
        missing = [name for name in names if not os.path.isfile(lists.root / name)]
        if len(missing) == len(names):
            notes.append(f"{what}: no listed image is in {lists.root}, so that none is checked")
        elif missing:
            raise AmesError(
                f"{lists.root}: {counted(len(missing), 'image')} of the {what} list "
                f"{'is' if len(missing) == 1 else 'are'} missing (first: {missing[0]}); unpack the archive "
                "again, or leave the images out of ROOT"
            )
    return notes


def listed_file(root: Path, files: Mapping[str, str], key: str, hint: str) -> Path:
    """Return a published file below the root; AmesError where it is missing."""
    path = root / files[key]
    if not path.is_file():
        raise AmesError(f"{path}: no such file; {hint}")
    return path


def _check_names(source: Path, what: str, names: Sequence[str]) -> None:
    if not names:
        raise AmesError(f"{source}: lists no {what}")
    seen: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if not name or UNLISTABLE.search(name):
            raise AmesError(f"{source}: {what} {number} ({name!a}) has no path that a list can hold")
        if seen.setdefault(name, number) != number:
            raise AmesError(f"{source}: {what} {number} ({name}) is {what} {seen[name]}, too; remove one")


def _members(labels: Sequence[str]) -> dict[str, np.ndarray]:
    """Label -> rising ids of its images; no label has none."""
    names, places = np.unique(np.array(labels, object).astype(str), return_inverse=True)
    order = np.argsort(places, kind="stable")
    starts = np.searchsorted(places[order], np.arange(1, len(names)))
    groups = dict(zip(names.tolist(), np.split(order.astype(np.int64), starts), strict=True))
    groups.pop("", None)
    return groups
