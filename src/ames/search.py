"""Global search: from global descriptors to a shortlist, exactly, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ames.best import NONE, Best, best_of, capacity, ids_of, keys, similarities_of
from ames.data.shortlist import Shortlist
from ames.data.vectors import Vectors
from ames.errors import AmesError

BLOCK = 4096  # queries at a time
_TILE = 2048  # gallery images that torch multiplies with at a time
_GALLERY = 1 << 30  # bytes of its vectors that are in memory, for FAISS
_CANDIDATES = 1 << 28  # bytes of all that a block holds, several times of which are in memory
_FEW = 32  # queries that are asked again together
_MULTIPLE = 64  # of both sides of a product, so that a pair's last bits do not depend on where it lies


def search(
    queries: np.ndarray,
    gallery: np.ndarray,
    k: int | None = None,
    *,
    block: int = BLOCK,
    skip_self: bool = False,
    device: str = "cpu",
) -> Shortlist:
    """The ``k`` most similar gallery images of each query (all if None), by inner product, in memory.

    queries float32 [Q, G], gallery float32 [n, G], rows of unit length. See ``search_blocks``.
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
    """Entries a query that a search for ``k`` finds: not more than the gallery has."""
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
    tile: int | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(ids int64 [<= block, k], similarities float32 alike) of the queries' blocks in their order: the ``k``
    most similar gallery images by inner product, all if None or fewer.

    Exact: products are float32, equal similarities are ordered by id. A zero row (an image without
    keypoints) has similarity -1 to everything: it comes last and finds nothing before anything else.
    skip_self: query i is gallery image i and does not find itself; others of the same vector it finds.
    device: "cpu" is FAISS; on any other torch multiplies and chooses. tile: gallery images read at a time, by
    default what keeps to two gigabytes; a ``block`` whose candidates would take more is cut.
    AmesError where widths differ or a vector is not finite.
    """
    if queries.width != gallery.width:
        raise AmesError(
            f"queries have {queries.width}-d global descriptors, the gallery {gallery.width}-d: "
            "they were not made by the same backbone"
        )
    k = entries_of(gallery, k, skip_self)
    way = _way(device)
    # FAISS chooses the best of a tile, which takes its time where there are many: few large tiles.
    tile = tile or (max(_TILE, _GALLERY // (4 * gallery.width)) if way is _by_faiss else _TILE)
    block = max(1, min(block, _CANDIDATES // (8 * capacity(k, _TILE))))
    for first, rows in queries.blocks(block):
        if not k:
            yield np.empty((len(rows), 0), np.int64), np.empty((len(rows), 0), np.float32)
            continue
        own = first if skip_self else None
        ids, similarities = way(rows, gallery, k, own=own, tile=tile, device=device)
        for row in np.flatnonzero(~rows.any(1)):
            others = np.arange(k + 1)  # a blank query is -1 to all, so that these are the first
            ids[row] = others[others != (-1 if own is None else own + row)][:k]
            similarities[row] = -1
        yield ids, similarities


def _way(device: str) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    return _by_faiss if torch.device(device).type == "cpu" else _by_torch


def _by_faiss(
    queries: np.ndarray, gallery: Vectors, k: int, *, own: int | None, tile: int, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` best of each query [B, G]; own: the first one's id, where they are not to find themselves."""
    asked = np.ascontiguousarray(_padded(queries).numpy())
    best = torch.empty((len(asked), 0), dtype=torch.int64)
    for start, vectors in gallery.blocks(tile):
        there = vectors.any(1)
        real, blank = (torch.from_numpy(np.flatnonzero(x)) + start for x in (there, ~there))
        found = _candidates(asked, vectors if there.all() else vectors[there], real, k, own)
        # Of the blank ones the first k + 1 are enough, since they are all alike.
        least = keys(torch.full((min(len(blank), k + 1),), -1.0), blank[: k + 1]).expand(len(asked), -1)
        if own is not None:
            least = least.masked_fill(ids_of(least) == own + torch.arange(len(asked))[:, None], NONE)
        best = torch.cat((best, found, least), dim=1)
        best = best_of(best, min(k, best.shape[1]))
    best = best[: len(queries)]
    return ids_of(best).numpy(), similarities_of(best).numpy()


def _candidates(queries: np.ndarray, vectors: np.ndarray, ids: Tensor, k: int, own: int | None) -> Tensor:
    """Keys [B, m] of the best of a tile: ``k``, or as many as there are.

    Which of equal ones FAISS returns is up to it. A query whose ``k``-th is as good as the last that came is
    asked again for more, until one comes that is worse.
    """
    import faiss

    held = _padded(vectors).numpy()
    pads = len(held) - len(vectors)
    ids = F.pad(ids, (0, pads), value=-1)

    def ask(rows: np.ndarray, wanted: int) -> tuple[Tensor, np.ndarray]:
        """Keys of the best of some queries, and the rows among them that have to be asked again."""
        # Not less than a few, so that FAISS multiplies matrices: of single rows it sums in another order.
        asked = queries[np.resize(rows, max(len(rows), _FEW))]
        found = faiss.knn(asked, held, wanted, metric=faiss.METRIC_INNER_PRODUCT)
        values, places = (torch.from_numpy(array[: len(rows)]) for array in found)
        there = ids[places]
        candidates = keys(values, there).masked_fill_(there < 0, NONE)
        if own is not None:
            candidates.masked_fill_(there == own + torch.from_numpy(rows)[:, None], NONE)
        best = best_of(candidates, min(k, wanted))
        if wanted == len(held):
            return best, rows[:0]
        return best, rows[torch.eq(similarities_of(best[:, -1]), values[:, -1]).numpy()]

    wanted = min(len(held), k + 1 + pads + (own is not None))
    if not wanted:
        return torch.empty((len(queries), 0), dtype=torch.int64)
    found, tied = ask(np.arange(len(queries)), wanted)
    tied = tied[queries[tied].any(1)]  # a blank query is as similar to all
    while len(tied):
        wanted, left = min(8 * wanted, len(held)), []
        for rows in np.split(tied, range(_FEW, len(tied), _FEW)):
            found[rows], again = ask(rows, wanted)
            left.append(again)
        tied = np.concatenate(left)
    return found


def _by_torch(
    queries: np.ndarray, gallery: Vectors, k: int, *, own: int | None, tile: int, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """As ``_by_faiss``."""
    count, asked = len(queries), _padded(queries).to(device)
    best = Best(count, k, min(tile, len(gallery)), asked.device)
    for start, vectors in gallery.blocks(tile):
        held = _padded(vectors).to(device)
        similarities = (asked @ held.T)[:count, : len(vectors)]
        for column in np.flatnonzero(~vectors.any(1)).tolist():  # few, and a mask would go over all
            similarities[:, column] = -1
        if own is not None:
            ids = range(max(own, start), min(own + count, start + len(vectors)))
            here = torch.tensor(ids, dtype=torch.int64, device=device)
            similarities[here - own, here - start] = -torch.inf
        best.offer(similarities, start)
    return best.result()


def _padded(vectors: np.ndarray) -> Tensor:
    """With zero rows behind, up to a multiple: at the edges of a product libraries sum in another order."""
    if len(vectors) % _MULTIPLE == 0:
        return torch.from_numpy(np.ascontiguousarray(vectors))
    return F.pad(torch.from_numpy(vectors), (0, 0, 0, -len(vectors) % _MULTIPLE))
