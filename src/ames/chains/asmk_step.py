"""The step that makes a shortlist from local descriptors: ASMK with an inverted file."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from ames.chains.state import Files, State
from ames.chains.step import LOCAL, OTHER, SHORTLIST, Step
from ames.descriptors.local import DescriptorFile
from ames.errors import AmesError
from ames.global_search.asmk import AsmkSearch, check_files, index_file, search_index
from ames.local_search.codebook import Codebook, train_codebook
from ames.local_search.kernel import Kernel


@dataclass(frozen=True, kw_only=True)
class Asmk(Step):
    """ASMK (``ames.local_search``). Its similarities are no cosines: expansion cannot follow.

    codebook: a file of ``ames codebook``; None: ``words`` words of all descriptors of the data set that
    choices are made on, by ``seed``. Its training is not timed; the inverted file is, as work before the
    first query. k: entries of each query (None: the whole gallery). Others: as in ``Kernel`` and
    ``AsmkSearch``.
    """

    name: ClassVar[str] = "asmk"
    gives: ClassVar = (SHORTLIST,)
    first: ClassVar = True
    codebook: str | None = None
    words: int = 4096
    seed: int = 0
    binary: bool = True
    query_assign: int = 5
    db_assign: int = 1
    alpha: float = 3.0
    threshold: float = 0.0
    idf: bool = False
    query_desc_num: int | None = None
    db_desc_num: int | None = None
    k: int | None = None

    def __post_init__(self) -> None:
        if self.words < 1:
            raise AmesError(f"words {self.words} is below 1")
        self.search()

    def search(self) -> AsmkSearch:
        """Return the settings as ``ames.global_search.asmk`` takes them."""
        names = ("binary", "alpha", "threshold", "query_assign", "db_assign", "idf")
        kernel = Kernel(**{name: getattr(self, name) for name in names})
        return AsmkSearch(
            kernel=kernel, query_count=self.query_desc_num, database_count=self.db_desc_num, k=self.k
        )

    def needed(self) -> Collection[tuple[str, ...]]:
        return [(LOCAL,)] if self.codebook is not None else [(LOCAL,), (OTHER,)]

    def check(self, files: Files) -> None:
        if not isinstance(files.gallery, DescriptorFile):
            raise AmesError("ASMK reads local descriptors: a database holds a model's codes")
        sides = [file for file in (files.queries, files.gallery) if file is not None]
        check_files(None if self.codebook is None else Codebook.load(self.codebook), *sides)

    def reads(self, files: Files) -> list[Path]:
        return [] if self.codebook is None else [Path(self.codebook)]

    def prepare(self, files: Files) -> None:
        self._words(files)

    def __call__(self, state: State) -> State:
        files, search = state.files, self.search()
        assert isinstance(files.queries, DescriptorFile), "the chain has checked it"
        assert isinstance(files.gallery, DescriptorFile), "the chain has checked it"
        before = time.perf_counter()
        words = self._words(files)
        start = time.perf_counter()
        index = index_file(files.gallery, words, search)
        offline = state.offline + time.perf_counter() - start
        untimed = state.untimed + start - before
        found = search_index(files.queries, index, search)
        made = replace(state, offline=offline, untimed=untimed).found(found)
        return made.storing("asmk", index.bytes_per_image)

    def _words(self, files: Files) -> Codebook:
        if self.codebook is not None:
            return Codebook.load(self.codebook)
        assert files.other is not None, "the chain has checked it"
        return _trained(files.other.path, self.words, self.seed)


@lru_cache(maxsize=4)
def _trained(path: Path, words: int, seed: int) -> Codebook:
    return train_codebook(DescriptorFile(path), words, seed=seed)
