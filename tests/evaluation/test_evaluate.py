"""Evaluation: the released code's figures on a made-up data root, the sweep, and the choice of a blend."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from ames.datasets.ground_truth import GroundTruth, load_ground_truth, save_ground_truth
from ames.descriptors.local import DescriptorFile
from ames.errors import AmesError
from ames.evaluation.evaluate import Scoring, evaluate_test_set
from ames.evaluation.folder import evaluate as evaluate_folder
from ames.evaluation.protocols import ALL, GLDV2, LEAVE_ONE_OUT, MEDIUM, PUBLIC, REVISITED, Protocol, evaluate
from ames.evaluation.sweep import (
    Grid,
    Reranked,
    choose_fusion,
    column,
    columns,
    evaluate_initial,
    evaluate_oracle,
    junk_ids,
    sweep,
    validation_metrics,
)
from ames.evaluation.test_set import open_test_set
from ames.global_search.shortlist import Shortlist
from ames.models.ames import AMES
from ames.models.chamfer import Chamfer
from ames.reranking.fusion import Fusion, rerank
from ames.weights.files import load_state
from golden import data_root, rebuild
from helpers import small_sets

K1 = Protocol("k1", positives=("easy",), junk=("junk",), cutoff=1)
WHOLE = replace(K1, name="whole", cutoff=None)
CASES = rebuild.cases("evaluate.json")
TOLERANCE = 0.02  # mAP points

LAMBDAS, GAMMAS = Grid.lamb, Grid.temp


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case['dataset']}-{case['seed']}")
def golden_run(request, tmp_path_factory):
    """A case, and what one evaluation of it returns. The released code read the second case from a
    compound file; its descriptors are float16 too, so the flat file says the same.
    """
    case = request.param
    folder = data_root.make(tmp_path_factory.mktemp("data"), case)
    arguments = rebuild.arguments(case["model"])
    model = AMES(**arguments).eval()
    load_state(model, rebuild.state(rebuild.shapes(**arguments), case["model"]["seed"]), source="seeded")
    grid = {key: sorted({row[key] for row in case["rows"]}) for key in ("num_rerank", "lamb", "temp")}
    out = tmp_path_factory.mktemp("run")
    scoring = Scoring(query_count=case["query_desc_num"], database_count=case["db_desc_num"])
    test = open_test_set(folder, model)
    results = evaluate_test_set(test, model, REVISITED, scoring, Grid(**grid)).save(out)
    return case, results, out, folder


def test_every_row_is_the_released_code_s(golden_run):
    case, results, _, _ = golden_run
    found = {(row["num_rerank"], row["lamb"], row["temp"]): row for row in results["rows"]}
    assert len(found) == len(case["rows"])
    for row in case["rows"]:
        mine = found[row["num_rerank"], row["lamb"], row["temp"]]
        for key in ("M_map", "H_map"):
            assert mine[key] == pytest.approx(row[key], abs=TOLERANCE), (row, key)


def test_the_initial_ranking_is_the_released_code_s(golden_run):
    case, results, _, _ = golden_run
    for key, value in case["initial_ranking"].items():
        mine = results["initial"][key]
        if isinstance(mine, dict):
            mine = list(mine.values())
        assert mine == pytest.approx(value, abs=TOLERANCE), key


def test_results_follow_from_the_stored_scores_alone(golden_run):
    _, results, out, folder = golden_run
    assert json.loads((out / "results.json").read_text()) == results
    assert {"dataset", "model", "shortlist", "query_desc_num", "db_desc_num", "initial", "rows"} <= set(
        results
    )
    truth = load_ground_truth(folder.ground_truth)
    with np.load(out / "scores.npz") as scores:
        shortlist = Shortlist(scores["ids"], scores["similarities"])
        logits = scores["logits"]
    assert logits.dtype == np.float32
    assert logits.shape == shortlist.ids.shape
    grid = {
        key: list(dict.fromkeys(row[key] for row in results["rows"]))
        for key in ("num_rerank", "lamb", "temp")
    }
    assert sweep(Reranked(shortlist, logits, truth, REVISITED), Grid(**grid)) == results["rows"]


def made_up(seed=0, queries=7, gallery=40):
    """A shortlist of the whole gallery, logits that know something, and truth with two kinds of positives."""
    rng = np.random.default_rng(seed)
    truth, similarities, logits = [], [], []
    for _ in range(queries):
        drawn = rng.permutation(gallery)
        query = {"easy": drawn[:3], "hard": drawn[3:7], "junk": drawn[7:9]}
        right = np.isin(np.arange(gallery), drawn[:7])
        similarities.append(0.5 + 0.15 * rng.standard_normal(gallery) + 0.1 * right)
        logits.append(2 * rng.standard_normal(gallery) + 2 * right)
        truth.append(query)
    similarities, logits = np.float32(similarities), np.float32(logits)
    ids = np.argsort(-similarities, axis=1, kind="stable")
    truth = GroundTruth(truth, [f"g{i}" for i in range(gallery)], [f"q{i}" for i in range(queries)])
    take = np.take_along_axis
    return Shortlist(ids, take(similarities, ids, 1)), take(logits, ids, 1), truth


def mean_map(results):
    return np.mean([result.map for result in results.values()])


def test_without_slack_tune_is_never_worse_than_a_point_of_the_grid():
    for seed in range(3):
        shortlist, logits, truth = made_up(seed)
        fusion, reached = choose_fusion(Reranked(shortlist, logits, truth, REVISITED), num_rerank=25, slack=0)
        assert fusion.lamb in LAMBDAS
        assert fusion.gamma in GAMMAS
        ways = {
            (lamb, temp): mean_map(
                Reranked(shortlist, logits, truth, REVISITED).evaluate(25, Fusion(lamb, temp))
            )
            for lamb in LAMBDAS[::3]
            for temp in GAMMAS[::2]
        }
        assert reached >= max(ways.values()) - 1e-9
        assert reached == pytest.approx(
            mean_map(Reranked(shortlist, logits, truth, REVISITED).evaluate(25, fusion))
        )


def test_protocols_without_positives_are_left_out_of_the_choice():
    shortlist, logits, truth = made_up()
    for query in truth.queries:
        query["hard"] = np.empty(0, np.int64)
    easy, _, hard = REVISITED
    both, one, none = (Reranked(shortlist, logits, truth, x) for x in ([easy, hard], [easy], [hard]))
    assert choose_fusion(both, num_rerank=25) == choose_fusion(one, num_rerank=25)
    with pytest.raises(AmesError, match="no query has a positive under hard"):
        choose_fusion(none, num_rerank=25)


def test_slack_trusts_the_global_similarity_more_and_gives_up_no_more_than_it_says():
    shortlist, logits, truth = made_up()
    reranked = Reranked(shortlist, logits, truth, REVISITED)
    best, best_map = choose_fusion(reranked, num_rerank=25, slack=0)
    for slack in (0.5, 5, 100):
        fusion, reached = choose_fusion(
            Reranked(shortlist, logits, truth, REVISITED), num_rerank=25, slack=slack
        )
        assert reached >= best_map - slack
        assert fusion.lamb / (1 - fusion.lamb) / fusion.gamma >= best.lamb / (1 - best.lamb) / best.gamma
    assert fusion == Fusion(LAMBDAS[-1], GAMMAS[0])  # anything is good enough


def test_gamma_does_not_change_the_order_without_the_global_score():
    shortlist, logits, truth = made_up()
    maps = {
        mean_map(Reranked(shortlist, logits, truth, REVISITED).evaluate(40, Fusion(0.0, temp)))
        for temp in (0.1, 1.0, 3.0)
    }
    assert len(maps) == 1


def test_perfect_re_ranking_bounds_every_other():
    shortlist, logits, truth = made_up()
    best = evaluate_oracle(shortlist, truth, REVISITED, 20)
    for lamb in (0.0, 0.5, 1.0):
        found = Reranked(shortlist, logits, truth, REVISITED).evaluate(20, Fusion(lamb, 1.0))
        assert all(found[p].map <= best[p].map + 1e-9 for p in REVISITED)


def test_lambda_one_keeps_the_initial_ranking():
    shortlist, logits, truth = made_up()
    found = Reranked(shortlist, logits, truth, REVISITED).evaluate(20, Fusion(1.0, 1.0))
    initial = evaluate_initial(shortlist, truth, REVISITED)
    assert [found[p].map for p in REVISITED] == pytest.approx([initial[p].map for p in REVISITED])


def test_names_of_columns():
    assert [column(p, "map") for p in REVISITED] == ["E_map", "M_map", "H_map"]
    assert column(PUBLIC, "map") == "pub_map"
    assert column(LEAVE_ONE_OUT, "map") == "map"
    assert list(columns(GLDV2).values()) == ["pub_map", "priv_map", "map"]
    assert list(columns([LEAVE_ONE_OUT, ALL], "mp").values()) == ["leave-one-out_mp", "mp"]
    assert list(columns([K1, MEDIUM]).values()) == ["k1_map", "M_map"]


@pytest.mark.parametrize(
    ("protocols", "message"),
    [
        ([K1, replace(K1, cutoff=2)], "two protocols are called 'k1': give each a name of its own"),
        ([K1, K1], "two protocols are called 'k1'"),
        ([MEDIUM, replace(K1, name="M")], "protocols 'medium' and 'M' share the column M_map: rename one"),
        ([K1, replace(K1, name="val")], "protocol 'val': its column val_map is the validation's mAP"),
        ([K1, replace(K1, name="mean")], "protocol 'mean': its column mean_map is the mean"),
    ],
)
def test_columns_that_would_be_one(small_folder, tmp_path, protocols, message):
    with pytest.raises(AmesError, match=message):
        columns(protocols)
    with pytest.raises(AmesError, match=message):
        evaluated(small_folder, tmp_path, protocols=protocols)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_rerank": []}, "num_rerank is an empty list"),
        ({"lamb": []}, "lamb is an empty list"),
        ({"temp": []}, "temp is an empty list"),
        ({"num_rerank": [5, 41]}, r"num_rerank 41 is outside 1 \.\.\. 40, the length of the shortlist"),
        ({"num_rerank": [0]}, "num_rerank 0 is outside"),
        ({"num_rerank": [2.5]}, "num_rerank 2.5 is not a whole number"),
        ({"num_rerank": ["all"]}, "num_rerank 'all' is not a whole number"),
        ({"lamb": [1.5]}, r"lamb 1.5 is outside \[0, 1\]"),
        ({"lamb": [float("nan")]}, "lamb nan is outside"),
        ({"lamb": ["x"]}, "lamb 'x' is outside"),
        ({"temp": [0]}, "temp 0 is not a number above 0"),
        ({"temp": [float("inf")]}, "temp inf is not a number above 0"),
    ],
)
def test_sweeps_that_make_no_sense(change, message):
    shortlist, _, _ = made_up()
    values = {"num_rerank": [10], "lamb": [0, 1], "temp": [1]}
    Grid(**values).check(shortlist)
    with pytest.raises(AmesError, match=message):
        Grid(**values | change).check(shortlist)


def evaluated(folder, tmp_path, model=None, protocols=REVISITED):
    model = model or Chamfer(local_dim=8)
    test, scoring = open_test_set(folder, model), Scoring(query_count=4, database_count=4)
    return evaluate_test_set(test, model, protocols, scoring, Grid([10], [0.5], [1.0])).save(tmp_path / "run")


@pytest.fixture
def small_folder(tmp_path):
    """A prepared test set of seven queries over forty images."""
    shortlist, _, truth = made_up()
    folder = data_root.DatasetFolder(tmp_path / "small", "rootsift")
    save_ground_truth(folder.ground_truth, truth)
    shortlist.save(folder.shortlist)
    rng = np.random.default_rng(3)
    for split, images in (("query", 7), ("gallery", 40)):
        path = folder.local(split)
        descriptors = rng.standard_normal((images, 4, 8)).astype(np.float32)
        data_root.write_local(path, descriptors, rng, 1, padded=False, dtype="float16")
    return folder


@pytest.mark.parametrize("split", ["query", "gallery"])
def test_files_whose_names_lie_in_another_order_are_refused(small_folder, tmp_path, split):
    truth = load_ground_truth(small_folder.ground_truth)
    wanted = truth.qimlist if split == "query" else truth.imlist
    with h5py.File(small_folder.local(split), "r+") as file:
        file["names"] = [f"jpg/{name}.jpg" for name in wanted]
    evaluated(small_folder, tmp_path / "right")
    with h5py.File(small_folder.local(split), "r+") as file:
        file["names"][:2] = [f"jpg/{name}.jpg" for name in wanted[1::-1]]
    with pytest.raises(
        AmesError, match=rf"_{split}_local.hdf5: image 0 is 'jpg/.*', but '{wanted[0]}' in .*gnd_small"
    ):
        evaluated(small_folder, tmp_path / "wrong")


def test_no_figure_is_null_in_json_where_no_query_has_a_positive(small_folder, tmp_path):
    truth = load_ground_truth(small_folder.ground_truth)
    for query in truth.queries:
        query["hard"] = np.empty(0, np.int64)
    save_ground_truth(small_folder.ground_truth, truth)
    evaluated(small_folder, tmp_path)

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    results = json.loads((tmp_path / "run" / "results.json").read_text(), parse_constant=refuse)
    assert results["rows"][0]["H_map"] is None
    assert results["rows"][0]["M_map"] > 0


@pytest.mark.parametrize("split", ["query", "gallery"])
def test_a_descriptor_file_of_another_length_is_refused(small_folder, tmp_path, split):
    rng = np.random.default_rng(0)
    data_root.write_local(
        small_folder.local(split), np.ones((3, 4, 8), np.float32), rng, 1, padded=False, dtype="float16"
    )
    with pytest.raises(AmesError, match=f"{split}_local.hdf5: 3 images, but"):
        evaluated(small_folder, tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_model_of_another_width_is_refused(small_folder, tmp_path):
    with pytest.raises(AmesError, match="descriptors are 8-d, but the model takes 16-d"):
        evaluated(small_folder, tmp_path, Chamfer(local_dim=16))


def test_a_shortlist_of_other_queries_is_refused(small_folder, tmp_path):
    shortlist = Shortlist.load(small_folder.shortlist)
    Shortlist(shortlist.ids[:5], shortlist.similarities[:5]).save(small_folder.shortlist)
    with pytest.raises(AmesError, match="5 queries, but 7 in the ground truth"):
        evaluated(small_folder, tmp_path)


def test_a_protocol_that_the_ground_truth_does_not_know(small_folder, tmp_path):
    protocols = [MEDIUM, replace(MEDIUM, name="other", positives=("ok",))]
    with pytest.raises(AmesError, match="no key 'ok'"):
        evaluated(small_folder, tmp_path, protocols=protocols)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("split", ["query", "gallery"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_descriptors_that_are_not_finite_are_named(small_folder, tmp_path, split, dtype):
    rng = np.random.default_rng(0)
    file = DescriptorFile(small_folder.local(split))
    broken = rng.standard_normal((len(file), 4, 8))
    broken[3, 2, 5] = {"float16": np.nan, "float32": -np.inf, "float64": 1e200}[dtype]
    data_root.write_local(file.path, broken.astype(dtype), rng, 1, padded=False, dtype=dtype)
    said = rf"{split}_local.hdf5: the descriptors of image 3 hold values that are not finite .*; extract them"
    with pytest.raises(AmesError, match=said):
        evaluated(small_folder, tmp_path)
    assert not (tmp_path / "run" / "results.json").exists()


def test_one_protocol_alone_has_plain_columns(small_folder, tmp_path):
    results = evaluated(small_folder, tmp_path, protocols=[Protocol("mine", ("easy",), ("junk",))])
    assert {"map", "mp"} <= set(results["rows"][0])


def test_protocols_of_own_names_have_a_column_each(small_folder, tmp_path):
    both = evaluated(small_folder, tmp_path / "both", protocols=[K1, WHOLE])
    for protocol in (K1, WHOLE):
        alone = evaluated(small_folder, tmp_path / protocol.name, protocols=[protocol])
        for row, expected in ((both["initial"], alone["initial"]), (both["rows"][0], alone["rows"][0])):
            assert row[f"{protocol.name}_map"] == expected["map"]
            assert row[f"{protocol.name}_mp"] == expected["mp"]
    assert both["initial"]["k1_map"] != both["initial"]["whole_map"]
    assert "map" not in both["initial"]


def test_the_mean_of_a_validation_and_what_is_behind_it():
    shortlist, _, truth = made_up()
    for query in truth.queries:
        query["hard"] = np.empty(0, np.int64)
    found = evaluate_initial(shortlist, truth, REVISITED)  # no query has a hard positive
    figures = validation_metrics(found)
    assert figures == {
        "val_map": pytest.approx((found[REVISITED[0]].map + found[MEDIUM].map) / 2),
        "val_E_map": found[REVISITED[0]].map,
        "val_M_map": found[MEDIUM].map,
    }
    assert list(validation_metrics({MEDIUM: found[MEDIUM]})) == ["val_map"]
    assert list(validation_metrics({K1: found[MEDIUM], ALL: found[MEDIUM]})) == [
        "val_map",
        "val_k1_map",
        "val_all_map",
    ]
    with pytest.raises(AmesError, match="no query has a positive under hard"):
        validation_metrics({REVISITED[2]: found[REVISITED[2]]})


def test_queries_without_a_positive_are_counted_beside_the_mean_of_the_others(small_folder, tmp_path):
    full = evaluated(small_folder, tmp_path / "full")
    assert full["queries"]["hard"] == {"judged": 7, "without_positive": 0}
    truth = load_ground_truth(small_folder.ground_truth)
    truth.queries[3]["hard"] = np.empty(0, np.int64)
    save_ground_truth(small_folder.ground_truth, truth)
    results = evaluated(small_folder, tmp_path)
    assert results["queries"]["hard"] == {"judged": 7, "without_positive": 1}
    assert results["queries"]["medium"] == {"judged": 7, "without_positive": 0}
    shortlist = Shortlist.load(small_folder.shortlist)
    aps = evaluate_initial(shortlist, truth, REVISITED)[REVISITED[2]].aps
    assert results["initial"]["H_map"] == pytest.approx(np.delete(aps, 3).mean(), abs=0.001)


def test_a_shortlist_that_repeats_a_wrong_image_is_refused(small_folder, tmp_path):
    with np.load(small_folder.shortlist) as content:
        stored = dict(content)
    truth = load_ground_truth(small_folder.ground_truth)
    right = np.concatenate([*truth.queries[4].values()])
    wrong = np.flatnonzero(~np.isin(stored["ids"][4], right))
    stored["ids"][4, wrong[3]] = stored["ids"][4, wrong[0]]
    np.savez(small_folder.shortlist, **stored)
    image = stored["ids"][4, wrong[0]]
    with pytest.raises(
        AmesError, match=rf"nn_rootsift.npz: query 4 names gallery image {image} more than once: make"
    ):
        evaluated(small_folder, tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("protocol", [*REVISITED, replace(MEDIUM, name="part", queries=(2, -1))])
def test_what_is_prepared_once_gives_the_metrics_of_the_ranking(protocol):
    """Junk that is re-ranked, empty entries and equal scores included, to the last bit."""
    rng = np.random.default_rng(7)
    ids = np.stack([rng.permutation(40)[:30] for _ in range(9)])
    ids[rng.random(ids.shape) < 0.1] = -1
    similarities = np.sort(rng.random(ids.shape).round(1).astype(np.float32), 1)[:, ::-1]
    shortlist, logits = Shortlist(ids, similarities), rng.normal(size=ids.shape).round(0).astype(np.float32)
    images = [np.split(rng.permutation(40)[:18], 3) for _ in range(9)]
    queries = [dict(zip(("easy", "hard", "junk"), parts, strict=True)) for parts in images]
    truth = GroundTruth(queries, [str(i) for i in range(40)], [str(i) for i in range(9)])
    for k in (5, 30):
        for fusion in (Fusion(0.0, 1.0), Fusion(0.3, 0.5), Fusion(1.0, 2.0)):
            ranking = rerank(shortlist, logits, junk_ids(truth, protocol), num_rerank=k, fusion=fusion)
            expected = evaluate(ranking, truth, protocol)
            found = Reranked(shortlist, logits, truth, [protocol]).evaluate(k, fusion)
            np.testing.assert_array_equal(found[protocol].aps, expected.aps)
            assert (found[protocol].map, found[protocol].mp) == (expected.map, expected.mp)


def test_one_call_gives_the_figures_of_the_long_way(tmp_path):
    folder = small_sets.made(tmp_path / "set")
    model = Chamfer(local_dim=8)
    short = evaluate_folder(
        folder.path, model, num_rerank=20, desc_num=(4, 3), fusion=Fusion(0.2, 3.0), descriptors="rootsift"
    )
    scoring = Scoring(query_count=4, database_count=3)
    test = open_test_set(folder, model)
    long = evaluate_test_set(test, model, REVISITED, scoring, Grid([20], [0.2], [3.0])).results
    assert short["reranked"] == long["rows"][0]
    assert short["initial"] == long["initial"]
    with pytest.raises(AmesError, match="Chamfer brings no lambda and gamma"):
        evaluate_folder(folder.path, model)
    with pytest.raises(AmesError, match="give the descriptors of the test set"):
        evaluate_folder(folder.path, model, fusion=Fusion(0.2, 3.0))
    with pytest.raises(AmesError, match="'rootsift_am' does not exist; did you mean rootsift_ames"):
        evaluate_folder(folder.path, "rootsift_am")


def test_scores_in_another_unit_have_gammas_in_it():
    shortlist, logits, truth = made_up()
    plain, larger = (Reranked(shortlist, x, truth, REVISITED) for x in (logits, 8 * logits))
    fusion, reached = choose_fusion(plain, num_rerank=25)
    found, same = choose_fusion(larger, num_rerank=25, unit=8)
    assert (found.lamb, found.gamma, same) == (fusion.lamb, fusion.gamma / 8, reached)
