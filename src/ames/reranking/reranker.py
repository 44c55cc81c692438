"""Re-rank candidates of one query: local features or codes from anywhere in, scores or hits out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ames.backbones.base import ImageFeatures
from ames.errors import AmesError, naming
from ames.features import LocalFeatures
from ames.io.console import check_device
from ames.models.base import PairSimilarity, Similarity
from ames.models.load import load
from ames.reranking.code_stores import CodeStore
from ames.reranking.fusion import Fusion
from ames.reranking.list_scorer import ListScorer
from ames.reranking.scorer import ComputeConfig, PairScorer
from ames.reranking.windows import Windows, rank_by_windows

Features: TypeAlias = ImageFeatures | LocalFeatures | np.ndarray | Tensor
_FIRST_PIECE = 8  # candidates of a piece where there is a budget of time
_ALONE = Fusion(lamb=0.0, gamma=1.0)  # without similarities, windows are sorted by the model's score


@dataclass(frozen=True)
class Hit:
    """An image that was found.

    id: its id, or its position among the candidates where no ids were given. score: the fused score, or the
    local one where no similarities were given. local: the model's score of the pair, a logit; NaN where a
    list-wise model read the list in several windows, whose scores cannot be compared, and where a budget of
    time ended before the candidate was scored. ``global_``: the global similarity, None where none was given.
    name: of the image, where it is known.
    """

    id: Any
    score: float
    local: float
    global_: float | None = None
    name: str | None = None


class Hits(list[Hit]):
    """Hits, best first. ``scored``: how many candidates were scored, fewer than all if a budget of time ended
    first.
    """

    def __init__(self, hits: Iterable[Hit], scored: int) -> None:
        super().__init__(hits)
        self.scored = scored


class Reranker:
    """Scores and ranks candidate images of a query by their local descriptors.

    model: a name of ``list_models``, a checkpoint's path, or a model. fusion: lambda and gamma of the final
    score (None: what the model brings). device: torch's name. precision, lanes: as in ``ComputeConfig``.
    desc_num: the strongest descriptors that are used of a query and of a candidate (None: those that a model
    of the table is used with, ``ames models``; of other models all). windows: of a list-wise model whose list
    is shorter than the candidates.

    A query is one image: ``Extractor``'s features, ``LocalFeatures`` [N, D], or an array or tensor [N, D].
    Candidates are K images: a batch of these ([K, M, D]), or a list of single ones with unequal numbers of
    descriptors. An array of uint8 holds packed codes of a binary model. Everything else raises AmesError, as
    do no candidates at all, features of another backbone or width, and values that are not finite.
    """

    def __init__(
        self,
        model: str | Path | Similarity,
        fusion: Fusion | None = None,
        *,
        device: str = "cpu",
        precision: str = "fp32",
        desc_num: tuple[int, int] | None = None,
        windows: Windows | None = None,
        lanes: int | None = None,
    ) -> None:
        if fusion is not None and not isinstance(fusion, Fusion):
            raise AmesError(f"fusion is a {type(fusion).__name__}: give ames.Fusion(lamb, gamma)")
        check_device(device, option="device")
        self.backbone: str | None = None
        self.name, self.fusion, self.desc_num = type(model).__name__, fusion, _counts(desc_num)
        if not isinstance(model, Similarity):
            found = load(model)
            model, self.name = found.model, found.name
            self.backbone = found.about.get("backbone")
            self.fusion = fusion or Fusion.from_checkpoint(found.about, source=found.name)
            if found.entry is not None and desc_num is None:
                self.desc_num = found.entry.query_desc_num, found.entry.db_desc_num
        compute = ComputeConfig(devices=(device,), precision=precision, lanes=lanes)
        self.model = model
        self.scorer: PairScorer | ListScorer
        if isinstance(model, PairSimilarity):
            self.scorer = PairScorer(model, compute)
        else:
            self.scorer = ListScorer(model, compute)
        self._windows = windows or Windows()

    def score(self, query: Features, candidates: Features | Sequence[Features]) -> np.ndarray:
        """Return the model's scores float32 [K] of a query and its candidates: logits, higher is more alike.

        A list-wise model reads the candidates as one list, in the order given; AmesError where they are more
        than it reads (``rank`` passes them in windows).
        """
        one, many = self._sides(query, candidates)
        places = np.arange(len(many.valid))
        if isinstance(self.scorer, ListScorer):
            return self._scored_lists(one, many, places[None])[0]
        return self._scored_pairs(one, many, places, None)

    def rank(
        self,
        query: Features,
        candidates: Features | Sequence[Features] | CodeStore,
        similarities: Sequence[float] | np.ndarray | None = None,
        top_k: int | None = None,
        *,
        ids: Sequence[Any] | np.ndarray | None = None,
        budget_ms: float | None = None,
    ) -> Hits:
        """Return the best ``top_k`` candidates (None: all), best first; ties keep the order given.

        similarities: [K], of a first search with global descriptors; the final score is then the fused one,
        lambda * similarity + (1 - lambda) * sigmoid(gamma * logit). ids: of the candidates, which their hits
        carry; candidates may then be a ``CodeStore``, from which these ids are read.

        budget_ms: no piece of work is begun that would end later. Candidates are scored in the order of the
        first search (of falling similarity, else as given), the first piece in any case. Those that were not
        scored follow all that were, in that order, with NaN for ``score`` and ``local``: as if fewer had been
        re-ranked. Only pair-wise models take a budget.
        """
        start = time.perf_counter()
        if isinstance(candidates, CodeStore) and not isinstance(candidates, LocalFeatures):
            if ids is None:
                raise AmesError("candidates are a store: give the ids to read from it, ids=[...]")
            candidates = candidates.read(ids)
        _check_limits(top_k, budget_ms)
        one, many = self._sides(query, candidates)
        count = len(many.valid)
        if ids is not None and len(ids) != count:
            raise AmesError(f"{len(ids)} ids for {count} candidates")
        first = None if similarities is None else _similarities(similarities, count)
        if first is not None and self.fusion is None:
            raise AmesError(f"{self.name} brings no lambda and gamma: give fusion=Fusion(lamb, gamma)")
        if isinstance(self.scorer, ListScorer):
            if budget_ms is not None:
                raise AmesError(f"{self.name} is list-wise: it takes no budget_ms")
            if count > self.scorer.window:
                return self._windowed(one, many, first, ids, top_k)
            local = self.score(one, many)
        else:
            places = np.arange(count) if first is None else np.argsort(-first, kind="stable")
            deadline = None if budget_ms is None else start + budget_ms / 1000
            local = self._scored_pairs(one, many, places, deadline)
        scores = local if first is None else self.fusion.fuse(first, local)  # type: ignore[union-attr]
        behind = np.full(count, np.inf) if first is None else -first.astype(np.float64)
        unscored = np.isnan(local)
        order = np.lexsort((np.where(unscored, behind, -scores), unscored))[:top_k]
        return Hits([_hit(i, scores[i], local[i], first, ids) for i in order], int(count - unscored.sum()))

    def _scored_pairs(
        self, one: LocalFeatures, many: LocalFeatures, places: np.ndarray, deadline: float | None
    ) -> np.ndarray:
        """Logits float32 [K] of all candidates; with a deadline of the first of ``places``, NaN elsewhere."""
        assert isinstance(self.scorer, PairScorer)
        logits = np.full(len(places), np.nan, np.float32)
        with naming(lambda _: "the descriptors of the query"):
            encoded = self.scorer.queries(one.map(lambda x: x[None]))
        done, size, seconds = 0, _FIRST_PIECE if deadline else max(len(places), 1), 0.0
        while done < len(places) and not (deadline and done and time.perf_counter() + seconds > deadline):
            piece = np.sort(places[done : done + size])
            start = time.perf_counter()
            with naming(lambda image, piece=piece: f"the descriptors of candidate {piece[image]}"):  # type: ignore[misc]
                rows = np.arange(len(piece))
                found = self.scorer.score(encoded, many[torch.from_numpy(piece)], np.zeros_like(rows), rows)
            logits[piece] = self._finite(found)
            done, seconds = done + size, time.perf_counter() - start
        return logits

    def _windowed(
        self,
        one: LocalFeatures,
        many: LocalFeatures,
        first: np.ndarray | None,
        ids: Any,
        top_k: int | None,
    ) -> Hits:
        """The order that sliding windows leave; scores are places from the end, as no others compare."""
        count = len(many.valid)
        fusion = _ALONE if first is None or self.fusion is None else self.fusion
        similarities = np.zeros(count, np.float32) if first is None else first
        (order,) = rank_by_windows(
            lambda columns: self._scored_lists(one, many, columns),
            similarities[None],
            fusion,
            window=self.scorer.window,  # type: ignore[union-attr]
            windows=self._windows,
        )
        worth = 1 - np.arange(count) / count
        hits = [_hit(i, worth[place], np.nan, first, ids) for place, i in enumerate(order[:top_k])]
        return Hits(hits, count)

    def _scored_lists(self, one: LocalFeatures, many: LocalFeatures, columns: np.ndarray) -> np.ndarray:
        """Logits [1, K] of one list of candidates."""
        assert isinstance(self.scorer, ListScorer)
        listed = many[torch.from_numpy(columns).to(many.valid.device)]

        def describe(image: int) -> str:
            what = f"candidate {columns[0][image - 1]}" if image else "the query"
            return f"the descriptors of {what}"

        with naming(describe):
            return self._finite(self.scorer.score(one.map(lambda x: x[None]), listed))

    def _finite(self, scores: np.ndarray) -> np.ndarray:
        if not np.isfinite(scores).all():
            raise AmesError(f"{self.name}: a score is not finite: the model's weights are not")
        return scores

    def _sides(
        self, query: Features, candidates: Features | Sequence[Features]
    ) -> tuple[LocalFeatures, LocalFeatures]:
        """The query [N, D] and its candidates [K, M, D]."""
        one = self._local(query, "the query")
        if one.valid.ndim == 2 and len(one.valid) == 1:
            one = one.map(lambda x: x[0])
        if one.valid.ndim != 1:
            raise AmesError(f"the query is {list(one.descriptors.shape)}: give one image, [N, D]")
        if isinstance(candidates, (ImageFeatures, LocalFeatures, np.ndarray, Tensor)):
            many = self._local(candidates, "candidates")
            if many.valid.ndim == 1:
                many = many.map(lambda x: x[None])
        else:
            if not isinstance(candidates, Iterable):
                raise AmesError(
                    f"candidates are a {type(candidates).__name__}: give features, or a list of them"
                )
            singles = [self._local(x, f"candidate {i}") for i, x in enumerate(candidates)]
            if not singles:
                raise AmesError("no candidates: give at least one")
            if any(x.valid.ndim != 1 for x in singles):
                raise AmesError("a list of candidates holds one image each, [M, D]")
            for i, single in enumerate(singles):
                if (single.width, single.coded) != (singles[0].width, singles[0].coded):
                    raise AmesError(f"candidate {i} is {single.width} wide, candidate 0 {singles[0].width}")
                _check_like(single, singles[0], f"candidate {i}")
            many = LocalFeatures.stack([_plain(x) for x in singles])
        if many.valid.ndim != 2:
            raise AmesError(f"candidates are {list(many.descriptors.shape)}; expected [K, M, D]")
        if not len(many.valid):
            raise AmesError("no candidates: give at least one")
        if self.desc_num is not None:
            one, many = (
                x.trim(self.model.slots_of(count, coded=x.coded))
                for x, count in zip((one, many), self.desc_num, strict=True)
            )
        return one, many

    def _local(self, given: Features, what: str) -> LocalFeatures:
        if isinstance(given, ImageFeatures):
            if given.backbone and self.backbone and given.backbone != self.backbone:
                raise AmesError(f"{what}: made by {given.backbone}, but {self.name} takes {self.backbone}")
            given = with_vector(given) if self.model.reads_vector else given.local
        if isinstance(given, LocalFeatures):
            codes = given.descriptors.dtype == torch.uint8
            return given if given.coded or not codes else replace(given, coded=True)
        if isinstance(given, np.ndarray):
            given = torch.from_numpy(np.ascontiguousarray(given))
        if not isinstance(given, Tensor):
            raise AmesError(f"{what}: a {type(given).__name__}; give features, or an array [N, D]")
        codes = given.dtype == torch.uint8
        if given.ndim < 2 or not (codes or given.is_floating_point()):
            raise AmesError(f"{what}: {given.dtype} {list(given.shape)}; expected float or uint8 [..., N, D]")
        return LocalFeatures.from_descriptors(given, coded=codes)


def _check_limits(top_k: Any, budget_ms: Any) -> None:
    if top_k is not None and (not isinstance(top_k, Integral) or top_k < 1):
        raise AmesError(f"top_k {top_k!r} is not a whole number of 1 or more")
    if budget_ms is not None and not isinstance(budget_ms, Real):
        raise AmesError(f"budget_ms {budget_ms!r} is not a number of milliseconds")


def _counts(desc_num: tuple[int, int] | None) -> tuple[int, int] | None:
    if desc_num is None:
        return None
    try:
        query, candidate = desc_num
    except (TypeError, ValueError):
        query = candidate = None  # type: ignore[assignment]
    if not (isinstance(query, int) and isinstance(candidate, int)) or min(query, candidate) < 1:
        raise AmesError(f"desc_num {desc_num!r}: give two whole numbers, of a query and of a candidate")
    return query, candidate


def with_vector(image: ImageFeatures) -> LocalFeatures:
    """The local features of an image, or of several, with what a model reads of the global one."""
    if image.vector is None:
        return image.local
    vector = torch.from_numpy(np.asarray(image.vector, np.float32)).to(image.local.descriptors.device)
    return replace(image.local, vector=vector)


def _check_like(local: LocalFeatures, first: LocalFeatures, what: str) -> None:
    """AmesError where one candidate has what another lacks: a batch would go without it."""
    for name in ("vector", "positions", "scale", "image_size"):
        one, other = getattr(local, name), getattr(first, name)
        if (one is None) != (other is None):
            raise AmesError(f"{what} and candidate 0: one of them has {name}, the other none")
    if local.vector is not None and first.vector is not None:
        widths = local.vector.shape[-1], first.vector.shape[-1]
        if widths[0] != widths[1]:
            raise AmesError(f"{what} has a global descriptor of width {widths[0]}, candidate 0 {widths[1]}")


def _plain(local: LocalFeatures) -> LocalFeatures:
    """On the CPU, so that images of several sources go into one batch."""
    return local.to("cpu")


def _similarities(given: Sequence[float] | np.ndarray, count: int) -> np.ndarray:
    try:
        values = np.asarray(given, np.float32)
    except (TypeError, ValueError) as error:
        raise AmesError("similarities are no numbers: give one float per candidate") from error
    if values.shape != (count,):
        raise AmesError(f"similarities are {list(values.shape)} for {count} candidates")
    if not np.isfinite(values).all():
        raise AmesError("similarities hold values that are not finite")
    return values


def _hit(place: int, score: float, local: float, first: np.ndarray | None, ids: Any) -> Hit:
    similarity = None if first is None else float(first[place])
    return Hit(int(place) if ids is None else ids[place], float(score), float(local), similarity)
