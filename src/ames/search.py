"""Global search: from global descriptors to a shortlist."""

from __future__ import annotations

from typing import Any

import numpy as np

from ames.data.shortlist import Shortlist
from ames.errors import AmesError


def search(queries: np.ndarray, gallery: np.ndarray, k: int | None = None, *, block: int = 1024) -> Shortlist:
    """The ``k`` most similar gallery images of each query (all if None), by inner product.

    queries float32 [Q, G], gallery float32 [n, G], rows of unit length. Exact, through FAISS; equal
    similarities are ordered by id. A zero row (an image without keypoints) has similarity -1 to
    everything: it comes last and finds nothing before anything else.
    """
    import faiss

    if queries.shape[1] != gallery.shape[1]:
        raise AmesError(
            f"queries have {queries.shape[1]}-d global descriptors, the gallery {gallery.shape[1]}-d: "
            "they were not made by the same backbone"
        )
    n = len(gallery)
    k = n if k is None else min(k, n)
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(np.ascontiguousarray(gallery, np.float32))
    blank = np.linalg.norm(gallery, axis=1) == 0
    ids = np.empty((len(queries), k), np.int64)
    similarities = np.empty((len(queries), k), np.float32)
    # Ties and blank rows are settled here, so a few more candidates than k are looked at.
    wanted = min(n, k + int(blank.sum()) + 1)
    for start in range(0, len(queries), block):
        batch = np.ascontiguousarray(queries[start : start + block], np.float32)
        i, s = _ranked(index, batch, blank, wanted)
        rows = slice(start, start + len(batch))
        ids[rows], similarities[rows] = i[:, :k], s[:, :k]
        if k < wanted < n:
            # Equal at the cut: which of the equal ones FAISS returned is up to it, so all are looked at.
            tied = np.flatnonzero(s[:, k - 1] == s[:, k])
            for row in tied:
                i, s_row = _ranked(index, batch[row : row + 1], blank, n)
                ids[start + row], similarities[start + row] = i[0, :k], s_row[0, :k]
    return Shortlist(ids, similarities)


def _ranked(index: Any, batch: np.ndarray, blank: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``wanted`` nearest of each row: ids and similarities, sorted; blank rows on either side have -1."""
    s, i = index.search(batch, wanted)
    s = np.where(blank[i] | (np.linalg.norm(batch, axis=1, keepdims=True) == 0), np.float32(-1), s)
    order = np.lexsort((i, -s))
    return np.take_along_axis(i, order, 1), np.take_along_axis(s, order, 1)
