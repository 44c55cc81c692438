"""Steps that make a shortlist: the exact search, and a file of an earlier one."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from ames.chains.state import Files, State
from ames.chains.step import COSINES, SHORTLIST, VECTORS, Step
from ames.descriptors.vectors import Vectors
from ames.errors import AmesError
from ames.global_search.exact import collected, count_entries, search_blocks
from ames.global_search.shortlist import Shortlist
from ames.global_search.superglobal import say_earlier_formula

log = logging.getLogger(__name__)
_ENTRY_BYTES = 12  # of an id and a similarity
_MOST_BYTES = 2 << 30
_ENTRIES = 1600


@dataclass(frozen=True, kw_only=True)
class Search(Step):
    """The exact search by the cosine of global descriptors.

    k: entries of each query. None: the whole gallery; where that takes more than 2 GB, 1,600 (the published
    shortlists of GLDv2), and the log says so. Positives that are not in the shortlist are not found.
    """

    name: ClassVar[str] = "search"
    needs: ClassVar = ((VECTORS,),)
    gives: ClassVar = (SHORTLIST, COSINES)
    first: ClassVar = True
    k: int | None = None

    def __post_init__(self) -> None:
        if self.k is not None and self.k < 1:
            raise AmesError(f"k {self.k} is below 1")

    def __call__(self, state: State) -> State:
        queries, gallery = vectors(state)
        k = self.k
        if k is None and len(queries) * len(gallery) * _ENTRY_BYTES > _MOST_BYTES:
            k = min(_ENTRIES, len(gallery))
            log.warning(
                "search: the first %d of %d gallery images are listed; k says how many", k, len(gallery)
            )
        found = search_all(queries, gallery, k, device=state.compute.devices[0])
        return state.found(found).storing("global", 4.0 * gallery.width)


@dataclass(frozen=True, kw_only=True)
class Stored(Step):
    """A shortlist of the data set's folder, such as a published ``nn_superglobal.pkl``. file: its name there,
    or its path (None: the folder's own). It is not timed: the search behind it took place elsewhere.
    """

    name: ClassVar[str] = "shortlist"
    gives: ClassVar = (SHORTLIST, COSINES)
    first: ClassVar = True
    file: str | None = None

    def __call__(self, state: State) -> State:
        vectors = state.files.gallery_vectors
        size = None if vectors is None else 4.0 * vectors.width
        start = time.perf_counter()
        found = state.found(self._load(state.files))
        found = replace(found, untimed=state.untimed + time.perf_counter() - start)
        return found if size is None else found.storing("global", size)

    def check(self, files: Files) -> None:
        files.folder.find_shortlist(self.file)

    def reads(self, files: Files) -> list[Path]:
        return [files.folder.find_shortlist(self.file)]

    def _load(self, files: Files) -> Shortlist:
        path = files.folder.find_shortlist(self.file)
        gallery = files.gallery_vectors if files.gallery is None else files.gallery
        found = Shortlist.load(path, gallery_size=None if gallery is None else len(gallery))
        asked = files.query_vectors if files.queries is None else files.queries
        if asked is not None and len(found.ids) != len(asked):
            raise AmesError(f"{path}: {len(found.ids)} queries, but the data set has {len(asked)}")
        say_earlier_formula(path, found.meta)
        return found


def vectors(state: State) -> tuple[Vectors, Vectors]:
    """Return the global descriptors of queries and gallery, which the chain's check has found to be there."""
    assert state.queries is not None, "the chain was not checked"
    assert state.gallery is not None, "the chain was not checked"
    return state.queries, state.gallery


def search_all(queries: Vectors, gallery: Vectors, k: int | None, *, device: str) -> Shortlist:
    """Return the ``k`` nearest of each query (None: the whole gallery)."""
    queries.check_searchable(gallery)
    return collected(search_blocks(queries, gallery, k, device=device), count_entries(gallery, k))
