"""The script that makes the shipped models, end to end on a few small pictures."""

import json
from collections import Counter

import pytest
import torch

from ames.backbones.choice import missing
from ames.datasets.lists import read_list
from ames.models.checkpoints import load_model
from ames.models.registry import MODELS, SHIPPED
from helpers import photos
from helpers.commands import ROOT, run_script

SCRIPT = ROOT / "scripts" / "train_shipped.py"
SMALL = ["--landmarks", 3, "--distractors", 2, "--val-landmarks", 1, "--val-distractors", 2, "--drawn", 2]
SMALL += ["--width", 96, "--desc-num", 30, "--global-dim", 8, "--workers", 0]
SMALL += ["--epochs", 1, "--student-epochs", 1, "--elvis-epochs", 1]
SMALL += ["cpu=true", "tracker=null", "train_dataset.min_negatives=1", "train_dataset.batch_size=24"]
SMALL += ["train_dataset.desc_num=20", "val_dataset.num_rerank=5"]


def make(backbone, tmp_path):
    words = ["--backbone", backbone, "--photos", "photographs", "--out", "made models", *SMALL]
    return run_script(SCRIPT, *words, cwd=tmp_path).returncode


@pytest.mark.parametrize(
    "backbone",
    [
        "rootsift",
        pytest.param(
            "aliked", marks=pytest.mark.skipif(bool(missing()), reason=f"not installed: {missing()}")
        ),
    ],
)
def test_both_models_are_made_and_a_second_call_trains_nothing(backbone, tmp_path):
    for number in range(60):  # so that each split has a few
        photos.save(tmp_path / "photographs" / f"{number}.png", photos.scene(number, size=(240, 320)))
    assert make(backbone, tmp_path) == 0
    out = tmp_path / "made models"
    log = json.loads((out / f"{backbone}_training.json").read_text())
    pictures = log["pictures"]
    assert pictures["landmarks-train/photographed"]["photographs"]["number"] == 60
    assert "photographs" not in pictures["landmarks-train/drawn"]
    items = read_list(out / "landmarks-train" / "train.txt")
    assert all((out / "landmarks-train" / item.path).is_file() for item in items)
    # Ten views of each landmark, and distractors: the sets have the same labels, the joined list has not.
    assert {n: count for n, count in Counter(x.label for x in items).items() if count == 10} == dict.fromkeys(
        [f"photographed-{n}" for n in range(3)] + [f"drawn-{n}" for n in range(2)], 10
    )
    shipped_models = {
        name: row.arguments
        for name, row in MODELS.items()
        if row.weights == SHIPPED and row.backbone == backbone
    }
    for name, shipped in shipped_models.items():
        model, trained = load_model(out / f"{name}.safetensors"), load_model(out / f"{name}.pt")
        assert model.arguments == trained.arguments == log[name]["model"]
        assert shipped.items() <= model.arguments.items()
        assert [record["epoch"] for record in log[name]["epochs"]] == [1]
        assert log[name]["chosen"] == {key: log[name]["epochs"][0][key] for key in ("lamb", "temp")}
        half = {k: x.half().float() if x.ndim == 2 else x for k, x in trained.state_dict().items()}
        assert all(torch.equal(x, half[k]) for k, x in model.state_dict().items())
    assert any("start_from=" in word for word in log[f"{backbone}_ames_dist"]["words"])

    written = {path: path.read_bytes() for path in out.glob("*.safetensors")}
    assert make(backbone, tmp_path) == 0
    assert {path: path.read_bytes() for path in out.glob("*.safetensors")} == written
    assert json.loads((out / f"{backbone}_training.json").read_text()) == log
