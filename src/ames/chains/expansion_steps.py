"""Steps on global descriptors: database augmentation, query expansion, SuperGlobal."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ames.chains.search_steps import search_all, vectors
from ames.chains.state import State
from ames.chains.step import COSINES, RANKING, SHORTLIST, VECTORS, Step
from ames.descriptors.vectors import Vectors
from ames.errors import AmesError
from ames.global_search.build import rerank
from ames.global_search.expansion import Expansion, augment, expand_queries
from ames.global_search.superglobal import Reranking


@dataclass(frozen=True, kw_only=True)
class Augment(Step):
    """Database augmentation: each gallery vector with its neighbours in the gallery, once, before queries."""

    name: ClassVar[str] = "dba"
    needs: ClassVar = ((VECTORS,),)
    drops: ClassVar = (SHORTLIST, COSINES, RANKING)
    neighbours: int = 10
    alpha: float = 3.0

    def __post_init__(self) -> None:
        Expansion(self.neighbours, self.alpha)

    def __call__(self, state: State) -> State:
        _, gallery = vectors(state)
        start = time.perf_counter()
        found = like(augment(gallery, Expansion(self.neighbours, self.alpha)), gallery)
        offline = state.offline + time.perf_counter() - start
        return replace(state, gallery=found, rankings={}, offline=offline)


@dataclass(frozen=True, kw_only=True)
class AlphaExpansion(Step):
    """Alpha query expansion: each query with its first neighbours, weighted by their similarity to the power
    of ``alpha``; then a second search. It is a whole method of its own, so that ``k`` is that of the search.
    """

    name: ClassVar[str] = "alpha-qe"
    needs: ClassVar = ((VECTORS,), (COSINES,))
    gives: ClassVar = (SHORTLIST, COSINES)
    neighbours: int = 10
    alpha: float = 3.0

    def __post_init__(self) -> None:
        Expansion(self.neighbours, self.alpha)

    def __call__(self, state: State) -> State:
        queries, gallery = vectors(state)
        found = state.shortlist
        other = next((method for method in ("superglobal", "asmk") if method in found.meta), None)
        if other is not None:
            raise AmesError(
                f"{self.name}: the stored shortlist has scores of {other}, no cosines: take another"
            )
        expanded = like(
            expand_queries(queries, gallery, found, Expansion(self.neighbours, self.alpha)), queries
        )
        again = search_all(expanded, gallery, found.ids.shape[1], device=state.compute.devices[0])
        return replace(state, queries=expanded).found(again)


@dataclass(frozen=True, kw_only=True)
class AverageExpansion(AlphaExpansion):
    """Average query expansion: alpha 0, all neighbours weigh as much as the query."""

    name: ClassVar[str] = "average-qe"
    alpha: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SuperGlobal(Step):
    """SuperGlobal's re-ranking of the first ``top`` entries by refined global descriptors."""

    name: ClassVar[str] = "superglobal"
    needs: ClassVar = ((VECTORS,), (SHORTLIST,))
    drops: ClassVar = (COSINES,)
    top: int = 400
    neighbours: int = 9
    beta: float = 0.15

    def __post_init__(self) -> None:
        self.settings()

    def settings(self) -> Reranking:
        """Return the settings as ``ames.global_search`` takes them."""
        return Reranking(top=self.top, neighbours=self.neighbours, beta=self.beta)

    def __call__(self, state: State) -> State:
        queries, gallery = vectors(state)
        device = state.compute.devices[0]
        found = rerank(state.shortlist, queries, gallery, self.settings(), device=device)
        return state.found(found).storing("global", 4.0 * gallery.width)  # read also behind ASMK


def like(array: np.ndarray, vectors: Vectors) -> Vectors:
    """Return changed vectors float32 [n, G], of the space and side of those that they were made from."""
    found = Vectors.of(array, vectors.sources[0])
    found.space, found.side = vectors.space, vectors.side
    return found
