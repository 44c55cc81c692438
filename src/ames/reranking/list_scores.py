"""Scores of lists: each list, in its order, is scored once, and re-ranked as often as one likes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ames.database.store import Database, check_codes, slots_read
from ames.descriptors.local import DescriptorFile
from ames.errors import AmesError, naming
from ames.reranking.fusion import Fusion
from ames.reranking.list_scorer import ListScorer
from ames.reranking.score_cache import ListCache, ListKey
from ames.reranking.shortlist_scores import describe_image
from ames.reranking.windows import Windows, rank_by_windows


@dataclass(frozen=True, eq=False)
class ListSource:
    """What lists are scored with: the descriptors of queries and gallery, and how many are used of an image
    (None: all there are). AmesError where a packed file is not of the scorer's model.
    """

    scorer: ListScorer
    queries: DescriptorFile
    gallery: DescriptorFile | Database
    query_count: int | None = None
    database_count: int | None = None

    def __post_init__(self) -> None:
        for file in (self.queries, self.gallery):
            check_codes(self.scorer.model, file)

    def score(self, lists: Sequence[ListKey]) -> np.ndarray:
        """Return logits float32 [L, K] of lists of one length."""
        table = np.array(lists, np.int64)
        rows, ids = table[:, 0], table[:, 1:]
        count = self.database_count
        if count is not None:
            count = slots_read(self.scorer.model, self.gallery, count)
        queries = self.queries.read(rows, self.query_count)
        images = self.gallery.read(ids.reshape(-1), count).reshape(*ids.shape)

        def describe(image: int) -> str:
            if image < len(rows):
                return describe_image(self.queries, int(rows[image]))
            return describe_image(self.gallery, int(ids.reshape(-1)[image - len(rows)]))

        with naming(describe):
            logits = self.scorer.score(queries, images)
        if not np.isfinite(logits).all():
            raise AmesError(f"{self.gallery.path}: a score is not finite: the model's weights are not")
        return logits


@dataclass(eq=False)
class ListScores:
    """Logits of the lists that re-ranking asks for.

    A list-wise model's score belongs to a list: protocols, which move other images to the end, and other
    lengths make other lists. So scores are kept under the query and the ids in their order. Lists longer than
    ``window`` are passed in ``windows``, whose order depends on the fusion.

    source: scores what is missing (None: nothing can, as in a finished run). cache: where scores are kept in
    case the call is interrupted.
    """

    window: int
    windows: Windows = field(default_factory=Windows)
    source: ListSource | None = None
    cache: ListCache | None = None
    known: dict[ListKey, np.ndarray] = field(default_factory=dict)

    def order(
        self, rows: np.ndarray, ids: np.ndarray, similarities: np.ndarray, fusion: Fusion
    ) -> np.ndarray:
        """Return the order int64 [R, k] of the lists of some queries by their fused scores, best first.

        rows: int [R], the queries. ids: int64 [R, k], -1 (no entry) at the end. similarities: float32 [R, k].
        """
        order = np.tile(np.arange(ids.shape[1]), (len(ids), 1))
        counts = (ids >= 0).sum(1)
        for count in np.unique(counts[counts > 0]):
            same = np.flatnonzero(counts == count)
            head = same[:, None], np.arange(count)

            def score(columns: np.ndarray, same: np.ndarray = same) -> np.ndarray:
                return self._logits(rows[same], np.take_along_axis(ids[same], columns, 1))

            order[head] = rank_by_windows(
                score, similarities[head], fusion, window=self.window, windows=self.windows
            )
        return order

    def _logits(self, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
        lists = [(int(row), *map(int, images)) for row, images in zip(rows, ids, strict=True)]
        missing = [one for one in dict.fromkeys(lists) if one not in self.known]
        if missing and self.cache is not None:
            self.known |= self.cache.get(missing)
            missing = [one for one in missing if one not in self.known]
        if missing and self.source is None:
            raise AmesError(f"query {missing[0][0]}: a list of {len(missing[0]) - 1} was not scored")
        step = 1 if self.source is None else self.source.scorer.compute.batch_size or 1
        for start in range(0, len(missing), step):
            batch = missing[start : start + step]
            assert self.source is not None
            logits = self.source.score(batch)
            self.known |= dict(zip(batch, logits, strict=True))
            if self.cache is not None:
                self.cache.append(batch, logits)
        return np.stack([self.known[one] for one in lists])

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the lists and their logits for a file: int64 and float32 [L, 1 + window], the query's logit
        NaN; short lists end with -1.
        """
        lists = np.full((len(self.known), self.window + 1), -1, np.int64)
        logits = np.full(lists.shape, np.nan, np.float32)
        for row, (one, scores) in enumerate(self.known.items()):
            lists[row, : len(one)], logits[row, 1 : len(one)] = one, scores
        return {"lists": lists, "list_logits": logits}

    @classmethod
    def from_arrays(cls, lists: np.ndarray, logits: np.ndarray, windows: Windows) -> ListScores:
        """Return what ``to_arrays`` wrote, without a source."""
        known = {}
        for one, scores in zip(lists, logits, strict=True):
            there = one >= 0
            known[tuple(int(x) for x in one[there])] = scores[there][1:]
        return cls(lists.shape[1] - 1, windows, known=known)
