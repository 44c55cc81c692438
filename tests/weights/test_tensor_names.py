"""Checkpoints as training loops leave them: the model's tensors behind prefixes that are not the model's."""

import logging
import os
from itertools import count

import pytest
import torch
from safetensors.torch import save_file
from torch.optim.swa_utils import AveragedModel

from ames.backbones.detector import read_detector
from ames.errors import AmesError
from ames.inspection.inspect import inspect
from ames.models.ames import AMES
from ames.models.checkpoints import load_model
from ames.models.layers.binarization import read_itq
from ames.weights.files import read_weights
from ames.weights.tensor_names import plain_names

PREFIXES = [
    "module.",
    "_orig_mod.",
    "model.",
    "encoder_q.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.module.",
]


def model():
    torch.manual_seed(0)
    return AMES(local_dim=12, model_dim=16, num_encoder_layers=2, dim_feedforward=24)


def behind(prefix, state):
    return {prefix + name: x for name, x in state.items()}


def same(found, expected):
    assert list(found) == list(expected)
    assert all(torch.equal(x, expected[name]) for name, x in found.items())


def lines(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("name", ["a.pt", "plain.pt", "a.safetensors"])
def test_every_prefix_in_every_kind_of_file(tmp_path, caplog, prefix, name):
    state, path = model().state_dict(), tmp_path / name
    if path.suffix == ".safetensors":
        save_file(behind(prefix, state), path)
    else:
        wrapped = behind(prefix, state)
        torch.save(wrapped if name == "plain.pt" else {"state": wrapped, "epoch": 3}, path)
    for _ in range(2):
        same(load_model(path).state_dict(), state)
    (said,) = lines(caplog)
    assert said.startswith(f"{path}: names of tensors are read without ")
    assert all(part + "." in said for part in prefix.split(".") if part)
    found = inspect(path)
    assert (found["kind"], found["model"]["model_dim"]) == ("checkpoint of AMES", 16)


def test_what_torch_s_wrappers_write(tmp_path, caplog):
    plain = model()
    compiled = model()
    compiled.decoder = torch.compile(compiled.decoder)  # not run: its names alone matter
    wrapped = {
        "parallel": torch.nn.DataParallel(model()),
        "compiled": torch.compile(model()),
        "part": compiled,
        "averaged": AveragedModel(model()),
        "several": torch.nn.DataParallel(torch.compile(model())),
    }
    for name, module in wrapped.items():
        state = module.state_dict()
        assert set(state) != set(plain.state_dict())
        torch.save({"state_dict": state}, tmp_path / f"{name}.pt")
        same(load_model(tmp_path / f"{name}.pt").state_dict(), plain.state_dict())
    assert len(lines(caplog)) == len(wrapped)


def test_sound_files_are_read_in_silence(tmp_path, caplog):
    torch.save({"state": model().state_dict()}, tmp_path / "a.pt")
    load_model(tmp_path / "a.pt")
    assert lines(caplog) == []


def test_detectors_and_projections(tmp_path):
    sizes = {
        "conv1.weight": (6, 6, 1, 1),
        "conv1.bias": (6,),
        "conv2.weight": (1, 6, 1, 1),
        "conv2.bias": (1,),
    }
    sizes |= {f"bn.{name}": (6,) for name in ("weight", "bias", "running_mean", "running_var")}
    state = {name: torch.rand(size) for name, size in sizes.items()}
    torch.save({"state": behind("module.", state)}, tmp_path / "d.pt")
    assert all(torch.equal(x, state[name]) for name, x in read_detector(tmp_path / "d.pt").items())
    assert inspect(tmp_path / "d.pt")["kind"] == "feature detector"
    torch.save({"module.W": torch.ones(24, 16)}, tmp_path / "itq.pt")
    assert torch.equal(read_itq(tmp_path / "itq.pt"), torch.ones(24, 16))
    assert inspect(tmp_path / "itq.pt")["kind"] == "ITQ projection"


@pytest.mark.parametrize(
    ("names", "clash"),
    [
        (["a", "module.a"], "holds both a and module.a"),
        (["module.a", "module.module.a"], "holds both module.a and module.module.a"),
        (["b", "decoder.a", "decoder._orig_mod.a"], "holds both decoder.a and decoder._orig_mod.a"),
        (["b", "a", "model.a", "module.c"], "holds both a and model.a"),
    ],
)
def test_two_tensors_of_one_name(tmp_path, names, clash):
    path = tmp_path / "a.pt"
    torch.save({name: torch.zeros(1) for name in names}, path)
    with pytest.raises(AmesError, match=clash) as error:
        read_weights(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "names",
    [
        ["module.a", "b"],
        ["a", "b.module.c"],
        ["module.", "module.a"],
        ["n_averaged", "a"],
        ["modulea", "module_a"],
        ["module.encoder_q.a", "queue"],
    ],
)
def test_names_that_stay(names):
    number = count()
    state = {name: next(number) for name in names}
    assert plain_names(state, source="x") == (state, ())


def test_prefixes_of_some_inside_one_of_all():
    found, taken = plain_names(
        {"module.encoder_q.a": 1, "module.encoder_k.a": 2, "module.queue": 3}, source="x"
    )
    assert found == {"encoder_q.a": 1, "encoder_k.a": 2, "queue": 3}
    assert taken == ("module.",)


def test_the_released_models(tmp_path, monkeypatch):
    from ames.models.load import build_model, load_model
    from ames.weights import released

    state = build_model("cvnet_ames").state_dict()
    path = tmp_path / "cvnet_ames.pt"
    torch.save({"state": behind("module.", state)}, path)
    monkeypatch.setattr(released, "download", lambda *_: os.path.getsize(path))
    same(load_model("cvnet_ames", folder=tmp_path).state_dict(), state)
