"""The step that re-ranks candidates with a similarity model, and the scores behind it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, NamedTuple, TypeAlias

import numpy as np
import torch

from ames.chains.state import Files, State
from ames.chains.step import COSINES, LOCAL, RANKING, SHORTLIST, VECTORS, Step
from ames.database.store import Database, check_codes, slots_read
from ames.descriptors.local import DescriptorFile
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.global_search.shortlist import Shortlist
from ames.models.base import PairSimilarity, Similarity
from ames.models.code_chamfer import CodeChamfer
from ames.models.load import load
from ames.models.registry import MODELS, model_class
from ames.reranking.fusion import Fusion, check_fusions, junk_behind, rank
from ames.reranking.list_scorer import ListScorer
from ames.reranking.list_scores import ListScores, ListSource
from ames.reranking.model_inputs import provide_inputs
from ames.reranking.score_cache import ListCache, ScoreCache, scores_key
from ames.reranking.scorer import PairScorer, encode_side
from ames.reranking.shortlist_scores import score_shortlist

log = logging.getLogger(__name__)
_TRIED = 8  # descriptors of the pair that is scored before anything else
Sides: TypeAlias = tuple[DescriptorFile, DescriptorFile | Database]


class Head(NamedTuple):
    """The candidates of a view, its first ``num_rerank`` entries after junk was moved behind.

    ids int64 [Q, k], similarities float32 [Q, k]; scores: logits float32 [Q, k], or those of lists. ranking:
    the whole list, junk behind.
    """

    ids: np.ndarray
    similarities: np.ndarray
    scores: np.ndarray | ListScores
    ranking: Shortlist


@dataclass(frozen=True, kw_only=True)
class Rerank(Step):
    """Re-rank the first ``num_rerank`` candidates by the fused score (``ames.reranking.fusion.Fusion``).

    model: a name of ``ames models``, or a checkpoint. codes_of: with ``model: chamfer``, the model whose
    tokens are compared (``ames.models.code_chamfer``). num_rerank: a shorter list is re-ranked as a whole.
    query_desc_num, db_desc_num: descriptors of an image (None: those that the model is used with). lamb,
    temp: lambda and gamma (None: what a validation set chooses, else what the model brings). s_global is
    always the similarity of the shortlist, also after an earlier re-ranking, whose order is kept behind the
    candidates.
    """

    name: ClassVar[str] = "rerank"
    needs: ClassVar = ((LOCAL,), (SHORTLIST, RANKING))
    gives: ClassVar = (RANKING,)
    drops: ClassVar = (SHORTLIST, COSINES)
    model: str
    codes_of: str | None = None
    num_rerank: int = 100
    query_desc_num: int | None = None
    db_desc_num: int | None = None
    lamb: float | None = None
    temp: float | None = None

    def __post_init__(self) -> None:
        for key in ("num_rerank", "query_desc_num", "db_desc_num"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise AmesError(f"{key} {value} is below 1")
        if (self.lamb is None) != (self.temp is None):
            raise AmesError("lamb and temp belong together: give both, or none")
        if self.lamb is not None and self.temp is not None:
            check_fusions([self.lamb], [self.temp])

    @property
    def fusion(self) -> Fusion | None:
        """The fusion of the settings."""
        return None if self.lamb is None or self.temp is None else Fusion(self.lamb, self.temp)

    def check(self, files: Files) -> None:
        assert files.queries is not None, "the chain has checked it"
        assert files.gallery is not None, "the chain has checked it"
        model, _ = self.load(files)
        if not isinstance(files.gallery, DescriptorFile):
            files.gallery.check_model(model)
        if model.reads_vector and files.query_vectors is None:
            raise AmesError(f"{self.model} reads {VECTORS}: the data set has none")
        for file in (files.queries, files.gallery):
            check_codes(model, file)
            if model.local_dim is not None and not file.packed and file.width != model.local_dim:
                raise AmesError(
                    f"{file.path}: descriptors are {file.width}-d, but {self.model} takes {model.local_dim}-d"
                )
        _provide(model, files)
        _try(model, files)

    def reads(self, files: Files) -> list[Path]:
        return [Path(name) for name in (self.model, self.codes_of or "") if Path(name).is_file()]

    def load(self, files: Files) -> tuple[Similarity, Fusion]:
        """Return the model, and the fusion of the settings, else what the model brings."""
        assert files.queries is not None, "the chain has checked it"
        backbone = files.queries.provenance.get("backbone", files.folder.descriptors)
        return load_stage(self, width=files.queries.width, backbone=str(backbone))

    def counts(self) -> tuple[int, int]:
        """Return the descriptors that are used of a query and of a database image."""
        entry = MODELS.get(self.codes_of or self.model)
        own = (600, 600) if entry is None else (entry.query_desc_num, entry.db_desc_num)
        return self.query_desc_num or own[0], self.db_desc_num or own[1]

    def __call__(self, state: State) -> State:
        model, fusion = self.load(state.files)
        heads, cache = self.score(state, model)
        rankings = {view: ordered(head, fusion) for view, head in heads.items()}
        resumed = cache is not None and len(cache) > 0
        if cache is not None:
            cache.clear()
        return self.storing(replace(state, rankings=rankings, timed=state.timed and not resumed), model)

    def storing(self, state: State, model: Similarity) -> State:
        """Return the state with what an image's codes take."""
        gallery = state.files.gallery
        assert gallery is not None, "the chain has checked it"
        slots = gallery.slots - (model.extra_slots if isinstance(gallery, Database) else 0)
        count = min(self.counts()[1], model.most or slots, slots)
        codes = f"local {model.fingerprint()[:12]}"
        return state.storing(codes, float(model.slots_of(count, coded=True) * model.code_bytes))

    def score(self, state: State, model: Similarity) -> tuple[dict[str, Head], ScoreCache | ListCache | None]:
        """Return the candidates of each view with their scores, and the cache that keeps them meanwhile.

        A pair that several views need is scored once.
        """
        files = state.files
        assert files.queries is not None, "the chain has checked it"
        assert files.gallery is not None, "the chain has checked it"
        _provide(model, files)
        lists = {view: _behind(found, state.junk[view]) for view, found in state.rankings.items()}
        sides = (files.queries, files.gallery)
        if isinstance(model, PairSimilarity):
            return self._score_pairs(PairScorer(model, state.compute), sides, lists, state.score_cache)
        return self._score_lists(ListScorer(model, state.compute), sides, lists, state.score_cache)

    def _score_pairs(
        self, scorer: PairScorer, sides: Sides, lists: Mapping[str, Shortlist], folder: Path | None
    ) -> tuple[dict[str, Head], ScoreCache | None]:
        query, database = self.counts()
        cache = None
        if folder is not None:
            cache = ScoreCache(folder, scores_key(scorer, sides, (query, database)))
        k = self.num_rerank
        union = _union([x.ids[:, :k] for x in lists.values()])
        logits = score_shortlist(
            scorer, *sides, union, query_count=query, database_count=database, cache=cache
        )
        heads = {}
        for view, found in lists.items():
            ids = found.ids[:, :k]
            heads[view] = Head(ids, found.similarities[:, :k], looked_up(union.ids, logits, ids), found)
        return heads, cache

    def _score_lists(
        self, scorer: ListScorer, sides: Sides, lists: Mapping[str, Shortlist], folder: Path | None
    ) -> tuple[dict[str, Head], ListCache | None]:
        """Lists are scored when they are ordered: which ones there are depends on the fusion."""
        counts, k = self.counts(), self.num_rerank
        cache = None if folder is None else ListCache(folder, scores_key(scorer, sides, counts))
        scores = ListScores(scorer.window, source=ListSource(scorer, *sides, *counts), cache=cache)
        heads = {v: Head(x.ids[:, :k], x.similarities[:, :k], scores, x) for v, x in lists.items()}
        return heads, cache


def _provide(model: Similarity, files: Files) -> None:
    assert files.queries is not None, "the chain has checked it"
    assert files.gallery is not None, "the chain has checked it"
    names = {"query": files.queries.names or [], "gallery": files.gallery.names or []}
    provide_inputs(model, files.folder, files.queries, files.gallery, names)


@torch.inference_mode()
def _try(model: Similarity, files: Files) -> None:
    """Score two pairs of images by a few descriptors: a model that lacks positions, sizes, scales, weights or
    a library says so now. One of them is a query with itself, which has matches.
    """
    assert files.queries is not None, "the chain has checked it"
    assert files.gallery is not None, "the chain has checked it"
    if not len(files.queries) or not len(files.gallery):
        return
    query, own = (_first(model, files.queries, database=x) for x in (False, True))
    image = _first(model, files.gallery, database=True)
    if isinstance(model, PairSimilarity):
        for other in (own, image):
            model.score_encoded(model.encode(query), model.encode(other))


def _first(model: Similarity, file: DescriptorFile | Database, *, database: bool) -> LocalFeatures:
    """Tokens [1, n, d] of a few descriptors of a file's first image."""
    count = slots_read(model, file, min(_TRIED, file.slots))
    local = file.read([0], min(count, file.slots), locations=model.reads_locations)
    return encode_side(model.eval(), local.to(model.device), database=database)


def ordered(head: Head, fusion: Fusion) -> Shortlist:
    """Return the list with its candidates by fused score; ties keep their order, all else follows."""
    if isinstance(head.scores, ListScores):
        order = head.scores.order(np.arange(len(head.ids)), head.ids, head.similarities, fusion)
    else:
        order = rank(fusion.fuse(head.similarities, head.scores), head.ids >= 0)
    ids, similarities = head.ranking.ids.copy(), head.ranking.similarities.copy()
    k = head.ids.shape[1]
    ids[:, :k] = np.take_along_axis(head.ids, order, 1)
    similarities[:, :k] = np.take_along_axis(head.similarities, order, 1)
    return Shortlist(ids, similarities, distinct=False)


def load_stage(step: Rerank, *, width: int | None, backbone: str) -> tuple[Similarity, Fusion]:
    """Return the model of a step, and the fusion of its settings, else what the model brings.

    width: of the descriptors that a model without weights is made for (None: any). backbone: AmesError where
    the model was trained on another one's descriptors.
    """
    model, own = _loaded(step.model, step.codes_of, width, backbone)
    if step.fusion is None and own is None:
        log.info("%s: brings no lambda and gamma: 0.5 and 0.2 are taken where none are chosen", step.model)
    return model, step.fusion or own or Fusion(0.5, 0.2)


@lru_cache(maxsize=16)
def _loaded(
    name: str, codes_of: str | None, width: int | None, backbone: str
) -> tuple[Similarity, Fusion | None]:
    """Return a model and the fusion that it brings."""
    if codes_of is not None:
        if name != "chamfer":
            raise AmesError(f"codes_of {codes_of}: belongs to the model chamfer, not to {name}")
        base = load(codes_of, backbone=backbone)
        return CodeChamfer(base.model).eval(), Fusion(0.5, 0.2)
    entry = MODELS.get(name)
    if entry is not None and entry.weights is None:  # made by hand, for descriptors of any width
        fusion = Fusion.from_keys(entry.fusion, source=name) if entry.fusion else None
        if entry.backbone is not None and entry.backbone != backbone:
            raise AmesError(f"{name}: takes {entry.backbone} descriptors, not {backbone}")
        made = model_class(entry.kind)(**{**entry.arguments, "local_dim": width})
        return made.eval(), fusion
    found = load(name, backbone=backbone)
    return found.model, Fusion.from_checkpoint(found.about, source=found.name)


def _behind(found: Shortlist, junk: object) -> Shortlist:
    """Return the list with junk and empty entries moved to the end."""
    columns = junk_behind(found.ids, junk)  # type: ignore[arg-type]
    ids, similarities = (np.take_along_axis(x, columns, 1) for x in (found.ids, found.similarities))
    return Shortlist(ids, similarities, distinct=False)


def _union(tables: list[np.ndarray]) -> Shortlist:
    """Return the different ids of each query in several tables int64 [Q, k]; -1 fills up."""
    rows = [np.unique(np.concatenate(parts)) for parts in zip(*tables, strict=True)]
    rows = [row[row >= 0] for row in rows]
    ids = np.full((len(rows), max(map(len, rows), default=0)), -1, np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
    return Shortlist(ids, np.zeros(ids.shape, np.float32), distinct=False)


def looked_up(known: np.ndarray, values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return the values float32 [Q, k] of ``ids`` [Q, k], which a table of rising ids [Q, U] has; NaN of -1.

    known: int64 [Q, U], -1 at the end of a row. values: float32 [Q, U].
    """
    found = np.full(ids.shape, np.nan, np.float32)
    for row in range(len(ids)):
        there = ids[row] >= 0
        count = int((known[row] >= 0).sum())
        found[row, there] = values[row, np.searchsorted(known[row, :count], ids[row, there])]
    return found
