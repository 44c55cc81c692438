"""Find, on a validation set, the cascade of least time that loses no more than a given mAP."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ames.bench.suite import CascadeSpec
from ames.chains.cascade import Cascade
from ames.chains.chain import Chain, run
from ames.chains.rerank_step import Head, Rerank, looked_up, ordered
from ames.chains.state import State
from ames.errors import AmesError
from ames.evaluation.chains import ChainSet, Heads
from ames.evaluation.protocols import Protocol, evaluate
from ames.evaluation.sweep import choose_fusion
from ames.models.base import PairSimilarity, Similarity
from ames.reranking.fusion import Fusion
from ames.reranking.scorer import ComputeConfig

SHARES = (0.75, 0.5, 0.375, 0.25, 0.1875, 0.125, 0.09375, 0.0625, 0.046875, 0.03125)  # kept of the candidates

_TIMED = 20  # queries whose pairs are timed again

Maps = dict[Protocol, float]


class NoCascadeError(AmesError):
    """No cascade is faster within the loss that is allowed."""


@dataclass(frozen=True, eq=False)
class Stage:
    """A re-ranker on all candidates: its settings with a fusion, seconds per pair, and of each view the
    candidates and a table of their scores, by rising ids.
    """

    step: Rerank
    heads: dict[str, Head]
    tables: dict[str, tuple[np.ndarray, np.ndarray]]
    fusion: Fusion
    pair_seconds: float


@dataclass(frozen=True)
class Candidate:
    """Stages by number, the last the exact one, how many candidates each takes, and the predicted seconds."""

    stages: tuple[int, ...]
    counts: tuple[int, ...]
    seconds: float


def find_cascade(
    spec: CascadeSpec,
    chain: Chain,
    test: ChainSet,
    protocols: Sequence[Protocol],
    *,
    compute: ComputeConfig,
    score_cache: Path | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> Cascade:
    """Return the cascade of least predicted time whose mAP is within ``spec.loss`` points of the exact
    re-ranking's, under every protocol, on this validation set.

    chain: the method ``spec.of``, whose last step is the exact one. Every cheap re-ranker, and the exact one,
    scores all candidates once, with its fusion chosen alone; a cascade's order then follows from scores that
    are known, and its seconds from those per pair. Cascades of one, two and three stages are compared, from
    the fastest on, until one loses no more. NoCascadeError where the exact one is the fastest that does.
    """
    exact = chain.steps[-1]
    assert isinstance(exact, Rerank), "the suite has checked it"
    chain.check(test.files)
    state = test.start(protocols, compute, score_cache)
    for step in chain.steps[:-1]:
        state = run(step, state)
    steps = [*(replace(x, num_rerank=exact.num_rerank) for x in spec.cheap), exact]
    for step in spec.cheap:
        Chain(spec.name, (*chain.steps[:-1], step)).check(test.files)
    stages = [_stage(step, state, test, protocols) for step in steps]
    for stage in stages:
        say(f"{describe(stage.step)}: {1e6 * stage.pair_seconds:.0f} microseconds per pair")
    total = max(int((h.ids >= 0).sum(1).max()) for h in stages[-1].heads.values())
    whole = Candidate((len(stages) - 1,), (total,), total * stages[-1].pair_seconds)
    wanted = _maps(whole, stages, test, protocols)
    tried = 0
    for candidate in sorted(_candidates(stages, total), key=lambda x: x.seconds):
        if candidate.seconds >= whole.seconds:
            break
        tried += 1
        found = _maps(candidate, stages, test, protocols)
        if all(found[p] >= wanted[p] - spec.loss for p in protocols if not np.isnan(wanted[p])):
            return _cascade(spec, candidate, stages, test, _Finding(wanted, found, whole.seconds, tried))
    raise NoCascadeError(
        f"cascade {spec.name}: none of {tried} loses {spec.loss:g} points or less in less time than "
        f"{spec.of}: allow a larger loss, or give another cheap re-ranker"
    )


def describe(step: Rerank) -> str:
    """Return a re-ranking in a few words."""
    name = f"{step.model} on codes of {step.codes_of}" if step.codes_of else step.model
    query, database = step.counts()
    return f"{name}, {query} x {database}"


def _stage(step: Rerank, state: State, test: ChainSet, protocols: Sequence[Protocol]) -> Stage:
    model, fusion = step.load(test.files)
    if not isinstance(model, PairSimilarity):
        raise AmesError(f"{step.model} re-ranks lists: a cascade is found for models of pairs alone")
    start = time.perf_counter()
    heads, cache = step.score(state, model)
    rate = (time.perf_counter() - start) / _count(heads)
    if cache is not None and len(cache):  # of an interrupted call, or of an earlier choice
        rate = _measured(step, state, model)
    if step.fusion is None:
        width = next(iter(heads.values())).ids.shape[1]
        fusion, _ = choose_fusion(Heads(heads, test.ground_truth, protocols), width, unit=model.score_unit)
    step = replace(step, lamb=fusion.lamb, temp=fusion.gamma)
    return Stage(step, heads, {view: _rising(head) for view, head in heads.items()}, fusion, rate)


def _rising(head: Head) -> tuple[np.ndarray, np.ndarray]:
    """The candidates by rising ids, -1 at the end, and their scores, as ``looked_up`` takes them."""
    assert isinstance(head.scores, np.ndarray), "list-wise models are no stages"
    order = np.argsort(np.where(head.ids < 0, np.iinfo(np.int64).max, head.ids), axis=1, kind="stable")
    return np.take_along_axis(head.ids, order, 1), np.take_along_axis(head.scores, order, 1)


def _measured(step: Rerank, state: State, model: Similarity) -> float:
    """Return the seconds per pair of some queries, scored again."""
    rankings = {}
    for view, found in state.rankings.items():
        some = np.zeros(found.ids.shape, bool)
        some[:: max(1, len(some) // _TIMED)] = True
        rankings[view] = found.where(some)
    start = time.perf_counter()
    heads, _ = step.score(replace(state, rankings=rankings, score_cache=None), model)
    return (time.perf_counter() - start) / _count(heads)


def _count(heads: Mapping[str, Head]) -> int:
    """Return the number of different (query, image) pairs of all views, at least 1."""
    numbers = [(np.arange(len(h.ids))[:, None] << 40) + h.ids for h in heads.values()]
    pairs = [x[h.ids >= 0] for x, h in zip(numbers, heads.values(), strict=True)]
    return max(1, len(np.unique(np.concatenate(pairs))))


def _candidates(stages: Sequence[Stage], total: int) -> Iterator[Candidate]:
    """Cascades of one to three stages that end with the exact one."""
    last = len(stages) - 1
    kept = sorted({max(1, round(total * share)) for share in SHARES}, reverse=True)
    rates = [stage.pair_seconds for stage in stages]
    for n in kept:
        yield Candidate((last,), (n,), n * rates[last])
        for cheap in range(last):
            seconds = total * rates[cheap] + n * rates[last]
            yield Candidate((cheap, last), (total, n), seconds)
            for second in range(last):
                for m in kept:
                    if second != cheap and m > n and rates[second] > rates[cheap]:
                        more = total * rates[cheap] + m * rates[second] + n * rates[last]
                        yield Candidate((cheap, second, last), (total, m, n), more)


def _maps(
    candidate: Candidate, stages: Sequence[Stage], test: ChainSet, protocols: Sequence[Protocol]
) -> Maps:
    """Return the mAP of a cascade under each protocol, from scores of all candidates."""
    found = {}
    for protocol in protocols:
        view = protocol.name
        ranking = stages[candidate.stages[0]].heads[view].ranking
        for number, count in zip(candidate.stages, candidate.counts, strict=True):
            ids, similarities = ranking.ids[:, :count], ranking.similarities[:, :count]
            head = Head(ids, similarities, looked_up(*stages[number].tables[view], ids), ranking)
            ranking = ordered(head, stages[number].fusion)
        found[protocol] = evaluate(ranking.ids, test.ground_truth, protocol).map
    return found


@dataclass(frozen=True)
class _Finding:
    """mAP of the exact re-ranking and of the cascade, seconds per query of the exact one, cascades tried."""

    wanted: Maps
    found: Maps
    seconds: float
    tried: int


def _cascade(
    spec: CascadeSpec, candidate: Candidate, stages: Sequence[Stage], test: ChainSet, finding: _Finding
) -> Cascade:
    chosen = tuple(
        replace(stages[number].step, num_rerank=count)
        for number, count in zip(candidate.stages, candidate.counts, strict=True)
    )
    about = {
        "in_place_of": describe(stages[-1].step) + f", {stages[-1].step.num_rerank} candidates",
        "validation": test.files.folder.name,
        "loss_allowed": spec.loss,
        "map_exact": {p.name: round(x, 3) for p, x in finding.wanted.items()},
        "map_cascade": {p.name: round(x, 3) for p, x in finding.found.items()},
        "predicted_share_of_time": round(candidate.seconds / finding.seconds, 4),
        "cascades_tried": finding.tried,
    }
    return Cascade(spec.name, test.files.folder.descriptors, chosen, about)
