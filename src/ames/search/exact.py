"""Global search: from global descriptors to a shortlist, exactly, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ames.descriptors.vectors import Vectors
from ames.errors import AmesError
from ames.search.shortlist import Shortlist
from ames.search.topk import Best, capacity

BLOCK = 4096  # queries at a time
TILE = 2048  # gallery images at a time
_BYTES = 1 << 28  # of the candidates that are held, several times of which are in memory
_MULTIPLE = 64  # of both sides of a product


def search(
    queries: np.ndarray,
    gallery: np.ndarray,
    k: int | None = None,
    *,
    block: int = BLOCK,
    skip_self: bool = False,
    device: str = "cpu",
) -> Shortlist:
    """The ``k`` most similar gallery images of each query (all if None), by cosine, in memory.

    queries float32 [Q, G], gallery float32 [n, G]. See ``search_blocks``.
    """
    asked, searched = Vectors.of(queries, "queries"), Vectors.of(gallery, "gallery")
    ids = np.empty((len(asked), entries_of(searched, k, skip_self)), np.int64)
    similarities = np.empty(ids.shape, np.float32)
    start = 0
    for i, s in search_blocks(asked, searched, k, block=block, skip_self=skip_self, device=device):
        rows = slice(start, start + len(i))
        ids[rows], similarities[rows] = i, s
        start = rows.stop
    return Shortlist(ids, similarities)


def entries_of(gallery: Vectors, k: int | None, skip_self: bool = False) -> int:
    """Entries a query that a search for ``k`` finds: not more than the gallery has. AmesError below 0."""
    if k is not None and k < 0:
        raise AmesError(f"{k} entries a query were asked for; give 0 or more, or None for all")
    most = max(len(gallery) - skip_self, 0)
    return most if k is None else min(k, most)


def search_blocks(
    queries: Vectors,
    gallery: Vectors,
    k: int | None = None,
    *,
    block: int = BLOCK,
    skip_self: bool = False,
    device: str = "cpu",
    tile: int = TILE,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(ids int64 [<= block, k], similarities float32 alike) of the queries' blocks in their order: the ``k``
    most similar gallery images by cosine, all if None or fewer.

    Exact: inner products in float32 of vectors of unit length (``Vectors`` brings them to it); equal
    similarities are ordered by id. A zero row (an image without keypoints) has similarity -1 to everything:
    it comes last and finds nothing before anything else.
    skip_self: query i is gallery image i and does not find itself; others of the same vector it finds.
    device: torch's, of the products and the choice. tile: gallery images at a time. In memory are some
    hundred megabytes, whatever the sizes: a ``block`` whose candidates would take more is cut. Neither
    changes the result. AmesError where widths differ or a vector is not finite.
    """
    if queries.width != gallery.width:
        raise AmesError(
            f"{queries.sources[0]}: {queries.width}-d global descriptors, those of {gallery.sources[0]} are "
            f"{gallery.width}-d: they were not made by the same backbone"
        )
    k = entries_of(gallery, k, skip_self)
    block = max(1, min(block, _BYTES // (8 * max(capacity(k, tile, len(gallery)), 1))))
    for first, rows in queries.blocks(block):
        if not k:
            yield np.empty((len(rows), 0), np.int64), np.empty((len(rows), 0), np.float32)
            continue
        own = first if skip_self else None
        ids, similarities = _nearest(rows, gallery, k, own=own, tile=tile, device=device)
        for row in np.flatnonzero(~rows.any(1)):
            others = np.arange(k + 1)  # a blank query is -1 to all, so that these are the first
            ids[row] = others[others != (-1 if own is None else own + row)][:k]
            similarities[row] = -1
        yield ids, similarities


def _nearest(
    queries: np.ndarray, gallery: Vectors, k: int, *, own: int | None, tile: int, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` best of each query [B, G]; own: the first one's id, where they are not to find themselves."""
    count, asked = len(queries), _padded(queries).to(device)
    best = Best(count, k, capacity(k, tile, len(gallery)), asked.device)
    product = asked.new_empty(0)  # kept: new memory costs a third of what filling it does
    for start, vectors in gallery.blocks(tile):
        held = _padded(vectors).to(device)
        product = product if product.shape[1:] == (len(held),) else asked.new_empty(len(asked), len(held))
        similarities = torch.mm(asked, held.T, out=product)[:count, : len(vectors)]
        for column in np.flatnonzero(~vectors.any(1)).tolist():  # few, and a mask would go over all
            similarities[:, column] = -1
        if own is not None:
            ids = range(max(own, start), min(own + count, start + len(vectors)))
            here = torch.tensor(ids, dtype=torch.int64, device=device)
            similarities[here - own, here - start] = -torch.inf
        best.offer(similarities, start)
    return best.result()


def _padded(vectors: np.ndarray) -> Tensor:
    """With zero rows behind, up to a multiple.

    At the edges of a product libraries sum in another order, and the last bits of a pair's similarity would
    depend on where it lies: equal vectors would not tie, and other blocks would give another order.
    """
    return F.pad(torch.from_numpy(vectors), (0, 0, 0, -len(vectors) % _MULTIPLE))
