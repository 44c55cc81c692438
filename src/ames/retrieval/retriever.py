"""Search a database: global search in its codes, then re-ranking by its local codes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ames.database.index import open_index
from ames.database.store import Database
from ames.errors import AmesError, naming
from ames.features import LocalFeatures
from ames.reranking.fusion import Fusion, load_with_fusion, rerank_by
from ames.reranking.scorer import ComputeConfig, PairScorer
from ames.search.shortlist import Shortlist


@dataclass(frozen=True)
class Retriever:
    """Searches a database by global codes, and re-ranks the best images by local codes.

    fusion: lambda and gamma of the final score. Only the global index is held in memory. AmesError if the
    scorer's model did not make the database.
    """

    database: Database
    scorer: PairScorer
    fusion: Fusion

    def __post_init__(self) -> None:
        self.database.check_model(self.scorer.model)
        object.__setattr__(self, "_index", open_index(self.database))

    @classmethod
    def open(
        cls,
        database: Path | str,
        model: Path | str,
        *,
        compute: ComputeConfig | None = None,
        fusion: Fusion | None = None,
    ) -> Retriever:
        """Open from paths; ``fusion`` None: the checkpoint's, AmesError if it has none."""
        loaded, own = load_with_fusion(model)
        fusion = fusion or own
        if fusion is None:
            raise AmesError(f"{model}: brings no lambda and gamma: give a fusion")
        return cls(Database(database), PairScorer(loaded, compute), fusion)

    def search(
        self, vectors: np.ndarray, queries: LocalFeatures, *, k: int = 10, num_rerank: int = 100
    ) -> Shortlist:
        """Return the best ``k`` images of each query, with fused scores; ``database.names`` are names by id.

        vectors: global, float32 [Q, G]. queries: local descriptors [Q, N, D], or the model's codes of them
        (uint8, ``ames extract --pack``). A single image, [G] and [N, D], gives one row. A query without
        keypoints (a zero vector) finds nothing. AmesError if numbers of queries or widths differ, or a query
        is not finite.
        """
        if not 1 <= k <= num_rerank:
            raise AmesError(f"k {k} is outside 1 ... {num_rerank}, the number that is re-ranked")
        vectors, queries = _batch(vectors, queries)
        found: Shortlist = self._index.search(vectors, num_rerank)  # type: ignore[attr-defined]
        rows, columns = np.nonzero(found.ids >= 0)
        images, places = np.unique(found.ids[rows, columns], return_inverse=True)
        logits = np.full(found.ids.shape, -np.inf, np.float32)
        with naming(lambda query: f"the local descriptors of query {query}"):
            encoded = self.scorer.queries(queries, coded=queries.descriptors.dtype == torch.uint8)
        if len(images):
            scores = self.scorer.score(encoded, self.database.read(images), rows, places, coded=True)
            if not np.isfinite(scores).all():
                raise AmesError(f"{self.database.path}: a score is not finite: the model's weights are not")
            logits[rows, columns] = scores
        return rerank_by(found, logits, self.fusion, k)


def _batch(vectors: np.ndarray, queries: LocalFeatures) -> tuple[np.ndarray, LocalFeatures]:
    """Return [Q, G] and [Q, N, D]; a single image becomes a batch of one."""
    vectors = np.asarray(vectors)
    vectors = vectors[None] if vectors.ndim == 1 else vectors
    queries = queries.map(lambda x: x[None]) if queries.valid.ndim == 1 else queries
    if vectors.ndim != 2 or queries.valid.ndim != 2:
        raise AmesError(
            f"global vectors are {list(vectors.shape)}, local descriptors {list(queries.descriptors.shape)}; "
            "expected [Q, G] and [Q, N, D]"
        )
    if len(vectors) != len(queries.valid):
        raise AmesError(
            f"{len(vectors)} global vectors, but local descriptors of {len(queries.valid)} images: give both "
            "of the same queries"
        )
    return vectors, queries
