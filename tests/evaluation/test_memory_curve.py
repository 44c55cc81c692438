"""The curve of bytes per image against mAP: rows, picture, the command, and what it refuses."""

import builtins
import json
import shutil

import cv2
import numpy as np
import pytest
import torch

from ames.cli.curve import _prepared
from ames.cli.main import main
from ames.datasets.ground_truth import GroundTruth, load_ground_truth, save_ground_truth
from ames.datasets.layout import DatasetFolder
from ames.descriptors.local import write_globals
from ames.errors import AmesError
from ames.evaluation.evaluate import Scoring, evaluate_test_set
from ames.evaluation.memory_curve import Contender, curve, draw, load_contenders
from ames.evaluation.protocols import (
    ALL,
    GLDV2,
    HARD,
    LEAVE_ONE_OUT,
    MEDIUM,
    REVISITED,
    choose_protocols,
)
from ames.evaluation.sweep import Grid
from ames.evaluation.test_set import open_test_set
from ames.models.ames import AMES
from ames.models.chamfer import Chamfer
from ames.models.checkpoints import save_weights
from ames.models.locore import Locore
from ames.models.rrt import RRT
from ames.reranking.fusion import Fusion
from helpers.small_sets import made

FUSION = Fusion(0.3, 2.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A test set of 5 descriptors per image, a full-precision and a binary model."""
    root = tmp_path_factory.mktemp("curve")
    made(root / "small")
    made(root / "photos", keys={"ok": 3, "junk": 1})
    torch.manual_seed(0)
    sizes = {"local_dim": 8, "model_dim": 8, "num_encoder_layers": 1, "dim_feedforward": 8}
    save_weights(
        root / "full.safetensors", AMES(**sizes, init="matching"), provenance={"blend": FUSION.to_keys()}
    )
    save_weights(root / "bits.safetensors", AMES(**sizes, init="matching", binarized=True))
    return root


@pytest.fixture(scope="module")
def contenders(data):
    paths = [data / "full.safetensors", data / "bits.safetensors"]
    return load_contenders(paths, backbone="rootsift", fusion=Fusion(0.1, 1.0))


@pytest.fixture(scope="module")
def test_set(data, contenders):
    return open_test_set(DatasetFolder(data / "small", "rootsift"), contenders[0].model)


COUNTS = {"database_counts": [2, 5], "query_count": 4, "num_rerank": 50}


def curve_at(test, contenders, protocols, *, database_counts, query_count, **rest):
    scorings = [Scoring(query_count=query_count, database_count=count) for count in database_counts]
    return curve(test, contenders, protocols, scorings, **rest)


@pytest.fixture(scope="module")
def rows(test_set, contenders):
    return curve_at(test_set, contenders, REVISITED, **COUNTS, extra_bytes=100)


def words(data, out, *more):
    start = ["curve", data / "small", "--models", data / "full.safetensors", data / "bits.safetensors"]
    counts = ["--db-desc-num", 2, 5, "--query-desc-num", 4, "--num-rerank", 50]
    return [str(word) for word in (*start, *counts, "-o", out, *more)]


def image(path):
    return cv2.imread(str(path))


# ---- rows -----------------------------------------------------------------------------------------


def test_rows_are_models_times_counts_behind_the_global_ranking(rows):
    found = [(row["model"], row["kind"], row["db_desc_num"], row["bytes"]) for row in rows]
    assert found == [
        ("global only", None, 0, 100),
        ("full", "full precision", 2, 2 * 16 + 100),
        ("full", "full precision", 5, 5 * 16 + 100),
        ("bits", "binary", 2, 2 * 1 + 100),
        ("bits", "binary", 5, 5 * 1 + 100),
    ]
    assert [(row["lamb"], row["temp"]) for row in rows[1::2]] == [(0.3, 2.0), (0.1, 1.0)]
    for row in rows:
        assert row["mean_map"] == pytest.approx((row["E_map"] + row["M_map"] + row["H_map"]) / 3, abs=1e-3)
    assert all(row["seconds"] > 0 for row in rows[1:])


def test_a_point_is_what_an_evaluation_says(data, contenders, rows, tmp_path):
    for one, row in zip(contenders, rows[1::2], strict=True):
        test = open_test_set(DatasetFolder(data / "small", "rootsift"), one.model)
        scoring = Scoring(query_count=4, database_count=2)
        grid = Grid([50], [one.fusion.lamb], [one.fusion.gamma])
        results = evaluate_test_set(test, one.model, REVISITED, scoring, grid).save(tmp_path / one.name)
        expected = {k: v for k, v in results["rows"][0].items() if k != "num_rerank"}
        assert {key: row[key] for key in expected} == expected
        assert {key: rows[0][key] for key in results["initial"]} == results["initial"]


def test_a_count_given_twice_is_scored_once(test_set, contenders):
    counts = COUNTS | {"database_counts": [2, 2]}
    assert len(curve_at(test_set, contenders[1:], [MEDIUM], **counts)) == 2


def test_any_pair_wise_model_can_be_a_line(test_set):
    one = Contender("Chamfer", Chamfer(local_dim=8), FUSION)
    assert [row["bytes"] for row in curve_at(test_set, [one], [MEDIUM], **COUNTS)] == [0, 64, 160]


def test_models_of_one_file_name_go_by_their_paths(data, tmp_path):
    other = tmp_path / "full.safetensors"
    other.write_bytes((data / "full.safetensors").read_bytes())
    paths = [data / "full.safetensors", other, data / "bits.safetensors"]
    names = [one.name for one in load_contenders(paths, backbone="rootsift", fusion=FUSION)]
    assert names == [str(data / "full.safetensors"), str(other), "bits"]


# ---- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"database_counts": [2, 6]}, r"db_desc_num 6 is outside 1 ... 5, what .*gallery_local.hdf5 holds"),
        ({"database_counts": [0]}, "db_desc_num 0 is outside"),
        ({"database_counts": []}, "no count given"),
        ({"query_count": 6}, r"query_desc_num 6 is outside 1 ... 5, what .*query_local.hdf5"),
        ({"num_rerank": 151}, "num_rerank 151 is outside 1 ... 150"),
    ],
)
def test_counts_that_are_not_there(test_set, contenders, changes, message):
    with pytest.raises(AmesError, match=message):
        curve_at(test_set, contenders, REVISITED, **COUNTS | changes)


def test_models_that_do_not_fit_are_refused_before_any_is_scored(test_set, contenders, monkeypatch):
    monkeypatch.setattr(Scoring, "__call__", None)
    first, wide = contenders[0], Contender("wide", Chamfer(local_dim=16), FUSION)
    for second, message in (
        (wide, "descriptors are 8-d, but the model takes 16-d"),
        (Contender("full", Chamfer(local_dim=8), FUSION), "two lines of the curve are called 'full'"),
        (Contender("sizeless", Chamfer(), FUSION), "sizeless: does not say what it stores"),
    ):
        with pytest.raises(AmesError, match=message):
            curve_at(test_set, [first, second], REVISITED, **COUNTS)
    with pytest.raises(AmesError, match=r"lamb 1.5 is outside \[0, 1\]"):
        Contender("odd", first.model, Fusion(1.5, 1.0))


def test_a_blend_that_is_none(data, tmp_path):
    path = tmp_path / "odd.safetensors"
    save_weights(path, AMES(local_dim=8, model_dim=8, num_encoder_layers=1), provenance={"blend": [1]})
    with pytest.raises(AmesError, match="its blend is"):
        load_contenders([path], backbone="rootsift", fusion=FUSION)


def truth(queries=2, **keys):
    return GroundTruth([{k: np.arange(1) for k in keys}] * queries, ["a"], ["q"] * queries)


def test_protocols_follow_from_the_keys():
    assert choose_protocols(truth(easy=1, hard=1, junk=1)) == REVISITED
    assert choose_protocols(truth(ok=1, junk=1)) == (LEAVE_ONE_OUT,)
    assert choose_protocols(truth(ok=1)) == (ALL,)
    assert choose_protocols(truth(ok=1, queries=751)) == GLDV2
    assert choose_protocols(truth(ok=1), ["hard", "medium", "hard"]) == (HARD, MEDIUM)
    with pytest.raises(AmesError, match="no protocol fits the ground truth: its keys are easy, good"):
        choose_protocols(truth(good=1, easy=1))
    with pytest.raises(AmesError, match="its keys are none"):
        choose_protocols(truth(queries=0))


# ---- the picture ----------------------------------------------------------------------------------


def test_the_picture_is_an_image(rows, tmp_path):
    path = draw(rows, tmp_path / "new" / "a.png", title=r"$\formula$")
    assert image(path).shape == (750, 1200, 3)
    assert len(np.unique(image(path).reshape(-1, 3), axis=0)) > 10
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]
    assert (image(draw(rows, tmp_path / "b.png", metric="H_map", title="small")) != image(path)).any()


@pytest.mark.parametrize("part", [slice(0, 1), slice(1, 2), slice(0, 2)])
def test_few_rows_and_missing_figures_are_curve_at(rows, tmp_path, part):
    assert image(draw(rows[part], tmp_path / "few.png")) is not None
    assert image(draw([row | {"mean_map": None} for row in rows[part]], tmp_path / "none.png")) is not None


def test_a_figure_that_is_not_there(rows, tmp_path):
    with pytest.raises(AmesError, match="no metric 'pub_map' in the rows; they have model, kind"):
        draw(rows, tmp_path / "a.png", metric="pub_map")
    with pytest.raises(AmesError, match="cannot be written"):
        draw(rows, "/proc/a.png")


# ---- the command ----------------------------------------------------------------------------------


def test_the_command_writes_figures_and_picture(data, rows, tmp_path, capsys):
    assert main(words(data, tmp_path / "out.png", "--extra-bytes", 100, "--lamb", 0.1)) == 0
    results = json.loads((tmp_path / "out.json").read_text())
    assert results["protocols"] == ["easy", "medium", "hard"]
    timeless = [[{**row, "seconds": 0} for row in found] for found in (results["rows"], rows)]
    assert timeless[0] == timeless[1]
    assert image(tmp_path / "out.png") is not None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.json", "out.png"]
    printed = capsys.readouterr().out
    assert f"{rows[1]['mean_map']:.1f}" in printed
    assert "small: 4 query descriptors, first 50 re-ranked" in printed
    assert "left out" not in printed


def test_the_command_says_which_queries_are_left_out(data, tmp_path, capsys):
    folder = shutil.copytree(data / "small", tmp_path / "small")
    truth = load_ground_truth(folder / "gnd_small.json")
    truth.queries[0]["hard"] = np.empty(0, np.int64)
    save_ground_truth(folder / "gnd_small.json", truth)
    line = words(data, tmp_path / "out")
    line[1] = str(folder)
    assert main(line) == 0
    said = [x for x in capsys.readouterr().out.splitlines() if "left out" in x]
    queries = len(truth.queries)
    assert said == [f"hard: 1 of {queries} queries has no positive and is left out"]
    counts = json.loads((tmp_path / "out.json").read_text())["queries"]
    assert counts["hard"] == {"judged": queries, "without_positive": 1}


def test_the_command_on_photos_is_leave_one_out(data, tmp_path):
    line = words(data, tmp_path / "out")
    line[1] = str(data / "photos")
    assert main(line) == 0
    results = json.loads((tmp_path / "out.json").read_text())
    assert results["protocols"] == ["leave-one-out"]
    assert all(row["map"] == row["mean_map"] for row in results["rows"])


def test_without_matplotlib_the_figures_are_written(data, tmp_path, capsys, monkeypatch):
    found = builtins.__import__

    def lacking(name, *rest, **keywords):
        if name.startswith("matplotlib"):
            raise ImportError(f"No module named {name!r}")
        return found(name, *rest, **keywords)

    monkeypatch.setattr(builtins, "__import__", lacking)
    assert main(words(data, tmp_path / "out")) == 2
    out, err = capsys.readouterr()
    assert "pip install 'ames-retrieval[plot]'" in err
    assert len(err.splitlines()) == 1
    assert "mean_map" in out
    assert len(json.loads((tmp_path / "out.json").read_text())["rows"]) == 5
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--models", "none.pt"], "none.pt: no such checkpoint"),
        (["--db-desc-num", "6"], "db_desc_num 6 is outside 1 ... 5"),
        (["--protocol", "harder"], "protocol 'harder' is none of easy, medium, hard"),
        (["--protocol", "all"], "ground truth has no key 'ok'"),
        (["--precision", "fp8"], "precision 'fp8' is none of fp32"),
        (["--device", "abacus"], "--device abacus: cannot be used here"),
        (["--lamb", "2"], "lamb 2.0 is outside [0, 1]"),
        (["--descriptors", "dinov2"], "no shortlist exists; looked for"),
        (["-o", "/proc/none/out"], "/proc/none/out.json: cannot be written"),
        (["-o", "/"], "is a folder; give the beginning of the files' names"),
    ],
)
def test_what_the_command_refuses(data, tmp_path, capsys, more, message):
    assert main(words(data, tmp_path / "out", *more)) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_places_and_folders_that_do_not_fit(data, tmp_path, capsys):
    (tmp_path / "out.png").mkdir()
    assert main(words(data, tmp_path / "out")) == 2
    assert "out.png: is a folder; give another --out" in capsys.readouterr().err
    assert main(["curve", str(tmp_path), "-o", str(tmp_path / "a")]) == 2
    assert "no ground truth exists" in capsys.readouterr().err
    assert main(["curve", str(tmp_path), "--descriptors", "dinov2", "-o", str(tmp_path / "a")]) == 2
    assert "--models is missing: no weights for dinov2 descriptors are shipped" in capsys.readouterr().err


def test_models_that_read_global_descriptors_stand_beside_others(data, test_set):
    """A slot more for the global token, and no more descriptors than a model reads."""
    for split, file in (("query", test_set.queries), ("gallery", test_set.gallery)):
        rng = np.random.default_rng(len(file))
        vectors = rng.standard_normal((len(file), 6)).astype(np.float32)
        write_globals(test_set.folder.vectors(split), vectors, names=file.names)
    torch.manual_seed(0)
    pair = RRT(local_dim=8, global_dim=6, model_dim=8, nhead=2, num_layers=1, dim_feedforward=8, scales=0)
    sizes = {"hidden": 16, "nhead": 2, "num_layers": 1, "intermediate": 8, "attention_window": 8}
    listed = Locore(local_dim=8, global_dim=6, local_count=3, window=50, scales=0, **sizes)
    models = {"plain": Chamfer(local_dim=8), "pair": pair, "list": listed}
    lines = [Contender(name, model.eval(), FUSION) for name, model in models.items()]
    rows = curve_at(test_set, lines, [MEDIUM], **COUNTS)
    found = [(row["model"], row["bytes"]) for row in rows[1:]]
    assert found == [
        ("plain", 64), ("plain", 160), ("pair", 3 * 16), ("pair", 6 * 16), ("list", 3 * 32), ("list", 4 * 32)
    ]  # fmt: skip


def test_the_descriptors_are_those_of_the_folder_with_shipped_models(tmp_path):
    assert _prepared(tmp_path) == "rootsift"  # the default one
    (tmp_path / "nn_aliked.npz").touch()
    assert _prepared(tmp_path) == "aliked"
    (tmp_path / "nn_rootsift.npz").touch()
    assert _prepared(tmp_path) == "rootsift"
