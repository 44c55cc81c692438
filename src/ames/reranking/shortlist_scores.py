"""Scores of a shortlist: each pair is scored once, for any number of fusions and rankings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ames.database.store import Database, check_codes, slots_read
from ames.descriptors.local import DescriptorFile
from ames.errors import AmesError, naming
from ames.features import LocalFeatures
from ames.global_search.shortlist import Shortlist
from ames.io.prefetch import ahead
from ames.io.progress import progress
from ames.reranking.score_cache import ScoreCache
from ames.reranking.scorer import PairScorer

_BLOCK_SLOTS = 1 << 15  # descriptors of gallery images read and encoded at a time
_QUERY_SLOTS = 1 << 21  # descriptors of queries held encoded: about a gigabyte at 128 dimensions


def score_shortlist(
    scorer: PairScorer,
    queries: DescriptorFile | Database,
    gallery: DescriptorFile | Database,
    shortlist: Shortlist,
    *,
    query_count: int | None = None,
    database_count: int | None = None,
    cache: ScoreCache | None = None,
) -> np.ndarray:
    """Return logits float32 [Q, M] of the entries of a shortlist; NaN for empty ones (``Shortlist.where``).

    Each pair is scored once. The gallery is read once, in the order of the file, and only the descriptors
    that are used: each block is scored against all queries and discarded.
    query_count, database_count: descriptors used of each image (None: all). cache: scores of an interrupted
    call, which are used, and to which each block of new ones is added. Either file may be packed
    (``DescriptorFile.packed``): its codes are those that the binary model makes of the descriptors, and the
    scores are the same. AmesError if a packed file does not fit the model, and for descriptors or a score
    that is not finite.
    """
    for file in (queries, gallery):
        check_codes(scorer.model, file)
    wanted = shortlist.ids >= 0
    logits = np.full(shortlist.ids.shape, np.nan, np.float32)
    if cache is not None:
        logits[wanted] = cache.get(shortlist.ids)[wanted]
        wanted = wanted & np.isnan(logits)
    if database_count is not None:
        database_count = slots_read(scorer.model, gallery, database_count)
    block_images = max(1, _BLOCK_SLOTS // (database_count or gallery.slots))

    def read(block: _Pairs) -> LocalFeatures:
        return gallery.read(block.images, database_count, locations=scorer.model.reads_locations)

    with progress("score", int(wanted.sum()), "pairs") as tick:
        for rows, encoded in _encoded(scorer, queries, wanted, query_count):
            blocks = _Pairs.from_shortlist(shortlist.ids, wanted, rows).blocks(block_images)
            for block, images in zip(blocks, ahead(read, blocks, scorer.compute.workers), strict=True):
                query, image = rows[block.rows], block.images[block.places]
                with _naming(gallery, block.images):
                    scores = scorer.score(encoded, images, block.rows, block.places)
                _check_finite(scores, query, image, queries, gallery)
                logits[query, block.columns] = scores
                if cache is not None:
                    cache.append(query, image, scores)
                tick(len(scores))
    return logits


def _encoded(
    scorer: PairScorer, queries: DescriptorFile | Database, wanted: np.ndarray, count: int | None
) -> Iterator[tuple[np.ndarray, list[LocalFeatures]]]:
    """Yield numbers of queries that have wanted entries, and their encoded descriptors, group by group."""
    group = max(1, _QUERY_SLOTS // (count or queries.slots))
    for first in range(0, len(wanted), group):
        rows = first + np.flatnonzero(wanted[first : first + group].any(1))
        if len(rows):
            with _naming(queries, rows):
                encoded = scorer.queries(queries.read(rows, count))
            yield rows, encoded


def _naming(file: DescriptorFile | Database, images: np.ndarray) -> AbstractContextManager[None]:
    """Name the image of the file, of those that are worked on, whose descriptors an error is about."""
    return naming(lambda image: describe_image(file, image), lambda place: int(images[place]))


@dataclass(frozen=True)
class _Pairs:
    """Pairs of some queries with some images.

    rows, columns: int [P], the query of a pair and its column in the shortlist. places: int [P], its image in
    ``images``, the ascending ids.
    """

    rows: np.ndarray
    columns: np.ndarray
    places: np.ndarray
    images: np.ndarray

    @classmethod
    def from_shortlist(cls, ids: np.ndarray, wanted: np.ndarray, queries: np.ndarray) -> _Pairs:
        """Collect the wanted entries of a shortlist [Q, M] for some of its queries, sorted by image."""
        rows, columns = np.nonzero(wanted[queries])
        images, places = np.unique(ids[queries[rows], columns], return_inverse=True)
        order = np.argsort(places, kind="stable")
        return cls(rows[order], columns[order], places[order], images)

    def blocks(self, size: int) -> list[_Pairs]:
        """Split into blocks of ``size`` images."""
        starts = range(0, len(self.images), size)
        cuts = np.searchsorted(self.places, [*starts, len(self.images)])
        return [
            _Pairs(
                self.rows[a:b], self.columns[a:b], self.places[a:b] - start, self.images[start : start + size]
            )
            for start, (a, b) in zip(starts, pairwise(cuts), strict=True)
        ]


def describe_image(file: DescriptorFile | Database, image: int) -> str:
    """An image's descriptors, in a message."""
    name = "" if file.names is None else f" ({file.names[image]})"
    return f"{file.path}: the descriptors of image {image}{name}"


def _check_finite(
    scores: np.ndarray,
    query: np.ndarray,
    image: np.ndarray,
    queries: DescriptorFile | Database,
    gallery: DescriptorFile | Database,
) -> None:
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        q, i = query[bad[0]], image[bad[0]]
        raise AmesError(
            f"{queries.path} (query {q}), {gallery.path} (image {i}): their score is {scores[bad[0]]}; the "
            "descriptors or the model's weights hold values that are not finite"
        )
