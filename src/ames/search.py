"""Global search: from global descriptors to a shortlist."""

from __future__ import annotations

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
    wanted = min(n, k + int(blank.sum()))
    for start in range(0, len(queries), block):
        rows = slice(start, start + block)
        batch = np.ascontiguousarray(queries[rows], np.float32)
        s, i = index.search(batch, wanted)
        s = np.where(blank[i] | (np.linalg.norm(batch, axis=1, keepdims=True) == 0), np.float32(-1), s)
        order = np.lexsort((i, -s))[:, :k]
        ids[rows] = np.take_along_axis(i, order, 1)
        similarities[rows] = np.take_along_axis(s, order, 1)
    return Shortlist(ids, similarities)
