"""Stored scores and what follows from them without the model; the choice of a blend; a sweep's table."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ames.cli.main import main
from ames.config.sweep_table import SweepTable, build_table
from ames.datasets.ground_truth import load_ground_truth, save_ground_truth
from ames.datasets.layout import DatasetFolder
from ames.errors import AmesError
from ames.evaluation.evaluate import (
    Choice,
    Scoring,
    choose,
    evaluate_run,
    evaluate_test_set,
    objective,
    readable,
)
from ames.evaluation.protocols import ALL, GLDV2, HARD, MEDIUM, PUBLIC, REVISITED
from ames.evaluation.runs import Run
from ames.evaluation.sweep import Grid, needed
from ames.evaluation.test_set import open_test_set
from ames.global_search.shortlist import Shortlist
from ames.models.ames import AMES
from ames.models.chamfer import Chamfer
from ames.models.checkpoints import save_weights
from ames.reranking.fusion import Fusion
from ames.reranking.scorer import ComputeConfig, PairScorer
from ames.reranking.shortlist_scores import score_shortlist
from ames.training.logging.journal import read_journal
from golden import data_root
from helpers.commands import ROOT, refused, run_script
from helpers.small_sets import made


def evaluated(folder, out, protocols=REVISITED, files=None, choice=None, **changes):
    model, scoring = Chamfer(local_dim=8), Scoring(query_count=5, database_count=5)
    grid = Grid(**{"num_rerank": [20, 100], "lamb": [0.0, 0.5], "temp": [1.0]} | changes)
    test, more = open_test_set(folder, model, **files or {}), {"description": "Chamfer", "choice": choice}
    return evaluate_test_set(test, model, protocols, scoring, grid, **more).save(out)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    folder = made(root / "small")
    return folder, root / "out", evaluated(folder, root / "out")


# ---- figures from stored scores ---------------------------------------------------------------------


def test_rows_of_a_run_follow_from_its_files(run):
    _, out, results = run
    initial, *rows = evaluate_run(Run.load(out))
    assert rows == results["rows"]
    assert initial == {"num_rerank": 0, "lamb": None, "temp": None} | results["initial"]


def test_other_combinations_are_as_if_evaluated(run, tmp_path):
    folder, out, _ = run
    fresh = evaluated(folder, tmp_path, num_rerank=[50], lamb=[0.3, 1.0], temp=[2.0], protocols=(MEDIUM,))
    grid = {"num_rerank": [50], "lamb": [0.3, 1.0], "temp": [2.0]}
    assert evaluate_run(Run.load(out), **grid, protocols=["medium"])[1:] == fresh["rows"]


def test_the_report_command(run, capsys):
    _, out, results = run
    assert main(["report", str(out), "--num-rerank", "30", "--lamb", "0.25", "--protocol", "hard"]) == 0
    printed = capsys.readouterr().out
    assert "Chamfer on small, 5 x 5 descriptors" in printed
    assert "0.25" in printed
    assert "H_map" in printed
    assert "M_map" not in printed
    assert main(["report", str(out)]) == 0
    assert f"{results['rows'][-1]['M_map']:.1f}" in capsys.readouterr().out


def test_the_report_of_own_protocols_says_what_it_leaves_out(tmp_path, capsys):
    folder = made(tmp_path / "small")
    truth = load_ground_truth(folder.ground_truth)
    truth.queries[2]["hard"] = np.empty(0, np.int64)
    save_ground_truth(folder.ground_truth, truth)
    protocols = (HARD, replace(MEDIUM, name="whole"), replace(MEDIUM, name="k1", cutoff=1))
    results = evaluated(folder, tmp_path / "out", protocols)
    assert main(["report", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[-3:] == ["H_map", "whole_map", "k1_map"]
    row = results["rows"][-1]
    assert lines[-2].split()[-3:] == [f"{row[key]:.1f}" for key in ("H_map", "whole_map", "k1_map")]
    assert lines[-1] == "hard: 1 of 6 queries has no positive and is left out"
    assert main(["report", str(tmp_path / "out"), "--protocol", "whole", "whole"]) == 0
    assert "left out" not in capsys.readouterr().out


def test_a_run_whose_shortlist_repeats_an_image_is_refused(run, tmp_path):
    with np.load(run[1] / "scores.npz") as content:
        stored = dict(content)
    stored["ids"][3, 5] = stored["ids"][3, 9]
    np.savez(tmp_path / "scores.npz", **stored)
    with pytest.raises(AmesError, match=r"scores.npz: query 3 names gallery image \d+ more than once"):
        Run.load(tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num-rerank", "120"], "not scored: the run scored what it re-ranks up to 100; evaluate again"),
        (["--num-rerank", "1000"], "num_rerank 1000 is outside 1 ... 150"),
        (["--lamb", "1.5"], "lamb 1.5 is outside [0, 1]"),
        (["--temp", "0"], "temp 0.0 is not a number above 0"),
        (["--protocol", "medum"], "protocol 'medum' is none of easy, medium, hard, "),
        (["--protocol", "all"], "no key 'ok'"),
        (["--ground-truth", "nowhere.json"], "nowhere.json: cannot read the ground truth"),
    ],
)
def test_what_the_report_refuses(run, capsys, words, message):
    assert main(["report", str(run[1]), *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1


def test_folders_that_are_no_runs(tmp_path):
    with pytest.raises(AmesError, match=r"scores.npz: no such file; give the folder"):
        Run.load(tmp_path)
    (tmp_path / "scores.npz").write_text("text")
    with pytest.raises(AmesError, match="not the scores of an evaluation"):
        Run.load(tmp_path)
    np.savez(tmp_path / "scores.npz", ids=np.zeros((1, 1), int))
    with pytest.raises(AmesError, match="not the scores of an evaluation"):
        Run.load(tmp_path)


def test_ground_truth_that_has_moved(run, tmp_path):
    folder, out, results = run
    moved = tmp_path / "moved.json"
    moved.write_bytes(folder.ground_truth.read_bytes())
    assert evaluate_run(Run.load(out), ground_truth=moved)[1:] == results["rows"]


# ---- GLDv2, distractors, workers -------------------------------------------------------------------


@pytest.fixture(scope="module")
def gldv2(tmp_path_factory):
    """As GLDv2 test: the last 750 queries are private."""
    root = tmp_path_factory.mktemp("gldv2")
    return made(root / "gldv2-test", keys={"ok": 3}, queries=760)


def test_gldv2_has_public_private_and_all(gldv2, tmp_path):
    results = evaluated(gldv2, tmp_path, protocols=GLDV2, num_rerank=[5])
    row = results["rows"][0]
    assert {"pub_map", "priv_map", "map"} <= set(row)
    assert row["map"] == pytest.approx((10 * row["pub_map"] + 750 * row["priv_map"]) / 760, abs=0.002)


def test_queries_that_no_protocol_judges_are_not_scored(gldv2, tmp_path):
    mask = needed(Shortlist.load(gldv2.shortlist), load_ground_truth(gldv2.ground_truth), (PUBLIC,), [5])
    assert mask[:10].sum() == 50
    assert not mask[10:].any()
    part = evaluated(gldv2, tmp_path / "a", protocols=(PUBLIC,), num_rerank=[5])
    whole = evaluated(gldv2, tmp_path / "b", protocols=(PUBLIC, ALL), num_rerank=[5])
    assert [row["pub_map"] for row in part["rows"]] == [row["pub_map"] for row in whole["rows"]]


def test_distractors_lie_behind_the_ground_truth_s_gallery(tmp_path):
    folder = made(tmp_path / "small+1m", distractors=30)
    with pytest.raises(AmesError, match="180 images, but 150 gallery images in the ground truth"):
        evaluated(folder, tmp_path / "run")
    results = evaluated(folder, tmp_path / "run", files={"distractors": True})
    assert evaluate_run(Run.load(tmp_path / "run"))[1:] == results["rows"]


def test_named_files_are_read_in_place_of_the_usual_ones(run, tmp_path):
    folder, _, results = run
    other = folder.path / "nn_superglobal.npz"
    Shortlist.load(folder.shortlist, columns=100).save(other)
    found = evaluated(folder, tmp_path / "run", files={"shortlist": other.name})
    assert found["shortlist"] == "nn_superglobal.npz"
    assert found["rows"][0]["M_map"] != results["initial"]["M_map"]


def test_a_superglobal_shortlist_of_an_earlier_version_is_said(run, caplog):
    folder = run[0]
    path = folder.path / "nn_earlier.npz"
    for settings, said in (({"top": 400, "normalize": False}, 1), ({"top": 400, "formula": "released"}, 0)):
        caplog.clear()
        Shortlist.load(folder.shortlist, columns=9).save(path, meta={"superglobal": settings})
        open_test_set(folder, Chamfer(local_dim=8), shortlist=path.name)
        assert caplog.text.count("SuperGlobal formula of an earlier version") == said
    path.unlink()


def test_the_table_shows_the_descriptors_used(run, tmp_path, capsys):
    folder, model = run[0], Chamfer(local_dim=8)
    test, scoring = open_test_set(folder, model), Scoring(query_count=9, database_count=3)
    results = evaluate_test_set(test, model, (MEDIUM,), scoring, Grid([20], [0.0], [1.0])).save(tmp_path)
    assert (results["query_desc_num"], results["db_desc_num"]) == (9, 3)
    assert results["desc_num_used"] == [5, 3]
    assert main(["report", str(tmp_path)]) == 0
    assert "5 x 3 descriptors" in capsys.readouterr().out


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_no_score(run, workers):
    folder, _, _ = run
    test = open_test_set(folder, Chamfer(local_dim=8))
    torch.manual_seed(0)
    model = AMES(local_dim=8, model_dim=16, num_encoder_layers=1, dim_feedforward=16).eval()
    found = [
        score_shortlist(
            PairScorer(model, ComputeConfig(workers=n)), test.queries, test.gallery, test.shortlist
        )
        for n in (0, workers)
    ]
    np.testing.assert_array_equal(*found)


def test_a_worker_s_error_arrives(run, monkeypatch):
    folder, _, _ = run
    test = open_test_set(folder, Chamfer(local_dim=8))

    def broken(*_, **__):
        raise AmesError("unreadable")

    monkeypatch.setattr(test.gallery, "read", broken)
    scorer = PairScorer(Chamfer(local_dim=8), ComputeConfig(workers=2))
    with pytest.raises(AmesError, match="unreadable"):
        score_shortlist(scorer, test.queries, test.gallery, test.shortlist)


# ---- the choice on a validation split ----------------------------------------------------------------


def test_the_chosen_row_is_the_validation_s_choice(run, tmp_path):
    folder, _, _ = run
    choice = Choice(50, Fusion(0.25, 2.0), "val", 12.3456)
    results = evaluated(folder, tmp_path, choice=lambda _: choice, num_rerank=[50])
    row = dict(results["chosen"])
    assert (row.pop("val_dataset"), row.pop("val_map")) == ("val", 12.346)
    fresh = evaluated(folder, tmp_path / "b", num_rerank=[50], lamb=[0.25], temp=[2.0])
    assert row == fresh["rows"][0]
    assert objective(results) == pytest.approx((row["M_map"] + row["H_map"]) / 2)


def test_choosing_looks_at_every_number_re_ranked(run):
    folder, _, _ = run
    model, scoring = Chamfer(local_dim=8), Scoring(query_count=5, database_count=5)
    test = open_test_set(folder, model)
    both = choose(test, model, (MEDIUM, HARD), scoring, num_rerank=[1, 100])
    alone = [choose(test, model, (MEDIUM, HARD), scoring, num_rerank=[k]) for k in (1, 100)]
    assert both == max(alone, key=lambda c: c.reached)
    assert both.num_rerank == 100


def test_the_returned_value():
    rows = [{"M_map": 10.0, "H_map": 20.0, "E_map": 90.0}, {"M_map": 30.0, "H_map": 10.0}]
    assert objective({"chosen": None, "rows": rows}) == 20
    assert objective({"chosen": rows[0] | {"val_map": 99.0}, "rows": rows}) == 15
    assert objective({"chosen": None, "rows": [{"pub_map": 1.0, "priv_map": 2.0, "map": 3.0}]}) == 3
    assert objective({"chosen": None, "rows": [{"pub_map": 1.0}]}) == 1
    assert objective({"chosen": None, "rows": [{"k1_map": 1.0, "whole_map": 3.0}]}) == 2
    assert np.isnan(objective({"chosen": None, "rows": [{"M_map": None, "H_map": None}]}))


@pytest.fixture
def data(tmp_path):
    """data_root with a test, a validation and a training set, and a model."""
    for name, seed in (("landmarks-test", 1), ("landmarks-val", 2)):
        made(tmp_path / "data" / name, seed=seed)
    torch.manual_seed(0)
    model = AMES(local_dim=8, model_dim=8, num_encoder_layers=1, dim_feedforward=8, init="matching")
    save_weights(tmp_path / "model.safetensors", model)
    return tmp_path


WORDS = ["experiment=landmarks", "data_root=data", "model_path=model.safetensors", "cpu=true"]


def test_the_command_chooses_on_a_validation_set(data, capsys):
    words = [*WORDS, "dataset@val_dataset=landmarks-val", "hydra.run.dir=run"]
    assert run_script(ROOT / "src" / "evaluate.py", *words, cwd=data).returncode == 0
    results = json.loads((data / "run" / "results.json").read_text())
    chosen = results["chosen"]
    assert chosen["val_dataset"] == "landmarks-val"
    assert chosen["num_rerank"] == 100
    assert "chosen on landmarks-val" in capsys.readouterr().out
    row = evaluate_run(
        Run.load(data / "run"), num_rerank=[100], lamb=[chosen["lamb"]], temp=[chosen["temp"]]
    )[1]
    assert row["M_map"] == chosen["M_map"]


def test_a_sweep_ends_with_one_table_of_its_own_jobs(data, capsys):
    stale = data / "sweep" / "old" / "results.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("{}")
    words = ["--multirun", *WORDS, "test_dataset.db_desc_num=2,5", "test_dataset.lamb=[0,0.55]"]
    words.append("hydra.sweep.dir=sweep")
    assert run_script(ROOT / "src" / "evaluate.py", *words, cwd=data).returncode == 0
    table = (data / "sweep" / "table.txt").read_text()
    lines = [line.split() for line in table.splitlines()]
    assert [line[0] for line in lines] == ["job", "0", "0", "1", "1"]
    assert capsys.readouterr().out.endswith(f"2 jobs in sweep\n{table}")
    assert "0.55" in lines[2]


def test_the_table_of_jobs_with_different_columns(tmp_path):
    base = {"dataset": "x", "model": "m", "shortlist": "nn.npz", "query_desc_num": 5, "db_desc_num": 4}
    row = {"num_rerank": 5, "lamb": 0.5, "temp": 1.0}
    for job, figures in (("10", {"M_map": 1.0}), ("9", {"map": 2.0})):
        content = base | {"rows": [row | figures], "chosen": row | figures if job == "9" else None}
        if job == "9":  # those of earlier versions do not have it
            content["queries"] = {"own": {"judged": 9, "without_positive": 1}}
        (tmp_path / job).mkdir()
        (tmp_path / job / "results.json").write_text(json.dumps(content))
    files = [tmp_path / "9" / "results.json", tmp_path / "10" / "results.json"]
    rows = build_table({file: json.loads(file.read_text()) for file in files})
    assert [r["job"] for r in rows] == ["9", "9 (chosen)", "10"]
    assert [r["M_map"] for r in rows] == [None, None, 1.0]
    assert len({tuple(r) for r in rows}) == 1
    config = SimpleNamespace(hydra=SimpleNamespace(sweep=SimpleNamespace(dir=str(tmp_path))))
    SweepTable().on_multirun_end(config)
    table = (tmp_path / "table.txt").read_text().splitlines()
    assert table[1].startswith("9 ")
    assert table[-1] == "x: own: 1 of 9 queries has no positive and is left out"


def test_lambda_is_shown_in_full():
    assert readable([{"num_rerank": 5, "lamb": 0.55, "temp": None, "M_mp": {}}]) == [
        {"num_rerank": 5, "lamb": "0.55", "temp": "-"}
    ]


def test_training_is_validated_every_val_freq_epochs(data):
    rng = np.random.default_rng(0)
    folder = DatasetFolder(data / "data" / "landmarks-train", "rootsift")
    folder.path.mkdir()
    folder.image_list().write_text("\n".join(f"{i}.jpg,{i // 4}" for i in range(12)))
    x = rng.standard_normal((12, 12, 8)).astype(np.float32)
    data_root.write_local(folder.local(), x, rng, 1, padded=False)
    ids = np.stack([np.arange(12)] * 12)
    Shortlist(ids, np.ones(ids.shape, np.float32)).save(folder.shortlist)
    words = ["experiment=landmarks-train", "data_root=data", "dim_local_features=8", "model.model_dim=8"]
    words += ["train_dataset.min_positives=1", "train_dataset.min_negatives=1", "train_dataset.batch_size=12"]
    words += ["epochs=2", "val_freq=2", "print_freq=1", "dataset@val_dataset=landmarks-val", "cpu=true"]
    words += ["hydra.run.dir=run"]
    val = DatasetFolder(data / "data" / "landmarks-val", "rootsift").ground_truth
    truth = load_ground_truth(val)
    truth.queries[0]["hard"] = np.empty(0, np.int64)
    save_ground_truth(val, truth)
    assert run_script(ROOT / "src" / "train.py", *words, cwd=data).returncode == 0
    log = (data / "run" / "train.log").read_text()
    assert log.count("val_map") == 1
    assert log.count("landmarks-val: hard: 1 of 6 queries has no positive and is left out") == 1
    epoch = read_journal(data / "run" / "model-journal.jsonl")[-1]
    maps = [epoch[f"val_{key}_map"] for key in "EMH"]
    assert epoch["val_map"] == pytest.approx(np.mean(maps))
    assert len(set(maps)) == 3
    assert "epoch 1, batch 1/3: loss" in log
    words[-3] = "dataset@val_dataset=roxford"
    for path in (data / "run").iterdir():
        path.unlink() if path.is_file() else None
    message = refused(ROOT / "src" / "train.py", *words, cwd=data)
    assert "roxford5k: no such folder" in message
    assert not (data / "run" / "model.pt").exists()  # refused before the first epoch, not after the second
