"""Which photos of a collection show the same object: pairs by mutual score, and groups of them."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from ames.database.index import open_codec
from ames.database.store import Database
from ames.datasets.components import components
from ames.errors import AmesError
from ames.global_search.shortlist import Shortlist
from ames.io.progress import progress
from ames.reranking.score_cache import ScoreCache, scores_key
from ames.reranking.scorer import PairScorer
from ames.reranking.shortlist_scores import score_shortlist
from ames.retrieval.collection import SCORING
from ames.retrieval.photo_record import NAME, PhotoRecord

log = logging.getLogger(__name__)
CANDIDATES = 20  # photos of the global search that each photo is compared with
_BLOCK = 4096  # photos searched with at a time


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of photos that were compared: first, second int64 [P], positions in the collection; same float64
    [P]: the lower of the two directions' ``sameness``.
    """

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray


@dataclass(frozen=True)
class Group:
    """Photos of one object, by name. same: the lowest ``sameness`` of the pairs that join them (None: they
    are copies of one file). copies: names of files that are exact copies of another one of the group.
    """

    names: list[str]
    same: float | None
    copies: list[str]


def sameness(scorer: PairScorer, scores: np.ndarray) -> np.ndarray:
    """Return sigmoid of what training compares with labels (``PairSimilarity.logits``), float64, in [0, 1].

    scores: of pairs, float32 of any shape. Training calls 0.5 the border; it is no probability elsewhere.
    """
    given = torch.from_numpy(np.ascontiguousarray(scores, np.float32)).reshape(-1).to(scorer.model.device)
    with torch.inference_mode():
        logits = scorer.model.logits(given).cpu().numpy().astype(np.float64)
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits))).reshape(scores.shape)


def exact_copies(database: Database) -> dict[int, list[int]]:
    """Return, of photos whose files have the same contents, the first one -> the others, by position.

    Empty where the collection records no contents.
    """
    record = PhotoRecord.load(database.path / NAME)
    if record is None:
        return {}
    found: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(database.names):
        photo = record.photos.get(name)
        if photo is not None and photo.sha256:
            found[photo.sha256].append(place)
    return {places[0]: places[1:] for places in found.values() if len(places) > 1}


def mutual_pairs(
    database: Database,
    scorer: PairScorer,
    *,
    threshold: float,
    candidates: int = CANDIDATES,
    skip: np.ndarray | None = None,
) -> Pairs:
    """Compare each photo with its ``candidates`` nearest by global codes, and return the pairs of at least
    ``threshold`` in both directions.

    Stored codes alone are compared; no photo is read. A pair is compared in the other direction only if it
    passes in the first. skip: positions that are left out. A call that was interrupted resumes. AmesError for
    global codes that cannot be decoded.
    """
    near = _nearest(database, candidates, skip)
    with _scoring_folder(database.path) as folder:
        return _mutual(database, scorer, near, folder, threshold, candidates)


@contextmanager
def _scoring_folder(collection: Path) -> Iterator[Path]:
    """The folder beside a collection where an interrupted call resumes; elsewhere, if that is forbidden."""
    if os.access(collection.parent, os.W_OK):
        yield collection.with_name(collection.name + SCORING)
        return
    log.info("%s: cannot be written: an interrupted call starts again", collection.parent)
    with TemporaryDirectory() as folder:
        yield Path(folder) / SCORING


def _mutual(
    database: Database, scorer: PairScorer, near: Shortlist, folder: Path, threshold: float, candidates: int
) -> Pairs:
    """``mutual_pairs`` of a shortlist, with scores kept in ``folder`` until all are there."""
    cache = ScoreCache(folder, scores_key(scorer, (database, database), (None, None)))

    def same(shortlist: Shortlist) -> np.ndarray:
        scores = score_shortlist(scorer, database, database, shortlist, cache=cache)
        return sameness(scorer, scores)

    once = near.where(_first_of_pair(near.ids))
    forward = same(once)
    rows, columns = np.nonzero((once.ids >= 0) & (forward >= threshold))
    first, second, kept = rows, once.ids[rows, columns], forward[rows, columns]
    back = np.full(len(first), np.nan)
    for part, turned in _turned(first, second, len(database), candidates):
        found = same(turned)
        back[part] = found[second[part], (turned.ids[second[part]] == first[part][:, None]).argmax(1)]
    lower = np.minimum(kept, back)
    good = lower >= threshold
    cache.clear()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    return Pairs(first[good], second[good], lower[good])


def group(database: Database, pairs: Pairs, copies: dict[int, list[int]]) -> list[Group]:
    """Return the connected components of pairs and exact copies, the largest first.

    In a group, each photo is paired with one other at least, not with all.
    """
    edges = list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    twins = [(first, other) for first, others in copies.items() for other in others]
    found = [nodes for nodes in components(len(database), edges + twins) if len(nodes) > 1]
    place = {node: number for number, nodes in enumerate(found) for node in nodes}
    lowest: dict[int, float] = {}
    for (first, _), same in zip(edges, pairs.same.tolist(), strict=True):
        lowest[place[first]] = min(same, lowest.get(place[first], 1.0))
    copied = {other for _, other in twins}
    groups = [
        Group(
            [database.names[node] for node in nodes],
            lowest.get(number),
            [database.names[node] for node in nodes if node in copied],
        )
        for number, nodes in enumerate(found)
    ]
    return sorted(groups, key=lambda one: (-len(one.names), one.names))


def _nearest(database: Database, k: int, skip: np.ndarray | None) -> Shortlist:
    """Each photo's nearest others by global codes, ids int64 [n, k]; -1 where there are fewer."""
    if k < 1:
        raise AmesError(f"candidates {k} is below 1")
    codec, codes, present = open_codec(database)
    if skip is not None and len(skip):
        present = present.copy()
        present[skip] = False
    index = codec.index(codes, present)
    ids = np.full((len(codes), k), -1, np.int64)
    similarities = np.full((len(codes), k), -1, np.float32)
    rows = np.flatnonzero(present)
    with progress("search", len(rows), "photos") as tick:
        for asked in np.split(rows, range(_BLOCK, len(rows), _BLOCK)):
            if not len(asked):
                continue
            found = index.search(codec.decode(codes[asked]), k + 1)
            own = found.ids == asked[:, None]
            own[~own.any(1), -1] = True  # rows stay equally long: a photo need not be its own nearest
            shape = len(asked), found.ids.shape[1] - 1
            for table, values in ((ids, found.ids), (similarities, found.similarities)):
                table[asked, : shape[1]] = values[~own].reshape(shape)
            tick(len(asked))
    return Shortlist(ids, similarities)


def _first_of_pair(ids: np.ndarray) -> np.ndarray:
    """bool [n, k]: entries of a shortlist of a collection with itself, each pair of photos once."""
    rows = np.broadcast_to(np.arange(len(ids))[:, None], ids.shape)
    keys = np.minimum(rows, ids) * len(ids) + np.maximum(rows, ids)
    keys[ids < 0] = -1
    mask = np.zeros(ids.size, bool)
    mask[np.unique(keys.reshape(-1), return_index=True)[1]] = True
    return mask.reshape(ids.shape) & (ids >= 0)


def _turned(
    first: np.ndarray, second: np.ndarray, count: int, width: int
) -> list[tuple[np.ndarray, Shortlist]]:
    """The pairs (second, first) as shortlists int64 [count, width], each with the places of its pairs."""
    order = np.argsort(second, kind="stable")
    starts = np.searchsorted(second[order], second[order])
    column = np.arange(len(order)) - starts  # among the pairs of one photo
    parts = []
    for low in range(0, int(column.max(initial=-1)) + 1, width):
        part = order[(column >= low) & (column < low + width)]
        ids = np.full((count, width), -1, np.int64)
        ids[second[part], column[(column >= low) & (column < low + width)] - low] = first[part]
        parts.append((part, Shortlist(ids, np.zeros(ids.shape, np.float32))))
    return parts
