"""Query expansion and database augmentation: a global descriptor is joined with those of its nearest images.

x' = unit(x + sum over the k nearest x_i of max(s_i, 0)^alpha * x_i), s_i being their similarities with x.

Average query expansion (alpha = 0): Chum, Philbin, Sivic, Isard, Zisserman, "Total Recall" (ICCV 2007).
alpha-QE: Radenovic, Tolias, Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation" (PAMI 2018).
Database augmentation (DBA) does the same with each image of the gallery: Turcot, Lowe, "Better Matching with
Fewer Features" (ICCV workshops 2009); Arandjelovic, Zisserman, "Three Things Everyone Should Know to Improve
Object Retrieval" (CVPR 2012). docs/expansion.md compares them with released code.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ames.descriptors.vectors import Vectors
from ames.errors import AmesError
from ames.global_search.exact import BLOCK, Found, collected, count_entries, search_blocks
from ames.global_search.shortlist import Shortlist
from ames.io.progress import progress

_log = logging.getLogger(__name__)
_BYTES = 1 << 27  # of the neighbours' vectors that are in memory together


@dataclass(frozen=True)
class Expansion:
    """The constants of an expansion.

    neighbours: k, 0 leaves all as it is. alpha: the power of their similarities; 0 is the average. A
    similarity below 0 counts as 0, and 0^0 is 1, so that the average takes all k alike.
    """

    neighbours: int = 10
    alpha: float = 3.0

    def __post_init__(self) -> None:
        if isinstance(self.neighbours, bool) or not isinstance(self.neighbours, int) or self.neighbours < 0:
            raise AmesError(f"expansion: neighbours {self.neighbours!r}: give a whole number of 0 or more")
        if isinstance(self.alpha, bool) or not 0 <= self.alpha < math.inf:
            raise AmesError(f"expansion: alpha {self.alpha}: give a number of 0 or more")


def expand_queries(
    queries: Vectors, gallery: Vectors, found: Shortlist, settings: Expansion, *, source: str = "shortlist"
) -> np.ndarray:
    """Return the expanded queries, float32 [Q, G], of unit length: each joined with the first k entries of
    its row of ``found``, the shortlist of the first search, by its similarities.

    Junk is not removed before, as in released code. Empty entries (-1) count for nothing. A query without a
    vector (zeros) stays so, and one whose sum is zero stays as it was. source: of the shortlist, for errors.
    AmesError for a shortlist of other queries or another gallery, and where k is larger than its rows,
    unless they hold the whole gallery.
    """
    if len(found.ids) != len(queries):
        raise AmesError(f"{source}: {len(found.ids)} queries, but {len(queries)} in {queries.sources[0]}")
    size = found.meta.get("gallery_size", len(gallery))
    if size != len(gallery) or found.ids.max(initial=-1) >= len(gallery):
        raise AmesError(
            f"{source}: of another gallery than {gallery.sources[0]}, which has {len(gallery)} images: take "
            "the shortlist of this gallery"
        )
    entries, k = found.ids.shape[1], settings.neighbours
    if k > entries:
        if entries < len(gallery):
            raise AmesError(
                f"{source}: has {entries} entries a query, {k} neighbours are asked for: take fewer, or make "
                "a longer shortlist"
            )
        _say_all(k, entries)
    expanded = np.empty((len(queries), queries.width), np.float32)
    for start, own in queries.blocks():
        rows = slice(start, start + len(own))
        expanded[rows] = _joined(own, (found.ids[rows, :k], found.similarities[rows, :k]), gallery, settings)
    return expanded


def search_expanded(
    queries: Vectors,
    gallery: Vectors,
    found: Shortlist,
    settings: Expansion,
    size: int | None = None,
    *,
    block: int = BLOCK,
    device: str = "cpu",
) -> Shortlist:
    """Return the shortlist of a second search, by the expanded queries, of ``size`` entries a query (None: as
    many as ``found`` has). See ``expand_queries``.
    """
    asked = Vectors.of(expand_queries(queries, gallery, found, settings), "expanded queries")
    size = found.ids.shape[1] if size is None else size
    blocks = search_blocks(asked, gallery, size, block=block, device=device)
    return collected(blocks, count_entries(gallery, size))


def augment(gallery: Vectors, settings: Expansion, *, block: int = BLOCK, device: str = "cpu") -> np.ndarray:
    """Return all augmented vectors of a gallery in memory, float32 [n, G]; see ``augment_blocks``."""
    parts = [vectors for _, vectors in augment_blocks(gallery, settings, block=block, device=device)]
    return np.concatenate([np.empty((0, gallery.width), np.float32), *parts])


def augment_blocks(
    gallery: Vectors, settings: Expansion, *, first: int = 0, block: int = BLOCK, device: str = "cpu"
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first image, vectors float32 [<= block, G]) of the gallery from image ``first`` on: each joined
    with its k nearest others, as found by ``search_blocks``, and brought to unit length.

    An image is not its own neighbour, by its number: others of the same vector are. A zero vector stays zero.
    Where the gallery has no k others, all are taken, which is said. The search of each block reads the whole
    gallery once, so the cost is that of n queries.
    """
    k, n = settings.neighbours, len(gallery)
    if k > max(n - 1, 0):
        _say_all(k, max(n - 1, 0))
        k = max(n - 1, 0)
    with progress("augment", n, "images", done=first) as tick:
        for start in range(first, n, block):
            own = gallery.read(start, start + block)
            others = _without_self(_search(own, gallery, k, device), start, k)
            yield start, _joined(own, others, gallery, settings)
            tick(len(own))


def _search(own: np.ndarray, gallery: Vectors, k: int, device: str) -> Found:
    """The k + 1 nearest of vectors of the gallery, which find themselves among them."""
    asked = Vectors.of(own, gallery.sources[0])
    found = collected(search_blocks(asked, gallery, k + 1, device=device), min(k + 1, len(gallery)))
    return found.ids, found.similarities


def _without_self(found: Found, start: int, k: int) -> Found:
    """Remove row i's own entry, image start + i, or the last one where it is not among k + 1 that tie."""
    ids, similarities = found
    others = ids != np.arange(start, start + len(ids))[:, None]
    others[others.all(1), -1] = False
    return ids[others].reshape(len(ids), k), similarities[others].reshape(len(ids), k)


def _joined(own: np.ndarray, found: Found, gallery: Vectors, settings: Expansion) -> np.ndarray:
    """Join vectors float32 [n, G] with their neighbours, ids and similarities [n, k]."""
    ids, similarities = found
    joined = np.array(own)
    present = np.flatnonzero(own.any(1))
    step = max(1, _BYTES // (4 * (ids.shape[1] + 1) * own.shape[1]))
    for rows in (present[i : i + step] for i in range(0, len(present) if ids.shape[1] else 0, step)):
        weights = _weights(ids[rows], similarities[rows], settings.alpha)
        near = gallery.gather(np.maximum(ids[rows], 0).ravel()).reshape(*ids[rows].shape, -1)
        total = own[rows] + np.einsum("nk,nkg->ng", weights, near, dtype=np.float64)
        lengths = np.linalg.norm(total, axis=1)
        if not np.isfinite(lengths).all():
            raise AmesError(f"expansion: alpha {settings.alpha}: weights are not finite; take a smaller one")
        kept = lengths > 0
        joined[rows[kept]] = total[kept] / lengths[kept, None]
    return joined


def _weights(ids: np.ndarray, similarities: np.ndarray, alpha: float) -> np.ndarray:
    """max(s, 0)^alpha as float64, 0 where there is no entry."""
    clipped = np.where(ids >= 0, similarities, 0).astype(np.float64).clip(min=0)
    with np.errstate(over="ignore"):  # said by ``_joined``
        return np.where(ids >= 0, clipped**alpha, 0)


def _say_all(k: int, there: int) -> None:
    _log.warning("%d neighbours asked for, there are %d: all are taken", k, there)
