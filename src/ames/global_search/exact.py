"""Global search: from global descriptors to a shortlist, exactly, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from ames.descriptors.vectors import Vectors
from ames.errors import AmesError
from ames.global_search.shortlist import Shortlist

BLOCK = 4096  # queries at a time
_GALLERY_BYTES = 1 << 29  # of the gallery's vectors at a time; each block costs one merge
_RESULT_BYTES = 1 << 30  # of the candidates of a block of queries
_CANDIDATE_BYTES = 72  # of one candidate: FAISS collects two a place, results are held three times
_PRODUCT_BYTES = 1 << 30  # of the similarities on a GPU
_EXTRA = 8  # entries beyond k, so that ties at the cut are ordered by id
_MOST_EXTRA = 4096

Found = tuple[np.ndarray, np.ndarray]  # ids int64 [B, k], similarities float32 [B, k]


def search(
    queries: np.ndarray,
    gallery: np.ndarray,
    k: int | None = None,
    *,
    block: int = BLOCK,
    skip_self: bool = False,
    device: str = "cpu",
) -> Shortlist:
    """Return the ``k`` most similar gallery images of each query (all if None), by cosine, in memory.

    queries float32 [Q, G], gallery float32 [n, G]. See ``search_blocks``.
    """
    asked, searched = Vectors.of(queries, "queries"), Vectors.of(gallery, "gallery")
    entries = count_entries(searched, k, skip_self)
    blocks = search_blocks(asked, searched, k, block=block, skip_self=skip_self, device=device)
    return collected(blocks, entries)


def collected(blocks: Iterable[Found], entries: int) -> Shortlist:
    """Return the shortlist of all blocks of a search for ``entries``."""
    empty = np.empty((0, entries), np.int64), np.empty((0, entries), np.float32)
    ids, similarities = (np.concatenate(parts) for parts in zip(empty, *blocks, strict=True))
    return Shortlist(ids, similarities)


def count_entries(gallery: Vectors, k: int | None, skip_self: bool = False) -> int:
    """Return the entries per query that a search for ``k`` finds: at most what the gallery has.

    AmesError below 0.
    """
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
    tile: int | None = None,
) -> Iterator[Found]:
    """Yield ids int64 [<= block, k] and similarities float32 alike, for the queries' blocks in their order:
    the ``k`` most similar gallery images by cosine, all if None or fewer.

    Exact: inner products in float32 of vectors of unit length (``Vectors`` normalizes them), on the CPU by
    FAISS, elsewhere by torch. Equal similarities are ordered by id, also at the cut, up to 4,096 images that
    tie there. A zero row (an image without keypoints) has similarity -1 to everything.
    skip_self: query i is gallery image i and does not find itself; it finds others of the same vector.
    tile: gallery images at a time (None: half a gigabyte of vectors). ``block`` is reduced where its
    candidates would take more than a gigabyte. The same call returns the same bits. Other sizes of
    blocks, threads or devices can change similarities by rounding (1e-6), and with it the order of images
    that are so close. AmesError where widths differ or a vector is not finite.
    """
    if queries.width != gallery.width:
        raise AmesError(
            f"{queries.sources[0]}: {queries.width}-d global descriptors, those of {gallery.sources[0]} are "
            f"{gallery.width}-d: they were not made by the same backbone"
        )
    k = count_entries(gallery, k, skip_self)
    tile = tile or max(1, _GALLERY_BYTES // (4 * gallery.width))
    for first, rows in queries.blocks(min(block, _fitting(k + _EXTRA))):
        if not k:
            yield np.empty((len(rows), 0), np.int64), np.empty((len(rows), 0), np.float32)
            continue
        own = np.arange(first, first + len(rows)) if skip_self else None
        asked = rows.any(1)
        if asked.all():
            yield _nearest(rows, gallery, k, own, tile=tile, device=device)
            continue
        ids, similarities = np.empty((len(rows), k), np.int64), np.full((len(rows), k), -1, np.float32)
        which = None if own is None else own[asked]
        ids[asked], similarities[asked] = _nearest(rows[asked], gallery, k, which, tile=tile, device=device)
        for row in np.flatnonzero(~asked):
            others = np.arange(k + 1)  # a zero query is -1 to all, so that these are the first
            ids[row] = others[others != (-1 if own is None else own[row])][:k]
        yield ids, similarities


def _fitting(entries: int) -> int:
    """Return how many queries of so many candidates fit into the memory."""
    return max(1, _RESULT_BYTES // (_CANDIDATE_BYTES * entries))


def _nearest(
    queries: np.ndarray,
    gallery: Vectors,
    k: int,
    own: np.ndarray | None,
    *,
    tile: int,
    device: str,
    extra: int = _EXTRA,
) -> Found:
    """Return the ``k`` best of each query [B, G]; own: int [B], the image that each must not find.

    Where all candidates beyond the k-th tie with it, images of smaller ids can be missing: these queries are
    searched again for more.
    """
    wanted = min(k + (own is not None) + extra, len(gallery))
    ids, similarities = order_ties(*_candidates(queries, gallery, wanted, tile, device))
    if own is not None:
        others = ids != own[:, None]
        others[others.all(1), -1] = False  # rows stay equally long
        shape = len(ids), wanted - 1
        ids, similarities = ids[others].reshape(shape), similarities[others].reshape(shape)
    if wanted < len(gallery) and extra < _MOST_EXTRA:
        tied = np.flatnonzero(similarities[:, k - 1] == similarities[:, -1])
        extra *= 8
        step = _fitting(k + extra)
        for rows in (tied[i : i + step] for i in range(0, len(tied), step)):
            ids[rows, :k], similarities[rows, :k] = _nearest(
                queries[rows],
                gallery,
                k,
                None if own is None else own[rows],
                tile=tile,
                device=device,
                extra=extra,
            )
    return ids[:, :k], similarities[:, :k]


def order_ties(ids: np.ndarray, similarities: np.ndarray) -> Found:
    """Return rows that are sorted by similarity, with rising ids where similarities are equal."""
    equal = similarities[:, 1:] == similarities[:, :-1]
    tied = np.pad(equal, ((0, 0), (0, 1))) | np.pad(equal, ((0, 0), (1, 0)))
    places = np.divmod(np.flatnonzero(tied), tied.shape[1])
    found = ids[places]
    ids[places] = found[np.lexsort((found, -similarities[places], places[0]))]
    return ids, similarities


def _candidates(queries: np.ndarray, gallery: Vectors, wanted: int, tile: int, device: str) -> Found:
    """Return the best of each query, sorted, from all blocks of the gallery."""
    found: Found | None = None
    zeros: list[int] = []
    for start, vectors in gallery.blocks(tile):
        blank = np.flatnonzero(vectors[:, 0] == 0)
        blank = blank[~vectors[blank].any(1)]
        zeros += (start + blank[: wanted - len(zeros)]).tolist()
        ids, similarities = _block(
            queries, np.delete(vectors, blank, 0) if len(blank) else vectors, wanted, device
        )
        if len(blank):
            ids = np.append(np.delete(np.arange(len(vectors)), blank), -1)[ids]
        if start:
            np.add(ids, start, out=ids, where=ids >= 0)
        found = (ids, similarities) if found is None else _merged(found, (ids, similarities))
    assert found is not None, "an empty gallery has no entries"
    if zeros and found[1].min() <= -1:  # what is missing is -inf
        shape = len(queries), wanted
        ids, similarities = np.full(shape, -1), np.full(shape, -np.inf, np.float32)
        ids[:, : len(zeros)], similarities[:, : len(zeros)] = zeros, -1
        found = _merged(found, (ids, similarities))
    return found


def _merged(first: Found, second: Found) -> Found:
    """Return the best of two results of as many entries, both sorted; missing ones have the id -1."""
    import faiss

    ids, similarities = (np.stack(pair) for pair in zip(first, second, strict=True))
    similarities, ids = faiss.merge_knn_results(similarities, ids, keep_max=True)
    return ids, similarities


def _block(queries: np.ndarray, vectors: np.ndarray, wanted: int, device: str) -> Found:
    """Return the best of one block, sorted; where it has fewer, the last ids are -1."""
    import faiss

    if device == "cpu":
        similarities, ids = faiss.knn(queries, vectors, wanted, metric=faiss.METRIC_INNER_PRODUCT)
        return ids, similarities
    ids = np.full((len(queries), wanted), -1)
    similarities = np.full(ids.shape, -np.inf, np.float32)
    searched = torch.tensor(vectors, device=device)  # a mapped file is read-only
    step, count = max(1, _PRODUCT_BYTES // (4 * max(len(vectors), 1))), min(wanted, len(vectors))
    for start in range(0, len(queries), step):
        product = torch.tensor(queries[start : start + step], device=device) @ searched.T
        best = product.topk(count, dim=1)
        similarities[start : start + step, :count] = best.values.cpu()
        ids[start : start + step, :count] = best.indices.cpu()
    return ids, similarities
