"""What a chain works on: the descriptors of a data set, and what is known between two steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ames.database.store import Database
from ames.datasets.layout import DatasetFolder
from ames.descriptors.local import DescriptorFile
from ames.descriptors.vectors import Vectors
from ames.global_search.shortlist import Shortlist
from ames.reranking.scorer import ComputeConfig


@dataclass(frozen=True, eq=False)
class Files:
    """The descriptors of a data set, of queries and of gallery; None where the data set has none.

    folder: where shortlists lie. queries, gallery: local descriptors; a database holds codes of one model.
    query_vectors, gallery_vectors: global descriptors. other: local descriptors of another data set, which
    codebooks are trained on.
    """

    folder: DatasetFolder
    queries: DescriptorFile | None
    gallery: DescriptorFile | Database | None
    query_vectors: Vectors | None
    gallery_vectors: Vectors | None
    other: DescriptorFile | None = None


@dataclass(frozen=True, eq=False)
class State:
    """All queries of a data set between two steps.

    junk: of each view, the ids of each query that are moved behind before candidates are counted. A view is a
    protocol of the evaluation: "medium" and "hard" have other junk, so that a re-ranked list differs between
    them. queries, gallery: global descriptors as the next step reads them. rankings: of each view, ids best
    first, and the similarities of the first search; one shared object until candidates are re-ranked.
    stored: bytes of a database image, by what is stored. offline, online: seconds that the steps took before
    any query is asked, and for all queries. untimed: seconds of what is done elsewhere, or once for all data
    sets. timed: False where scores of an interrupted call were used, so that ``online`` is too short.
    """

    files: Files
    junk: Mapping[str, Sequence[np.ndarray]]
    queries: Vectors | None
    gallery: Vectors | None
    rankings: Mapping[str, Shortlist] = field(default_factory=dict)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    score_cache: Path | None = None
    stored: Mapping[str, float] = field(default_factory=dict)
    offline: float = 0.0
    online: float = 0.0
    untimed: float = 0.0
    timed: bool = True

    @classmethod
    def start(
        cls,
        files: Files,
        junk: Mapping[str, Sequence[np.ndarray]],
        compute: ComputeConfig | None = None,
        score_cache: Path | None = None,
    ) -> State:
        """Return the state before the first step. score_cache: folder of an interrupted call's scores."""
        return cls(
            files,
            junk,
            files.query_vectors,
            files.gallery_vectors,
            compute=compute or ComputeConfig(),
            score_cache=score_cache,
        )

    def found(self, shortlist: Shortlist) -> State:
        """Return the state with one shortlist for all views."""
        return replace(self, rankings=dict.fromkeys(self.junk, shortlist))

    @property
    def shortlist(self) -> Shortlist:
        """The one shortlist of all views, before candidates are re-ranked."""
        return next(iter(self.rankings.values()))

    def storing(self, what: str, size: float) -> State:
        """Return the state with ``size`` bytes per image stored, if no step before stores as much of it."""
        return replace(self, stored={**self.stored, what: max(size, self.stored.get(what, 0))})
