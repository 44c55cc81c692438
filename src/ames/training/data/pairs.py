"""Training pairs that somebody has listed: which image matches which, and which does not."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ames.datasets.lists import read_rows
from ames.errors import AmesError
from ames.training.data.candidates import Scan, Weighted, neighbour_weights, nth_free
from ames.training.data.neighbours import Neighbours

_ROWS_AT_ONCE = 2048
_HEADER = ["query", "image", "match"]


class PairList(NamedTuple):
    """Listed pairs, each once: queries, images int64 [n] (rows of the training list), match bool [n]; first
    int64 [rows of the list]: the first row of the same path; how many lines of pairs named an image with
    itself, and how many repeated a pair.
    """

    queries: np.ndarray
    images: np.ndarray
    match: np.ndarray
    first: np.ndarray
    selves: int = 0
    again: int = 0


def read_pairs(path: Path | str, names: Sequence[str]) -> PairList:
    """Lines ``query,image,match``: two paths as they stand in the list of images ``names``, and 1 or 0.

    The first line may be that header; blank lines are skipped; a path with a comma in it stands in double
    quotes. A pair listed again, and an image that matches itself, is counted. A path that the list names
    twice is its first row. AmesError naming the line for a path that is not in the list, a match that is
    neither 1 nor 0, an image that does not match itself, and a pair, in either order, listed as both.
    """
    lines = read_rows(path, "list of pairs")
    if lines and [field.strip().lower() for field in lines[0][1]] == _HEADER:
        lines = lines[1:]
    if not lines:
        raise AmesError(f"{path}: the list names no pair")
    place: dict[str, int] = {}
    first = np.array([place.setdefault(name, row) for row, name in enumerate(names)], np.int64)
    listed: dict[tuple[int, int], tuple[bool, int]] = {}
    selves = 0
    for line, fields in lines:
        if len(fields) != 3 or fields[2].strip() not in ("0", "1"):
            raise AmesError(
                f"{path}: line {line} is {','.join(fields)!r}: give query,image,match, match 1 or 0"
            )
        for name in fields[:2]:
            if name not in place:
                raise AmesError(f"{path}: line {line}: {name} is not in the list of images")
        query, image, match = place[fields[0]], place[fields[1]], fields[2].strip() == "1"
        if query == image:
            if not match:
                raise AmesError(f"{path}: line {line} says that {fields[0]} does not match itself")
            selves += 1
            continue
        for key in ((query, image), (image, query)):
            known, before = listed.get(key, (match, line))
            if known != match:
                raise AmesError(
                    f"{path}: line {line} gives {fields[0]} and {fields[1]} the match {match:d}, line "
                    f"{before} {known:d}: remove one of the lines"
                )
        listed.setdefault((query, image), (match, line))
    table = np.array([(*pair, match) for pair, (match, _) in listed.items()], np.int64).reshape(-1, 3)
    again = len(lines) - selves - len(listed)
    return PairList(table[:, 0], table[:, 1], table[:, 2].astype(bool), first, selves, again)


class ListedPairs:
    """Positives and negatives of an anchor as listed, drawn uniformly; anchors are the queries.

    For a query without listed negatives they come from its ``neighbours`` (similarity > 0, weights
    similarity^power, without near-duplicates above ``max_similarity``) that are not listed as matching it;
    where it has none, from all images that are not.
    A pair excludes in both directions: what matches a query is not matched against it as a negative either.
    """

    min_counts = (1, 1)

    def __init__(
        self,
        pairs: PairList,
        *,
        neighbours: Neighbours | None = None,
        similarity_power: float = 3.0,
        max_similarity: float | None = None,
    ) -> None:
        self.pairs, self.images, self.neighbours = pairs, len(pairs.first), neighbours
        self.similarity_power, self.max_similarity = similarity_power, max_similarity
        if neighbours is not None and neighbours.images != self.images:
            raise AmesError(f"shortlist of {neighbours.images} images, but {self.images} in the list")
        queries, others, match = pairs.queries, pairs.images, pairs.match
        self._positives = _Rows(queries[match], others[match], self.images)
        self._negatives = _Rows(queries[~match], others[~match], self.images)
        # What may not be drawn for an image as a negative: itself, and matches listed in either direction.
        self._distinct = np.unique(pairs.first)
        self._matches = _Rows(
            np.concatenate((self._distinct, queries[match], others[match])),
            np.concatenate((self._distinct, others[match], queries[match])),
            self.images,
        )

    def candidates_for(self, anchors: np.ndarray) -> Weighted:
        positive, negative = self._positives.get(anchors), self._negatives.get(anchors)
        parts, weights = [positive, negative], [positive >= 0, negative >= 0]
        if self.neighbours is not None:
            near, weight, _ = self._near(anchors, self.neighbours)
            parts, weights = [*parts, near], [*weights, weight]
        all_weights = np.concatenate(weights, axis=1).astype(np.float64)
        matching = np.arange(all_weights.shape[1]) < positive.shape[1]
        return Weighted(np.concatenate(parts, axis=1), all_weights * matching, all_weights * ~matching)

    def _near(self, anchors: np.ndarray, neighbours: Neighbours) -> tuple[np.ndarray, np.ndarray, int]:
        """ids [B, C] and weights of neighbours as negatives, none where negatives are listed; how many were
        left out as near-duplicates.
        """
        ids, similarities = neighbours.rows(anchors)
        ids = np.where(ids >= 0, self.pairs.first[ids], -1)
        usable = (
            (ids >= 0) & ~self._matches.hold(anchors, ids) & (self._negatives.counts[anchors] == 0)[:, None]
        )
        weight, (_, near) = neighbour_weights(
            ids, similarities, usable, self.similarity_power, self.max_similarity
        )
        return ids, weight, near

    def sample_other(self, anchors: np.ndarray, numbers: np.ndarray, taken: np.ndarray) -> np.ndarray:
        matches = self._matches.get(anchors)
        free = len(self._distinct) - self._matches.counts[anchors]
        taken = np.where(free <= len(taken), -1, taken).T  # while others remain; matches are left out always
        barred = np.concatenate((matches, taken), axis=1)
        barred = np.where(barred >= 0, np.searchsorted(self._distinct, barred), -1)
        return self._distinct[nth_free(numbers, np.full(len(anchors), len(self._distinct)), barred)]

    def scan(self) -> Scan:
        queries = np.unique(self.pairs.queries)
        positives, listed = self._positives.counts[queries], self._negatives.counts[queries]
        near, close = np.zeros_like(listed), 0
        if self.neighbours is not None:
            for start in range(0, len(queries), _ROWS_AT_ONCE):
                part = slice(start, start + _ROWS_AT_ONCE)
                _, weight, found = self._near(queries[part], self.neighbours)
                near[part], close = (weight > 0).sum(1), close + found
        free = len(self._distinct) - self._matches.counts[queries]
        anyone = np.where((listed == 0) & (near == 0), free, 0)
        statistics = {
            "source": "pairs",
            "images": self.images,
            "queries": len(queries),
            "matches": int(self.pairs.match.sum()),
            "of_list": int((listed > 0).sum()),
            "of_neighbours": int((near > 0).sum()),
            "of_all": int((anyone > 0).sum()),
            "duplicates": self.images - len(self._distinct),
            "near_duplicates": close,
            "selves": self.pairs.selves,
            "again": self.pairs.again,
        }
        return Scan(queries, positives, listed + near + anyone, "in the list of pairs", statistics)

    def settings(self) -> dict[str, Any]:
        table = np.stack((self.pairs.queries, self.pairs.images, self.pairs.match))
        columns = None if self.neighbours is None else self.neighbours.columns
        return {
            "pairs": zlib.crc32(table.tobytes()),
            "num_neighbours": columns,
            "similarity_power": self.similarity_power,
            "max_similarity": self.max_similarity,
        }


class _Rows:
    """Values by key, each pair once, keys and their values rising; both below ``images``."""

    def __init__(self, keys: np.ndarray, values: np.ndarray, images: int) -> None:
        self._images = images
        self._pairs = np.unique(keys * images + values)
        self.counts = np.bincount(self._pairs // images, minlength=images)
        self._starts = np.cumsum(self.counts) - self.counts

    def get(self, keys: np.ndarray) -> np.ndarray:
        """int64 [B, the most that one has], -1 after the end of each; at least one column."""
        counts = self.counts[keys]
        columns = np.arange(max(counts.max(initial=0), 1))
        there = columns < counts[:, None]
        found = np.full(there.shape, -1, np.int64)
        found[there] = self._pairs[(self._starts[keys][:, None] + columns)[there]] % self._images
        return found

    def hold(self, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
        """bool [B, C]: which of values [B, C] a key has."""
        wanted = keys[:, None] * self._images + values
        place = np.searchsorted(self._pairs, wanted).clip(max=len(self._pairs) - 1)
        return (values >= 0) & (self._pairs[place] == wanted)
