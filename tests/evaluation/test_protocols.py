"""Protocols: the published benchmarks' figures on made-up rankings, and small cases worked out by hand."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from ames.datasets.ground_truth import GroundTruth, parse_ground_truth
from ames.errors import AmesError
from ames.evaluation.protocols import (
    ALL,
    EASY,
    GLDV2,
    HARD,
    LEAVE_ONE_OUT,
    MEDIUM,
    PRIVATE,
    PUBLIC,
    REVISITED,
    Protocol,
    evaluate,
    ideal,
    left_out,
    query_counts,
)
from helpers.commands import ROOT

GOLDEN = ROOT / "tests" / "golden"
FIGURES = json.loads((GOLDEN / "metrics.json").read_text())
SIMPLE = Protocol("simple", positives=("ok",), junk=("junk",))


@cache
def revisited_ground_truth(name):
    raw = json.loads((GOLDEN / f"gnd_{name}.json").read_text())
    raw["imlist"] = [f"gallery_{i}" for i in range(raw["num_images"])]
    raw["qimlist"] = [f"query_{i}" for i in range(len(raw["gnd"]))]
    return parse_ground_truth(raw, source=name)


@cache
def revisited_ranking(name, seed, strength):
    truth = revisited_ground_truth(name)
    rng = np.random.default_rng([seed, 3])
    rows = []
    for query in truth.queries:
        scores = rng.standard_normal(len(truth.imlist))
        for key, share in (("easy", 1.0), ("hard", 0.6), ("junk", 0.5)):
            scores[query[key]] += share * strength
        rows.append(np.argsort(-scores, kind="stable"))
    return np.stack(rows)


def landmarks_case(seed, queries, gallery):
    rng = np.random.default_rng([seed, 4])
    positives = []
    for _ in range(queries):
        count = rng.integers(0, 6)
        positives.append(np.sort(rng.choice(gallery, count, replace=False)))
    rows = []
    for ids in positives:
        scores = rng.standard_normal(gallery)
        scores[ids] += 2.0
        rows.append(np.argsort(-scores, kind="stable"))
    return np.stack(rows), truth_of([{"ok": ids} for ids in positives], gallery)


def truth_of(queries, gallery):
    arrays = [{key: np.array(ids, dtype=np.int64) for key, ids in query.items()} for query in queries]
    names = [str(i) for i in range(len(queries))]
    return GroundTruth(queries=arrays, imlist=[str(i) for i in range(gallery)], qimlist=names)


@pytest.mark.parametrize("protocol", REVISITED, ids=lambda protocol: protocol.name)
@pytest.mark.parametrize("case", FIGURES["revisited"], ids=lambda case: f"{case['dataset']}-{case['seed']}")
def test_revisited_benchmark(case, protocol):
    truth = revisited_ground_truth(case["dataset"])
    ranking = revisited_ranking(case["dataset"], case["seed"], case["strength"])
    expected = case["protocols"][protocol.name]
    result = evaluate(ranking, truth, protocol)
    assert result.map == pytest.approx(expected["map"], abs=1e-6)
    assert list(result.mp) == [1, 5, 10]
    assert list(result.mp.values()) == pytest.approx(expected["mp_at"], abs=1e-6)
    assert result.aps[:5] == pytest.approx(expected["ap_first5"], abs=1e-6)
    assert result.num_skipped == np.isnan(result.aps).sum() == expected["queries_with_no_positive"]
    assert result.num_queries == len(result.aps) == 70


@pytest.mark.parametrize("case", FIGURES["gldv2"], ids=lambda case: str(case["seed"]))
def test_landmarks_benchmark(case):
    ranking, truth = landmarks_case(case["seed"], case["queries"], case["gallery"])
    split = case["private_queries"]
    parts = {
        "map_public": replace(PUBLIC, queries=(None, -split)),
        "map_private": replace(PRIVATE, queries=(-split, None)),
        "map_all": ALL,
    }
    for name, protocol in parts.items():
        for length in (case["gallery"], 100):  # the cutoff makes a ranking of 100 as good as the whole
            result = evaluate(ranking[:, :length], truth, protocol)
            assert result.map == pytest.approx(case[name], abs=1e-6)


def test_landmark_splits_are_those_of_the_benchmark():
    truth = truth_of([{"ok": [0]} for _ in range(1129)], 2)
    ranking = np.tile([0, 1], (1129, 1))
    assert [evaluate(ranking, truth, protocol).num_queries for protocol in GLDV2] == [379, 750, 1129]


def test_by_hand():
    truth = truth_of([{"ok": [3, 1], "junk": [0]}, {"ok": [], "junk": []}], 5)
    ranking = np.array([[0, 3, 4, 1, 2], [0, 1, 2, 3, 4]])  # without junk: 3 4 1 2
    result = evaluate(ranking, truth, SIMPLE, ks=(1, 2))
    assert result.map == pytest.approx(100 * (1 + (1 / 2 + 2 / 3) / 2) / 2)
    assert result.mp == {1: 100.0, 2: 50.0}
    assert np.isnan(result.aps).tolist() == [False, True]
    assert (result.num_queries, result.num_skipped) == (2, 1)


def test_positives_behind_the_end_of_a_ranking_lower_the_figure():
    truth = truth_of([{"ok": [0, 1, 2, 3], "junk": []}], 9)
    assert evaluate(np.array([[0, 1]]), truth, SIMPLE).map == pytest.approx(50.0)


def test_missing_entries_take_no_position():
    truth = truth_of([{"ok": [0, 1], "junk": []}], 9)
    assert evaluate(np.array([[0, -1, 1, -1]]), truth, SIMPLE).map == pytest.approx(100.0)
    assert evaluate(np.array([[-1, -1]]), truth, SIMPLE).map == 0.0


def test_an_image_under_both_keys_is_junk():
    truth = truth_of([{"ok": [0, 1, 2], "junk": [0]}], 4)
    assert evaluate(np.array([[0, 1, 2, 3]]), truth, LEAVE_ONE_OUT).map == pytest.approx(100.0)
    assert evaluate(np.array([[0, 3, 1, 2]]), truth, LEAVE_ONE_OUT).mp[1] == 0.0


def test_no_query_with_a_positive_is_not_a_number():
    result = evaluate(np.array([[0, 1]]), truth_of([{"ok": [], "junk": []}], 2), SIMPLE)
    assert np.isnan(result.map)
    assert np.isnan(list(result.mp.values())).all()
    assert result.num_skipped == 1


def test_ideal_by_hand():
    truth = truth_of([{"ok": [3, 1, 5], "junk": [0, 2]}], 7)
    ranking = np.array([[0, 4, 3, 2, 6, 1, -1, 5]])  # without junk: 4 3 6 1 5
    assert ideal(ranking, truth, SIMPLE, 0).tolist() == [[4, 3, 6, 1, 5, 0, 2, -1]]
    assert ideal(ranking, truth, SIMPLE, 2).tolist() == [[3, 4, 6, 1, 5, 0, 2, -1]]
    assert ideal(ranking, truth, SIMPLE, 4).tolist() == [[3, 1, 4, 6, 5, 0, 2, -1]]
    assert ideal(ranking, truth, SIMPLE, 99).tolist() == [[3, 1, 5, 4, 6, 0, 2, -1]]


@pytest.mark.parametrize("protocol", [MEDIUM, HARD, EASY])
def test_ideal_of_everything_is_perfect_and_of_nothing_changes_no_figure(protocol):
    truth = revisited_ground_truth("roxford5k")
    ranking = revisited_ranking("roxford5k", 2, 3.0)
    plain, none, some, perfect = (
        evaluate(r, truth, protocol)
        for r in (ranking, *(ideal(ranking, truth, protocol, k) for k in (0, 100, ranking.shape[1])))
    )
    assert none.map == pytest.approx(plain.map)
    assert plain.map < some.map < perfect.map
    assert perfect.map == pytest.approx(100.0)
    assert list(perfect.mp.values()) == pytest.approx([100.0] * 3)


TRUTH = truth_of([{"ok": [0], "junk": [1]}, {"ok": [2], "junk": []}], 3)


@pytest.mark.parametrize(
    ("ranking", "protocol", "message"),
    [
        ([[0, 1]], SIMPLE, "ranking has 1 rows but ground truth 2 queries"),
        ([0, 1], SIMPLE, r"not int64 of shape \[2\]"),
        ([[0.0], [1.0]], SIMPLE, "not float64"),
        ([[0, 1], [0, 3]], SIMPLE, "id 3 but the gallery of the ground truth has 3 images"),
        ([[0, -2], [0, 1]], SIMPLE, "id -2: ids start at 0"),
        ([[0, 0], [0, 1]], SIMPLE, "query 0 lists gallery image 0 more than once"),
        ([[1, 1], [0, 1]], SIMPLE, "query 0 lists gallery image 1 more than once"),
        ([[0, 1], [1, 1]], SIMPLE, "query 1 lists gallery image 1 more than once"),  # neither right nor junk
        ([[0, 1], [0, 1]], EASY, "'easy', query 0: ground truth has no key 'easy': its keys are junk, ok"),
        ([[0, 1], [0, 1]], PUBLIC, "'public' selects no query"),
    ],
)
def test_errors_of_evaluate(ranking, protocol, message):
    with pytest.raises(AmesError, match=message):
        evaluate(np.array(ranking), TRUTH, protocol)


def test_other_errors():
    with pytest.raises(AmesError, match="re-rank is -1"):
        ideal(np.array([[0], [1]]), TRUTH, SIMPLE, -1)
    with pytest.raises(AmesError, match="'odd' has ap 'square'"):
        Protocol("odd", positives=("ok",), ap="square")
    with pytest.raises(AmesError, match="'odd' has no positives"):
        Protocol("odd", positives=())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "a protocol is called '': give a name"),
        ({"name": 1}, "a protocol is called 1: give a name, as text"),
        ({"positives": "ok"}, "'odd' has positives 'ok': give a list of keys"),
        ({"junk": ("junk", 3)}, "'odd' has junk .*: give a list of keys"),
        ({"cutoff": 0}, "'odd' has cutoff 0: give a whole number of at least 1, or null"),
        ({"cutoff": True}, "'odd' has cutoff True"),
        ({"queries": (0,)}, r"'odd' has queries \(0,\): give \[start, stop\]"),
        ({"queries": (0, "end")}, "'odd' has queries .*: give"),
    ],
)
def test_protocols_of_other_types(changes, message):
    with pytest.raises(AmesError, match=message):
        Protocol(**{"name": "odd", "positives": ("ok",)} | changes)


# ---- queries without positives ------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", REVISITED, ids=lambda p: p.name)
def test_the_counts_are_those_of_the_evaluation(protocol):
    truth = revisited_ground_truth("roxford5k")
    result = evaluate(revisited_ranking("roxford5k", 2, 3.0), truth, protocol)
    counts = query_counts(truth, [protocol])
    assert counts == {protocol.name: {"judged": result.num_queries, "without_positive": result.num_skipped}}


def test_roxford_says_its_two_easy_queries():
    counts = query_counts(revisited_ground_truth("roxford5k"), REVISITED)
    assert left_out(counts) == ["easy: 2 of 70 queries have no positive and are left out"]


def test_a_positive_that_is_junk_too_is_none_and_other_queries_are_not_left_out():
    truth = truth_of([{"ok": [0], "junk": []}, {"ok": [1], "junk": [1]}, {"ok": [], "junk": []}], 3)
    part = replace(SIMPLE, name="part", queries=(0, 1))
    rest = replace(SIMPLE, name="rest", queries=(1, None))
    counts = query_counts(truth, [SIMPLE, part, rest])
    assert counts[SIMPLE.name] == {"judged": 3, "without_positive": 2}
    assert counts["part"] == {"judged": 1, "without_positive": 0}
    assert left_out({"rest": counts["rest"]}) == [
        "rest: none of 2 queries has a positive, so that there is no figure"
    ]
    assert left_out({"a": {"judged": 9, "without_positive": 1}}) == [
        "a: 1 of 9 queries has no positive and is left out"
    ]
    with pytest.raises(AmesError, match="'easy', query 0: ground truth has no key 'easy'"):
        query_counts(truth, [EASY])
