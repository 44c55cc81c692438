"""Figures of each query: by hand, a naive twin, the published evaluation's figures, class metrics."""

import json

import numpy as np
import pytest

from ames.config.benchmarks import benchmark, benchmark_names, protocols_of_classes
from ames.config.classes import class_protocol
from ames.datasets.benchmarks.benchmark_lists import truth_of_labels
from ames.datasets.ground_truth import GroundTruth, parse_ground_truth
from ames.errors import AmesError
from ames.evaluation.class_metrics import evaluate_classes
from ames.evaluation.protocol_figures import evaluate_protocol, figure_names, query_figures
from ames.evaluation.protocols import EASY, PUBLIC, Protocol, evaluate, query_counts
from ames.global_search.exact import search
from helpers.commands import ROOT
from twins import naive_figures

GOLDEN = ROOT / "tests" / "golden"


def truth_of(queries, size):
    made = [{key: np.array(ids, np.int64) for key, ids in query.items()} for query in queries]
    return GroundTruth(made, [str(n) for n in range(size)], [str(n) for n in range(len(made))])


HAND = truth_of(
    [
        {"ok": [0, 1], "junk": [5]},
        {"ok": [2], "junk": [2]},
        {"ok": [3, 4], "junk": []},
        {"ok": [], "junk": []},
    ],
    6,
)
ROWS = np.array([[5, 2, 0, 3, 1], [0, 1, 2, 3, 4], [0, 1, 2, 5, -1], [0, 1, 2, 3, 4]])


@pytest.mark.parametrize(
    ("rules", "name", "expected"),
    [
        # Query 0, junk removed: 2 0 3 1, hits at positions 2 and 4. Query 1: its only positive is junk, too.
        ({"ap": "rectangle"}, "mAP@all", [100 * (1 / 2 + 2 / 4) / 2, np.nan, 0, np.nan]),
        ({"ap": "trapezoid"}, "mAP", [100 * (1 / 4 + (1 / 3 + 1 / 2) / 2) / 2, np.nan, 0, np.nan]),
        ({"ap": "rectangle", "cutoff": 2}, "mAP@2", [25, np.nan, 0, np.nan]),
        ({"ap": "rectangle", "cutoff": 1}, "mAP@1", [0, np.nan, 0, np.nan]),
        ({"ap": "at-r"}, "mAP@R", [25, np.nan, 0, np.nan]),
        ({"ap": "rectangle", "empty": "miss"}, "mAP@all", [50, 0, 0, 0]),
        ({"recall_at": (1, 2)}, "R@1", [0, np.nan, 0, np.nan]),
        ({"recall_at": (1, 2)}, "R@2", [100, np.nan, 0, np.nan]),
        ({"recall_at": (2,), "empty_recall": "miss"}, "R@2", [100, 0, 0, 0]),
        ({"recall_at": (2,), "empty": "miss", "empty_recall": "skip"}, "R@2", [100, np.nan, 0, np.nan]),
        ({"precision_at": (1, 2, 5)}, "P@5", [50, np.nan, 0, np.nan]),
        ({"queries": (None, -2)}, "mAP", [100 * (1 / 4 + 5 / 12) / 2, np.nan, np.nan, np.nan]),
    ],
)
def test_by_hand(rules, name, expected):
    protocol = Protocol("hand", positives=("ok",), junk=("junk",), **rules)
    found = evaluate_protocol(ROWS, HAND, protocol)
    assert found.queries[name] == pytest.approx(expected, nan_ok=True)
    assert found.means[name] == pytest.approx(np.nanmean(expected))
    assert list(found.queries) == figure_names(protocol)


def test_a_ranking_that_is_too_short_is_said(caplog):
    rules = {"positives": ("ok",), "ap": "rectangle"}
    query_figures(ROWS, HAND, Protocol("x", **rules, cutoff=5, recall_at=(1,)))
    query_figures(
        np.array([[n, *range(n), *range(n + 1, 6)] for n in range(4)]),
        HAND,
        Protocol("x", **rules, recall_at=(9,)),
    )
    assert not caplog.records  # the gallery has no more
    query_figures(ROWS, HAND, Protocol("x", **rules, recall_at=(1, 6)))
    (record,) = caplog.records
    assert record.getMessage() == (
        "protocol 'x' reads the first 6 images, and the ranking has 5: what is not in it is not found"
    )


def test_an_image_listed_again():
    rows = np.array([[2, 2, 0, 0, 1], [0, 0, 1, 2, 3], [3, 3, 4, 4, 3], [0, 0, 0, 0, 0]])
    rules = {"positives": ("ok",), "junk": ("junk",), "ap": "rectangle", "recall_at": (2,)}
    with pytest.raises(AmesError, match="ranking of query 0 lists gallery image 2 more than once"):
        query_figures(rows, HAND, Protocol("x", **rules))
    found = query_figures(rows, HAND, Protocol("x", **rules, duplicates="first"))
    # 2 0 1: hits at 2 and 3; 3 4: both.
    assert found["mAP@all"] == pytest.approx([100 * (1 / 2 + 2 / 3) / 2, np.nan, 100, np.nan], nan_ok=True)
    assert found["R@2"] == pytest.approx([100, np.nan, 100, np.nan], nan_ok=True)


def random_case(rng, *, duplicates):
    size, count = int(rng.integers(5, 30)), 25
    queries, rows = [], []
    for _ in range(count):
        picked = rng.permutation(size)
        positives, junk = int(rng.integers(0, 5)), int(rng.integers(0, 4))
        query = {"ok": picked[:positives], "junk": picked[positives : positives + junk]}
        if rng.random() < 0.3 and positives:
            query["junk"] = np.append(query["junk"], query["ok"][0])  # an image under both
        queries.append(query)
        row = rng.permutation(size)
        if duplicates:
            row = rng.integers(0, size, size)
        row[rng.random(size) < 0.1] = -1
        rows.append(row)
    cut = int(rng.integers(1, size + 1))
    return np.array(rows)[:, :cut], truth_of(queries, size)


@pytest.mark.parametrize("seed", range(30))
def test_a_naive_twin(seed):
    rng = np.random.default_rng([seed, 77])
    duplicates = seed % 3 == 0
    ranking, truth = random_case(rng, duplicates=duplicates)
    ap = ("trapezoid", "rectangle", "at-r")[seed % 3]
    protocol = Protocol(
        "random",
        positives=("ok",),
        junk=("junk",) if seed % 4 else (),
        cutoff=None if ap == "at-r" or seed % 2 else int(rng.integers(1, 12)),
        ap=ap,
        queries=(None, -7) if seed % 5 == 0 else None,
        recall_at=(1, 2, 5, 40),
        precision_at=(1, 3, 10),
        empty=("skip", "miss")[seed % 2],
        empty_recall=(None, "skip", "miss")[seed % 3],
        duplicates="first" if duplicates else "refuse",
    )
    found = query_figures(ranking, truth, protocol)
    expected = naive_figures.figures(ranking, truth.queries, protocol)
    for name in figure_names(protocol):
        wanted = [np.nan if x[name] is None else x[name] for x in expected]
        assert found[name] == pytest.approx(wanted, nan_ok=True, abs=1e-9), name
        assert found[name].dtype == np.float64
    means = evaluate(ranking, truth, protocol)  # the same rule in the older form
    kept = found[protocol.ap_name][~np.isnan(found[protocol.ap_name])]
    assert means.map == pytest.approx(kept.mean() if len(kept) else np.nan, nan_ok=True)


def test_figures_of_the_published_evaluation():
    golden = json.loads((GOLDEN / "metrics.json").read_text())
    for case in golden["revisited"]:
        raw = json.loads((GOLDEN / f"gnd_{case['dataset']}.json").read_text())
        raw["imlist"] = [str(n) for n in range(raw["num_images"])]
        truth = parse_ground_truth(raw, source="golden")
        rng, rows = np.random.default_rng([case["seed"], 3]), []
        for query in truth.queries:
            scores = rng.standard_normal(len(truth.imlist))
            for key, share in (("easy", 1.0), ("hard", 0.6), ("junk", 0.5)):
                scores[query[key]] += share * case["strength"]
            rows.append(np.argsort(-scores, kind="stable"))
        for protocol in benchmark(case["dataset"]).protocols:
            means, wanted = (
                evaluate_protocol(np.stack(rows), truth, protocol),
                case["protocols"][protocol.name],
            )
            assert means.means["mAP"] == pytest.approx(wanted["map"], abs=1e-6)
            found = [means.means[f"P@{k}"] for k in (1, 5, 10)]
            assert found == pytest.approx(wanted["mp_at"], abs=1e-6)
            left_out = int(np.isnan(means.queries["mAP"]).sum())
            assert left_out == wanted["queries_with_no_positive"]


@pytest.mark.parametrize("name", ["cub", "sop", "inshop"])
def test_sets_with_classes_as_their_own_evaluation(name):
    """The whole ranking under a benchmark's protocols gives the figures of ``evaluate_classes``."""
    rng, rule = np.random.default_rng(3), class_protocol(name)
    labels = np.array([*rng.integers(0, 6, 38), 90, 91]).astype(str)  # two are alone in their class
    gallery_labels = labels if rule.skip_self else rng.integers(0, 6, 50).astype(str)
    vectors = rng.standard_normal((len(labels), 8)).astype(np.float32)
    gallery = vectors if rule.skip_self else rng.standard_normal((50, 8)).astype(np.float32)
    wanted = evaluate_classes(vectors, gallery, labels, gallery_labels, rule)
    names = [f"q{n}" for n in range(len(labels))]
    others = names if rule.skip_self else [f"g{n}" for n in range(50)]
    truth = truth_of_labels(ROOT, (names, labels), (others, gallery_labels), skip_self=rule.skip_self)
    ranking = search(vectors, gallery, len(gallery)).ids
    for protocol in benchmark(name).protocols:
        found = evaluate_protocol(ranking, GroundTruth(truth, others, names), protocol)
        assert found.means[protocol.ap_name] == pytest.approx(wanted.map[protocol.name])
        assert found.queries[protocol.ap_name] == pytest.approx(wanted.aps[protocol.name], nan_ok=True)
        for k, recall in wanted.recall.items():
            assert found.means[f"R@{k}"] == pytest.approx(recall)


def test_the_query_is_removed_by_its_number():
    """A copy of the query counts: right if it has the label, wrong if not, whichever comes first."""
    truth = truth_of_labels(ROOT, (["a"], ["1"]), (["a", "copy", "b"], ["1", "1", "2"]), skip_self=True)
    protocol = benchmark("sop-1k").protocol()
    made = GroundTruth(truth, ["a", "copy", "b"], ["a"])
    for row, first in (([0, 1, 2], 100), ([1, 0, 2], 100), ([2, 1, 0], 0), ([0, 2, 1], 0)):
        assert query_figures(np.array([row]), made, protocol)["R@1"] == [first]


def test_a_class_protocol_without_average_precision():
    with pytest.raises(AmesError, match="protocol 'sop-rrt' has no average precision"):
        protocols_of_classes(class_protocol("sop-rrt"))


@pytest.mark.parametrize("name", benchmark_names())
def test_every_benchmark_gives_its_primary_figure(name):
    found = benchmark(name)
    protocol = found.protocol()
    keys = {key: [0] for key in (*protocol.positives, *protocol.junk)} | {key: [1] for key in protocol.junk}
    truth = truth_of([keys] * (1129 if protocol.queries else 1), 3)
    means = evaluate_protocol(np.array([[1, 0, 2]] * len(truth.queries)), truth, protocol).means
    assert means[found.primary] == (100 if protocol.junk else {"R@1": 0}.get(found.primary, 50))


def test_queries_that_count_as_misses_are_not_said_to_be_left_out():
    protocol = Protocol("x", positives=("ok",), junk=("junk",))
    assert query_counts(HAND, [protocol])["x"] == {"judged": 4, "without_positive": 2}
    missed = Protocol("x", positives=("ok",), junk=("junk",), empty="miss")
    assert query_counts(HAND, [missed])["x"]["without_positive"] == 0
    assert evaluate(ROWS, HAND, missed).num_skipped == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recall_at": (0,)}, r"recall_at \(0,\): give different whole numbers"),
        ({"recall_at": (5, 1)}, "recall_at"),
        ({"precision_at": 1}, "precision_at 1"),
        ({"empty": "zero"}, "empty 'zero': give skip or miss"),
        ({"empty_recall": "zero"}, "empty_recall 'zero': give skip, miss or null"),
        ({"duplicates": "last"}, "duplicates 'last': give refuse or first"),
        ({"ap": "at-r", "cutoff": 5}, "has cutoff 5: the rule 'at-r' has none"),
    ],
)
def test_wrong_protocols(changes, message):
    with pytest.raises(AmesError, match=message):
        Protocol(**{"name": "odd", "positives": ("ok",)} | changes)


def test_rows_of_another_number():
    with pytest.raises(AmesError, match="ranking has 3 rows but ground truth 4 queries"):
        query_figures(ROWS[:3], HAND, Protocol("x", positives=("ok",)))
    assert (EASY.ap_name, PUBLIC.ap_name) == ("mAP", "mAP@100")
