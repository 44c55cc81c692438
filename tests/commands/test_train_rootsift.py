"""The script that makes the shipped models, end to end on a few small drawings."""

import json

import torch

from ames.models.checkpoints import load_model
from ames.models.registry import MODELS, SHIPPED
from helpers.commands import ROOT, run_script

SCRIPT = ROOT / "scripts" / "train_rootsift.py"
SMALL = ["--landmarks", 3, "--distractors", 2, "--val-landmarks", 1, "--val-distractors", 2, "--width", 96]
SMALL += ["--desc-num", 30, "--global-dim", 8, "--epochs", 1, "--student-epochs", 1, "--workers", 0]
SMALL += ["cpu=true", "tracker=null", "train_dataset.min_negatives=1", "train_dataset.batch_size=24"]
SMALL += ["train_dataset.desc_num=20", "val_dataset.num_rerank=5"]


def test_both_models_are_made_and_a_second_call_trains_nothing(tmp_path, capsys):
    assert run_script(SCRIPT, "--out", "made models", *SMALL, cwd=tmp_path).returncode == 0
    out = tmp_path / "made models"
    log = json.loads((out / "training.json").read_text())
    shipped_models = {name: row.arguments for name, row in MODELS.items() if row.weights == SHIPPED}
    for name, shipped in shipped_models.items():
        model, trained = load_model(out / f"{name}.safetensors"), load_model(out / f"{name}.pt")
        assert model.arguments == trained.arguments == log[name]["model"]
        assert shipped.items() <= model.arguments.items()
        assert [record["epoch"] for record in log[name]["epochs"]] == [1]
        assert log[name]["chosen"] == {key: log[name]["epochs"][0][key] for key in ("lamb", "temp")}
        half = {k: x.half().float() if x.ndim == 2 else x for k, x in trained.state_dict().items()}
        assert all(torch.equal(x, half[k]) for k, x in model.state_dict().items())
    assert any("start_from=" in word for word in log["rootsift_ames_dist"]["words"])

    written = {path: path.read_bytes() for path in out.glob("*.safetensors")}
    capsys.readouterr()
    assert run_script(SCRIPT, "--out", "made models", *SMALL, cwd=tmp_path).returncode == 0
    assert {path: path.read_bytes() for path in out.glob("*.safetensors")} == written
    assert json.loads((out / "training.json").read_text()) == log
