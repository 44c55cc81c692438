"""Cascades that are found on a validation set, against the chains that they stand for."""

import time
from dataclasses import replace

import numpy as np
import pytest

from ames.bench import find_cascade as module
from ames.bench.find_cascade import find_cascade
from ames.bench.suite import CascadeSpec
from ames.chains.cascade import load_cascade
from ames.chains.chain import Chain, parse_chain
from ames.chains.rerank_step import Rerank
from ames.errors import AmesError
from ames.evaluation.chains import evaluate_chain, open_chain_set
from ames.evaluation.protocols import REVISITED
from ames.models.base import Similarity
from ames.reranking.scorer import ComputeConfig
from helpers import chain_sets

EXACT = {"num_rerank": 100, "query_desc_num": 5, "db_desc_num": 5, "lamb": 0.1, "temp": 2.0}


@pytest.fixture(scope="module")
def test(tmp_path_factory):
    return open_chain_set(chain_sets.made(tmp_path_factory.mktemp("sets") / "set", queries=8))


def spec(*cheap, loss=0.1):
    return CascadeSpec(name="fast", of="exact", cheap=tuple(Rerank(**x) for x in cheap), loss=loss)


CHEAP = {"model": "chamfer", "query_desc_num": 3, "db_desc_num": 3}
CHAIN = parse_chain("exact", ["search", {"chamfer": EXACT}])


def slowly(monkeypatch, rates):
    """Seconds per pair by the numbers of descriptors, in place of measured ones."""
    stage = module._stage

    def timed(step, *rest):
        found = stage(step, *rest)
        return replace(found, pair_seconds=rates[step.counts()])

    monkeypatch.setattr(module, "_stage", timed)


def found_by(test, *cheap, loss=0.1):
    return find_cascade(spec(*cheap, loss=loss), CHAIN, test, REVISITED, compute=ComputeConfig())


def maps(test, *steps):
    result = evaluate_chain(Chain("c", (CHAIN.steps[0], *steps)), test, REVISITED)
    return {p.name: x.map for p, x in result.results.items()}


@pytest.mark.parametrize("loss", [0.0, 2.0, 10.0])
def test_it_is_the_fastest_that_loses_no_more(test, monkeypatch, loss):
    slowly(monkeypatch, {(5, 5): 1e-3, (3, 3): 1e-5, (2, 2): 1e-6})
    cheap = [CHEAP, {**CHEAP, "query_desc_num": 2, "db_desc_num": 2}]
    cascade = found_by(test, *cheap, loss=loss)
    exact = maps(test, CHAIN.steps[-1])
    own = maps(test, *cascade.stages)
    assert all(own[name] >= exact[name] - loss for name in exact)
    assert own == pytest.approx(cascade.found["map_cascade"], abs=1e-3)  # what it said is what it does
    assert exact == pytest.approx(cascade.found["map_exact"], abs=1e-3)
    # By hand: no cascade of one or two stages that takes less time loses as little.
    seconds = cascade.found["predicted_share_of_time"] * 100 * 1e-3
    counts = sorted({max(1, round(100 * share)) for share in module.SHARES})
    first = {s.counts(): s for s in cascade.stages}
    for count in counts:
        exact_step = Rerank(model="chamfer", **{**EXACT, "num_rerank": count})
        tried = [(count * 1e-3, (exact_step,))]
        if (3, 3) in first:
            tried.append((100 * 1e-5 + count * 1e-3, (first[3, 3], exact_step)))
        for taken, steps in tried:
            if taken < seconds - 1e-9 and steps[0].num_rerank >= count:
                shorter = maps(test, *steps)
                assert any(shorter[name] < exact[name] - loss for name in exact)


def test_none_is_worth_it(test, monkeypatch):
    slowly(monkeypatch, {(5, 5): 1e-5, (3, 3): 1e-3})
    monkeypatch.setattr(module, "SHARES", (0.5,))
    monkeypatch.setattr(module, "_maps", lambda c, *rest: {p: float(c.counts == (100,)) for p in REVISITED})
    with pytest.raises(AmesError, match="none of 1 loses 0 points or less in less time than exact"):
        found_by(test, CHEAP, loss=0.0)


def test_known_scores_are_not_timed(test, tmp_path, monkeypatch):
    """With scores of an earlier call, the time of a pair is measured on pairs that are scored again."""
    first = find_cascade(
        spec(CHEAP, loss=50), CHAIN, test, REVISITED, compute=ComputeConfig(), score_cache=tmp_path
    )
    assert list(tmp_path.iterdir())
    measured = []
    again = module._measured

    def noted(*given):
        measured.append(again(*given))
        return measured[-1]

    monkeypatch.setattr(module, "_measured", noted)
    second = find_cascade(
        spec(CHEAP, loss=50), CHAIN, test, REVISITED, compute=ComputeConfig(), score_cache=tmp_path
    )
    assert len(measured) == 2
    assert all(seconds > 0 for seconds in measured)
    assert second.found["map_exact"] == first.found["map_exact"]


def test_it_is_written_and_read(test, tmp_path, monkeypatch):
    slowly(monkeypatch, {(5, 5): 1e-3, (3, 3): 1e-6})
    cascade = found_by(test, CHEAP, loss=5)
    path = cascade.save(tmp_path / "fast.yaml")
    assert load_cascade(path) == cascade
    assert cascade.descriptors == "rootsift"
    assert np.isfinite(list(cascade.found["map_cascade"].values())).all()
    assert time.time() - path.stat().st_mtime < 60


def test_models_of_lists_are_no_stages(test, monkeypatch):
    monkeypatch.setattr(Rerank, "load", lambda self, files: (Similarity(), None))
    monkeypatch.setattr(Chain, "check", lambda self, files: None)
    with pytest.raises(AmesError, match="chamfer re-ranks lists: a cascade is found for models of pairs"):
        found_by(test, CHEAP)
