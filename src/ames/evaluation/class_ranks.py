"""Ranks of the images of a query's class in the whole ranking, exactly, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ames.descriptors.vectors import Vectors
from ames.errors import AmesError

BLOCK_BYTES = 1 << 27  # of the similarities of a block of queries; each block reads the gallery once


def class_ranks(
    queries: Vectors,
    gallery: Vectors,
    query_classes: np.ndarray,
    gallery_classes: np.ndarray,
    *,
    skip_self: bool = False,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[np.ndarray]:
    """Yield for each query, in order, the rising zero-based ranks int64 [P] of its class in the gallery.

    query_classes int [Q], gallery_classes int [n]. The ranking is that of
    ``ames.global_search.exact.search_blocks``: by cosine; of equal similarities, the smaller id comes first,
    whichever of them is right; a zero vector has similarity -1 to everything. Only the ranks are computed:
    similarities of one row are sorted as numbers, and ties are counted where there are any.
    skip_self: query i is gallery image i, which takes no rank. Images of the same vector do.
    Similarities float32 of at most ``block_bytes`` (or of one query) are held at a time, and 64 MB of the
    gallery. Other sizes of blocks or threads can change similarities by rounding (1e-6), and with it the
    order of images that are so close, copies among them.
    AmesError where widths differ or a vector is not finite.
    """
    if queries.width != gallery.width:
        raise AmesError(
            f"{queries.sources[0]}: {queries.width}-d global descriptors, those of {gallery.sources[0]} are "
            f"{gallery.width}-d: they are of different spaces"
        )
    members = _members(gallery_classes)
    none = np.empty(0, np.int64)
    size = max(1, min(block_bytes // (4 * max(len(gallery), 1)), len(queries)))
    memory = np.empty((size, len(gallery)), np.float32)
    for first, rows in queries.blocks(size):
        for number, row in enumerate(_similarities(rows, gallery, memory[: len(rows)]), first):
            positives = members.get(int(query_classes[number]), none)
            if skip_self:
                row[number] = -np.inf
                positives = positives[positives != number]
            yield _ranks(row, positives)


def _members(classes: np.ndarray) -> dict[int, np.ndarray]:
    """Class -> rising ids of its images."""
    order = np.argsort(classes, kind="stable")
    names, starts = np.unique(classes[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, starts[1:]), strict=True))


def _similarities(rows: np.ndarray, gallery: Vectors, found: np.ndarray) -> np.ndarray:
    """Fill ``found`` float32 [B, n] with the cosines of vectors [B, G] and the gallery; return it."""
    for start, vectors in gallery.blocks():
        part = found[:, start : start + len(vectors)]
        np.matmul(rows, vectors.T, out=part)
        part[:, ~vectors.any(1)] = -1
    found[~rows.any(1)] = -1
    return found


def _ranks(row: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Rising ranks of the ids ``positives`` [P] under similarities [n]."""
    if not len(positives):
        return positives
    rising, values = np.sort(row), row[positives]
    ranks = len(row) - np.searchsorted(rising, values, "right")
    equal = len(row) - ranks - np.searchsorted(rising, values, "left")
    for place in np.flatnonzero(equal > 1):
        ranks[place] += np.count_nonzero(row[: positives[place]] == values[place])
    return np.sort(ranks)
