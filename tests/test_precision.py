"""Number formats that a device only imitates: fp32 is taken, recorded and said in a line."""

import dataclasses
import json
import os
import platform
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from ames import precision as formats
from ames.datasets.layout import DatasetFolder
from ames.evaluation.evaluate import Scoring, evaluate_test_set
from ames.evaluation.protocols import REVISITED
from ames.evaluation.sweep import Grid
from ames.evaluation.test_set import open_test_set
from ames.extraction.batched import check_autocast
from ames.extraction.config import ExtractionConfig
from ames.models.chamfer import Chamfer
from ames.precision import Rates, usable
from ames.reranking.scorer import ComputeConfig, PairScorer
from ames.training.resuming import Checkpoints
from ames.weights.files import read_weights
from helpers.small_sets import made as made_data
from helpers.small_training import RECIPE, fit, loader, made, same, weights, write_store

MEASURED = formats.measured  # before a test's fixture puts another in its place


@pytest.fixture
def imitated(monkeypatch):
    """A processor without instructions for either format."""
    formats._say.cache_clear()
    monkeypatch.setattr(formats, "measured", lambda dtype: Rates(0.3e9, 65e9))


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "ames.precision"]


@pytest.mark.parametrize(
    ("wanted", "fp32", "slow"),
    [
        (0.3, 65, True),  # bf16 of AVX2 alone
        (6.6, 110, True),  # fp16 of AVX-512
        (79, 110, False),  # bf16 of AVX-512 that only converts it
        (330, 110, False),
        (26, 100, False),
        (24, 100, True),
    ],
)
def test_the_decision(wanted, fp32, slow):
    assert Rates(wanted, fp32).slow == slow


def test_the_measurement():
    threads = torch.get_num_threads()
    begun = time.perf_counter()
    rates = MEASURED.__wrapped__(torch.float16)
    assert time.perf_counter() - begun < 1  # a quarter of it where nobody disturbs
    assert torch.get_num_threads() == threads
    assert 1e7 < rates.wanted < 1e14
    assert 1e8 < rates.fp32 < 1e14


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="of x86 processors")
def test_a_processor_without_bf16():
    """A process that may not use what a newer processor has."""
    code = (
        "from ames.reranking.scorer import ComputeConfig\n"
        "import ames.precision, torch\n"
        "assert ComputeConfig(precision='bf16').precision == 'fp32'\n"
        "assert ComputeConfig(precision='fp16').precision == 'fp32'\n"
        "assert ComputeConfig(precision='int8').precision == 'fp32'\n"
    )
    old = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=os.environ | old, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert len(said) == 3
    assert said[2] == (
        "precision=int8: this processor's products of 8-bit integers overflow; fp32 is taken instead"
    )
    assert said[0].startswith("precision=bf16: this processor reaches ")
    assert said[0].endswith(" in fp32; fp32 is taken instead")


@pytest.mark.parametrize(("wanted", "taken"), [(219e9, "fp32"), (221e9, "int8")])
def test_int8_is_taken_where_its_products_are_twice_as_fast(monkeypatch, caplog, wanted, taken):
    formats._say.cache_clear()
    monkeypatch.setattr(formats, "measured", lambda dtype: Rates(wanted, 110e9))
    monkeypatch.setattr(formats, "int8_is_exact", lambda: True)
    assert ComputeConfig(precision="int8").precision == taken
    said = "precision=int8: this processor reaches 219 billion operations per second and core in int8, "
    assert lines(caplog) == ([said + "110 in fp32; fp32 is taken instead"] if taken == "fp32" else [])


def test_the_measurement_of_int8():
    rates = MEASURED.__wrapped__(torch.int8)
    assert 1e7 < rates.wanted < 1e14


def test_one_line_names_both_rates(imitated, caplog):
    for _ in range(3):
        assert not usable(torch.bfloat16, ["cpu", "cpu"], asked="precision=bf16")
    (said,) = lines(caplog)
    assert said == (
        "precision=bf16: this processor reaches 0.3 billion operations per second and core in bf16, "
        "65 in fp32; fp32 is taken instead"
    )


def test_what_needs_no_measurement(monkeypatch, caplog):
    def measured(dtype):
        raise AssertionError("measured")

    monkeypatch.setattr(formats, "measured", measured)
    assert ComputeConfig(precision="fp32").precision == "fp32"
    assert ComputeConfig(precision="tf32").precision == "fp32"  # what a CPU computes in then
    assert usable(torch.float16, ["cuda"], asked="x")
    assert usable(torch.bfloat16, ["mps"], asked="x")
    assert check_autocast(ExtractionConfig()).autocast is None
    assert lines(caplog) == []


@pytest.mark.parametrize("native", [True, False])
def test_gpus(monkeypatch, caplog, native):
    formats._say.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.inference_mode())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0) if native else (7, 5))
    assert ComputeConfig(devices=("cuda:0",), precision="tf32").precision == ("tf32" if native else "fp32")
    assert ComputeConfig(devices=("cuda:0",), precision="fp16").precision == "fp16"
    assert ComputeConfig(devices=("cuda:0",), precision="bf16").precision == ("bf16" if native else "fp32")
    said = ["precision=bf16: an old GPU has no bf16 and would imitate it; fp32 is taken instead"]
    assert lines(caplog) == ([] if native else said)


# ---- what is recorded -----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_scoring(imitated, tmp_path, caplog, precision):
    asked = ComputeConfig(precision=precision, batch_size=3)
    assert asked == ComputeConfig(precision="fp32", batch_size=3)
    assert PairScorer(made(), asked).compute.precision == "fp32"
    assert dataclasses.replace(asked, batch_size=4).precision == "fp32"
    made_data(tmp_path / "small")
    found = {}
    for name in (precision, "fp32"):
        model, grid = Chamfer(local_dim=8), Grid([5], [0.5], [1.0])
        test = open_test_set(DatasetFolder(tmp_path / "small", "rootsift"), model)
        scoring = Scoring(query_count=4, database_count=3, compute=ComputeConfig(precision=name))
        results = evaluate_test_set(test, model, REVISITED, scoring, grid).save(tmp_path / name)
        assert results["precision"] == "fp32"
        assert json.loads((tmp_path / name / "results.json").read_text())["precision"] == "fp32"
        with np.load(tmp_path / name / "scores.npz") as run:
            assert json.loads(str(run["meta"]))["about"]["precision"] == "fp32"
            found[name] = run["logits"]
    np.testing.assert_array_equal(found[precision], found["fp32"])
    assert len(lines(caplog)) == 1


@pytest.mark.parametrize("autocast", ["bf16", "fp16"])
def test_extraction(imitated, caplog, autocast):
    assert check_autocast(ExtractionConfig(autocast=autocast)) == ExtractionConfig()
    assert lines(caplog)[0].startswith(f"autocast {autocast}: this processor reaches 0.3 billion")


@pytest.mark.parametrize("autocast", ["bf16", "fp16"])
def test_training(imitated, tmp_path, caplog, autocast):
    store = write_store(tmp_path / "store")
    recipe, found = dataclasses.replace(RECIPE, epochs=1), []
    for name, kind in (("asked", autocast), ("plain", None)):
        model, out = made(), tmp_path / f"{name}.pt"
        kept = Checkpoints(tmp_path / name, every=1)
        fit(model, loader(store), dataclasses.replace(recipe, autocast=kind), out=out, checkpoints=kept)
        state = torch.load(max((tmp_path / name).glob("state-*.pt")), weights_only=True)
        assert json.loads(state["settings"])["recipe"]["autocast"] is None
        assert read_weights(out).about.get("autocast") is None
        found.append(weights(model))
    assert same(*found)
    assert len(lines(caplog)) == 1
    assert lines(caplog)[0].startswith(f"autocast={autocast}: this processor")


def test_a_format_that_is_computed_in_is_recorded(tmp_path):
    store = write_store(tmp_path / "store")
    fit(made(), loader(store), dataclasses.replace(RECIPE, epochs=1, autocast="bf16"), out=tmp_path / "a.pt")
    assert read_weights(tmp_path / "a.pt").about["autocast"] == "bf16"
    assert ComputeConfig(precision="bf16").precision == "bf16"
    assert check_autocast(ExtractionConfig(autocast="fp16")).autocast == "fp16"
