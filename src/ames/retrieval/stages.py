"""A cascade over one database: many candidates cheaply, few exactly, from the same codes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ames.backbones.base import ImageFeatures
from ames.chains.cascade import load_cascade
from ames.chains.rerank_step import load_stage
from ames.database.store import Database
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.reranking.reranker import Hits, Reranker


class Stage(NamedTuple):
    """A re-ranker, and how many candidates it takes at most."""

    reranker: Reranker
    most: int


class Stages:
    """Re-rankers in a row, each on the best candidates of the one before.

    AmesError where there is none.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        if not stages:
            raise AmesError("a cascade has at least one stage")
        self.stages = tuple(stages)

    @classmethod
    def open(
        cls,
        cascade: str | Path,
        database: Database,
        *,
        device: str = "cpu",
        precision: str = "fp32",
        lanes: int | None = None,
    ) -> Stages:
        """Return the stages of a cascade by its name (conf/cascades) or its file, for a database.

        AmesError where one of its models did not make the database's codes.
        """
        found = load_cascade(cascade)
        stages = []
        for number, step in enumerate(found.stages, 1):
            backbone = str(database.provenance.get("backbone") or found.descriptors)
            model, fusion = load_stage(step, width=None, backbone=backbone)
            try:
                database.check_model(model)
            except AmesError as error:
                raise AmesError(f"cascade {found.name}, stage {number} ({step.model}): {error}") from error
            own = copy.deepcopy(model)  # a cache shares it, and it moves to this device
            reranker = Reranker(
                own, fusion, device=device, precision=precision, desc_num=step.counts(), lanes=lanes
            )
            stages.append(Stage(reranker, step.num_rerank))
        return cls(stages)

    @property
    def first(self) -> int:
        """Candidates that the first stage takes: what a search is asked for."""
        return self.stages[0].most

    @property
    def last(self) -> int:
        """Candidates that the last stage takes: how many hits there are at most."""
        return self.stages[-1].most

    def rank(
        self,
        query: ImageFeatures | LocalFeatures,
        database: Database,
        ids: np.ndarray,
        similarities: np.ndarray,
        k: int,
    ) -> Hits:
        """Return the best ``k`` hits of the last stage. ``scored``: candidates of that stage.

        ids int64 [K], similarities float32 [K]: of the first search, best first.
        """
        places = np.arange(len(ids))
        hits = Hits([], 0)
        for reranker, count in self.stages:
            places = places[:count]
            hits = reranker.rank(query, database, similarities[places], ids=ids[places])
            by_id = {int(ids[place]): place for place in places}
            places = np.array([by_id[int(hit.id)] for hit in hits], np.int64)
        return Hits((replace(hit, id=int(hit.id)) for hit in hits[:k]), hits.scored)
