"""Weights on disk: round trips, published files, and one line for everything that can be wrong."""

import os
import pickle
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ames.backbones.detector import read_detector
from ames.errors import AmesError
from ames.inspection.convert import convert
from ames.inspection.inspect import inspect
from ames.models import registry
from ames.models.ames import AMES
from ames.models.chamfer import Chamfer
from ames.models.checkpoints import load_model, read_arguments, save_checkpoint, save_weights
from ames.models.layers.binarization import read_itq
from ames.weights import files
from ames.weights.files import load_state, read_weights
from golden import rebuild

TINY = {"local_dim": 12, "model_dim": 16, "num_encoder_layers": 2, "dim_feedforward": 24}
OTHER = {
    **TINY,
    "nhead": 4,
    "activation": "gelu",
    "normalize_before": True,
    "binarized": True,
    "init": "matching",
}


def made(**changes):
    torch.manual_seed(0)
    return AMES(**TINY | changes)


def assert_same_weights(a, b):
    assert list(a) == list(b)
    for name, x in a.items():
        assert torch.equal(x, b[name]), name


def one_line(error, path):
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


# ---- round trips ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model_arguments", [TINY, OTHER], ids=["defaults", "everything else"])
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_file_rebuilds_its_model(tmp_path, name, model_arguments):
    torch.manual_seed(0)
    model = AMES(**model_arguments)
    save = save_checkpoint if name.endswith(".pt") else save_weights
    save(tmp_path / name, model, provenance={"backbone": "rootsift"})
    again = load_model(tmp_path / name)
    assert again.arguments == model.arguments
    assert read_weights(tmp_path / name).about["class"] == "AMES"
    assert_same_weights(again.state_dict(), model.state_dict())
    assert not again.training
    assert read_weights(tmp_path / name).about["backbone"] == "rootsift"
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_arguments_are_those_of_the_constructor():
    assert AMES(**OTHER).arguments == OTHER
    assert Chamfer(symmetric=True).arguments == {"local_dim": None, "symmetric": True}


def test_half_rounds_matrices_and_nothing_else(tmp_path):
    model = made()
    save_weights(tmp_path / "full.safetensors", model)
    save_weights(tmp_path / "half.safetensors", model, half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.75 * (
        tmp_path / "full.safetensors"
    ).stat().st_size
    found = read_weights(tmp_path / "half.safetensors").state
    for name, x in model.state_dict().items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], x.half().float() if x.ndim == 2 else x), name


def test_a_training_checkpoint_holds_the_optimizer_and_the_epoch(tmp_path):
    model = made()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.125)
    model.classifier(torch.ones(1, 16)).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path / "a.pt", model, optimizer=optimizer, epoch=7)
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    assert list(content)[:3] == ["state", "optim", "epoch"]
    assert content["epoch"] == 7
    assert content["optim"]["param_groups"][0]["lr"] == 0.125
    assert len(content["optim"]["state"]) == 2


@pytest.mark.parametrize("wrapped", [True, False], ids=["published", "plain state dict"])
@pytest.mark.parametrize("normalize_before", [False, True])
@pytest.mark.parametrize("binarized", [False, True])
def test_files_without_a_description_are_read_off_their_tensors(
    tmp_path, wrapped, normalize_before, binarized
):
    wanted = TINY | {"binarized": binarized, "normalize_before": normalize_before}
    state = rebuild.state(rebuild.shapes(**wanted), 3)
    path = tmp_path / "dinov2_ames.pt"
    torch.save({"state": state, "optim": {}, "epoch": 0} if wrapped else state, path)
    assert read_weights(path).about == {}
    assert read_arguments(state) == wanted
    model = load_model(path)
    assert not model.training
    assert model.arguments == wanted | {"nhead": 2, "activation": "relu", "init": "paper"}
    assert_same_weights({name: state[name] for name in model.state_dict()}, model.state_dict())
    assert load_model(path, nhead=4, activation="gelu").arguments["nhead"] == 4  # what no tensor shows
    with pytest.raises(AmesError, match="its local_dim is 12, not 768"):
        load_model(path, local_dim=768)


@pytest.mark.parametrize("case", rebuild.cases("forward.json")[:2], ids=lambda case: str(case["local_dim"]))
def test_the_arguments_of_golden_checkpoints_are_found(tmp_path, case):
    wanted = rebuild.arguments(case)
    path = tmp_path / "dinov2_ames.pt"
    torch.save(
        {"state": rebuild.state(rebuild.shapes(**wanted), case["seed"]), "optim": {}, "epoch": 0}, path
    )
    found = load_model(path, nhead=wanted["nhead"], activation=wanted["activation"]).arguments
    assert found == wanted | {"init": "paper"}


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"class": "LoCoRe", "model": {}}, "class 'LoCoRe' is none of AMES, ELViS, RRT, Locore, Chamfer"),
        ({"class": ["AMES"], "model": {}}, r"class \['AMES'\] is none of"),
        ({"model": [1]}, "describes a model that cannot be built"),
        ({"model": TINY | {"width": 3}}, "describes a model that cannot be built .*width"),
        ({"model": TINY | {"init": "magic"}}, "describes a model that cannot be built .*magic"),
        ({"model": TINY | {"model_dim": 8}}, r"mtc_token is \(16,\), this model's is \(8,\)"),
    ],
)
def test_a_description_that_does_not_fit(tmp_path, about, message):
    path = tmp_path / "model.pt"
    files.save_content(path, {"state": made().state_dict()}, about)
    with pytest.raises(AmesError, match=message) as error:
        load_model(path)
    one_line(error, path)


def test_a_model_of_another_class_is_found_by_its_name(tmp_path, monkeypatch):
    """What a model of one's own needs: a file, and a line in the registry."""
    monkeypatch.setitem(registry.CLASSES, "Wide", __name__)
    save_weights(tmp_path / "wide.safetensors", Wide(local_dim=3, factor=2))
    found = load_model(tmp_path / "wide.safetensors")
    assert type(found) is Wide
    assert (found.arguments, found.scale.item()) == ({"local_dim": 3, "factor": 2}, 2)


class Wide(Chamfer):
    def __init__(self, *, local_dim, factor):
        super().__init__(local_dim=local_dim)
        self.arguments = {"local_dim": local_dim, "factor": factor}
        self.scale = torch.nn.Parameter(torch.tensor(float(factor)))


class Part(Wide):
    """Published inside a network, under other names than AMES'."""

    part = "matcher."

    @classmethod
    def arguments_of(cls, state):
        return {"local_dim": 3, "factor": 5} if set(state) == {"scale"} else None


@pytest.mark.parametrize("name", ["part.pt", "part.safetensors"])
def test_a_class_is_recognized_by_its_tensors(tmp_path, monkeypatch, caplog, name):
    monkeypatch.setitem(registry.CLASSES, "Part", __name__)
    own = {"scale": torch.tensor(7.0)}
    network = {"matcher.scale": own["scale"], "conv1.weight": torch.zeros(3), "fc.bias": torch.zeros(1)}
    save = (
        save_file if name.endswith("safetensors") else lambda state, path: torch.save({"state": state}, path)
    )
    for state, said in ((own, ""), (network, f"{name}: only its tensors matcher.* are read, not 2 others")):
        caplog.clear()
        save(state, tmp_path / name)
        found = load_model(tmp_path / name)
        assert type(found) is Part
        assert (found.arguments["factor"], found.scale.item()) == (5, 7)
        assert caplog.text.count(said or "only") == bool(said)
        assert inspect(tmp_path / name)["kind"] == "checkpoint of Part"
    with pytest.raises(AmesError, match="its factor is 5, not 2"):
        load_model(tmp_path / name, factor=2)
    if name.endswith(".pt"):
        described, _ = convert(tmp_path / name, tmp_path / "described.safetensors")
        assert list(read_weights(described).state) == ["scale"]
        assert load_model(described).arguments == {"local_dim": 3, "factor": 5}


def test_ames_is_the_default_among_classes(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.CLASSES, "Part", __name__)
    torch.save({"state": made().state_dict()}, tmp_path / "x.pt")
    assert type(load_model(tmp_path / "x.pt")) is AMES
    torch.save({"state": {"matcher.other": torch.zeros(1)}}, tmp_path / "x.pt")
    with pytest.raises(AmesError, match="no weights of a known model"):
        load_model(tmp_path / "x.pt")


def test_what_is_no_ames(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"state": {"conv1.weight": torch.zeros(3)}}, path)
    with pytest.raises(AmesError, match="no weights of a known model"):
        load_model(path)
    torch.save({"state": made().state_dict() | {"mtc_token": torch.zeros(2, 2)}}, path)
    with pytest.raises(AmesError, match=r"no weights of AMES: mtc_token is \(2, 2\)"):
        load_model(path)


@pytest.mark.parametrize("core", [b"numpy._core.multiarray", b"numpy.core.multiarray"])
def test_an_optimizer_may_hold_numpy_s_numbers(tmp_path, core):
    path = tmp_path / "model.pt"
    optim = {"lr": np.float64(0.5), "step": np.int64(3), "eps": np.float32(1e-8), "flag": np.bool_(True)}
    state = made().state_dict()
    torch.save({"state": state, "optim": optim, "epoch": 3}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", core))  # numpy 2 and 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same_weights(read_weights(path).state, state)
        load_model(path)


# ---- detectors, binary projections ------------------------------------------------------------------


def detector(width=6):
    sizes = {"conv1.weight": (width, width, 1, 1), "conv1.bias": (width,)}
    sizes |= {f"bn.{name}": (width,) for name in ("weight", "bias", "running_mean", "running_var")}
    sizes |= {"conv2.weight": (1, width, 1, 1), "conv2.bias": (1,)}
    return {name: torch.rand(size) for name, size in sizes.items()}


def test_a_detector(tmp_path):
    path, state = tmp_path / "dinov2_detector.pt", detector()
    torch.save({"state": state | {"bn.num_batches_tracked": torch.tensor(7)}}, path)
    assert_same_weights(read_detector(path), state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("conv1.weight"), "it lacks conv1.weight"),
        (lambda s: s.pop("bn.running_var"), "it lacks bn.running_var"),
        (
            lambda s: s.update({"conv2.weight": torch.zeros(1, 9, 1, 1)}),
            r"conv2.weight is \(1, 9, 1, 1\), this model's is \(1, 6, 1, 1\)",
        ),
        (lambda s: s.update({"conv1.weight": torch.zeros(6, 6)}), r"conv1.weight is \(6, 6\), this model's"),
        (lambda s: s.update({"conv3.bias": torch.zeros(1)}), r"conv3.bias \(1,\) has no place in this one"),
    ],
)
def test_what_is_no_detector(tmp_path, change, message):
    path, state = tmp_path / "x.pt", detector()
    change(state)
    torch.save({"state": state}, path)
    with pytest.raises(AmesError, match="not a feature detector: " + message) as error:
        read_detector(path)
    one_line(error, path)


def test_a_binary_projection(tmp_path):
    W = torch.randn(24, 16)
    torch.save({"W": W}, tmp_path / "itq_dinov2_D128.pt")
    np.savez(tmp_path / "itq.npz", proj=W.numpy())
    for name in ("itq_dinov2_D128.pt", "itq.npz"):
        assert torch.equal(read_itq(tmp_path / name), W)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"V": torch.zeros(24, 16)}, "it has no tensor W"),
        ({"W": torch.zeros(16, 24)}, r"W is \(16, 24\), expected"),
        ({"W": torch.zeros(24, 12)}, r"W is \(24, 12\), expected"),
        ({"W": torch.zeros(24)}, r"W is \(24,\), expected"),
    ],
)
def test_what_is_no_binary_projection(tmp_path, content, message):
    path = tmp_path / "itq.pt"
    torch.save(content, path)
    with pytest.raises(AmesError, match="no ITQ projection: " + message) as error:
        read_itq(path)
    one_line(error, path)


def test_an_archive_that_is_no_binary_projection(tmp_path):
    path = tmp_path / "itq.npz"
    with pytest.raises(AmesError, match="no such file"):
        read_itq(path)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(AmesError, match="it has no array proj"):
        read_itq(path)
    np.savez(path, proj=np.zeros((3, 3), object))
    with pytest.raises(AmesError, match=r"not a readable .npz file"):
        read_itq(path)
    np.savez(path, proj=np.zeros((32, 16), np.int64))
    with pytest.raises(AmesError, match="proj holds int64"):
        read_itq(path)


# ---- weights of another model ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"local_dim": 20}, "its local_dim is 12, not 20"),
        ({"model_dim": 8}, "its model_dim is 16, not 8"),
        ({"nhead": 4}, "its nhead is 2, not 4"),
        ({"num_encoder_layers": 3}, "its num_encoder_layers is 2, not 3"),
        ({"normalize_before": True}, "its normalize_before is False, not True"),
        ({"binarized": True, "local_dim": 12}, "its binarized is False, not True"),
        ({"dim_feedforward": 8}, "its dim_feedforward is 24, not 8"),
        ({"activation": "gelu"}, "its activation is 'relu', not 'gelu'"),
    ],
)
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_an_argument_that_contradicts_the_file_is_named(tmp_path, name, changes, message):
    save = save_checkpoint if name.endswith(".pt") else save_weights
    save(tmp_path / name, made())
    with pytest.raises(AmesError, match="weights of another model: .*" + message) as error:
        load_model(tmp_path / name, **changes)
    one_line(error, tmp_path / name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"local_dim": 20}, r"remap_local.0.weight is \(16, 12\), this model's is \(16, 20\)"),
        ({"model_dim": 8}, r"mtc_token is \(16,\), this model's is \(8,\)"),
        ({"num_encoder_layers": 3}, r"it lacks decoder.layers.2.self_attn.in_proj_weight \(48, 16\)"),
        ({"num_encoder_layers": 1}, r"decoder.layers.1.\w+.in_proj_\w+ \(48.*\) has no place"),
        ({"normalize_before": True}, r"it lacks decoder.norm.weight \(16,\)"),
        ({"binarized": True}, r"it lacks remap_local.0.W \(12, 16\)"),
        ({"dim_feedforward": 8}, r"linear1.weight is \(24, 16\), this model's is \(8, 16\)"),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(changes, message):
    with pytest.raises(AmesError, match="x.pt: weights of another model: .*" + message):
        load_state(made(**changes), made().state_dict(), source="x.pt")


def test_weights_that_do_not_fit_change_nothing():
    model = made()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    state = {name: x + 1 for name, x in before.items()} | {"surplus": torch.zeros(3)}
    with pytest.raises(AmesError, match=r"x.pt: .* surplus \(3,\) has no place in this one"):
        load_state(model, state, source="x.pt")
    assert_same_weights(model.state_dict(), before)


# ---- files that are no checkpoints ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_truncated_file(tmp_path, name):
    path = tmp_path / name
    (save_checkpoint if name.endswith(".pt") else save_weights)(path, made())
    whole = path.read_bytes()
    for size in (1, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(AmesError, match=r"damaged|not a readable") as error:
            read_weights(path)
        one_line(error, path)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello world\n",
        b"epoch,loss\n1,2\n",
        b"<!DOCTYPE html>",
        b"version https://git-lfs",
        b"\x80\x02",
        b"\xff" * 40,
    ],
)
def test_a_file_of_another_kind(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(AmesError, match=r"not a checkpoint|not a readable") as error:
        read_weights(path)
    assert "weights_only" not in one_line(error, path)  # no advice to execute the file


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(AmesError, match="no such checkpoint"):
            read_weights(path)


class Planted:
    """What a pickle can do: on loading it calls any function, here one that makes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("write", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x, protocol=2))])
@pytest.mark.parametrize("key", ["state", "optim"])
def test_a_pickle_that_would_execute_code_is_refused(tmp_path, write, key):
    mark, path = tmp_path / "executed", tmp_path / "model.pt"
    write({"state": {}} | {key: Planted(mark)}, path)
    with pytest.raises(AmesError, match=r"holds more than weights \(.*mkdir\), which is refused") as error:
        read_weights(path)
    assert "weights_only" not in one_line(error, path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Planted(mark)))
    assert mark.exists()  # it would have been


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, not a checkpoint"),
        (torch.zeros(3), "holds a Tensor, not a checkpoint"),
        ({}, "no weights in it"),
        ({"state": {}}, "no weights in it"),
        ({"state": 3}, "no weights in it"),
        ({"state": torch.zeros(2)}, "no weights in it"),
        ({"epoch": 3, "optim": {}}, "no weights in it"),
        ({"state": {"a": torch.zeros(1)}, "about": "{"}, "'about'.* is not a JSON object"),
        ({"state": {"a": torch.zeros(1)}, "about": "[1]"}, "'about'.* is not a JSON object"),
        ({"state": {"a": torch.zeros(1)}, "about": 3}, "'about'.* is not a JSON object"),
    ],
)
def test_a_checkpoint_of_other_content(tmp_path, content, message):
    path = tmp_path / "model.pt"
    torch.save(content, path)
    with pytest.raises(AmesError, match=message) as error:
        read_weights(path)
    one_line(error, path)


def test_a_safetensors_file_whose_description_is_broken(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"about": "not JSON"})
    with pytest.raises(AmesError, match=r"'about'.* is not a JSON object") as error:
        read_weights(path)
    one_line(error, path)


# ---- writing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [save_checkpoint, save_weights])
@pytest.mark.parametrize(
    "failure",
    [OSError(28, "No space left on device"), RuntimeError("[enforce fail at inline_container]\nmore")],
)
def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch, save, failure):
    path = tmp_path / "model"
    path.write_bytes(b"old")

    def half_written(content, temporary, *rest):
        with open(temporary, "wb") as file:
            file.write(b"half")
        raise failure

    monkeypatch.setattr(torch, "save", half_written)
    monkeypatch.setattr(files, "save_file", half_written)
    with pytest.raises(AmesError, match="cannot be written") as error:
        save(path, made())
    one_line(error, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "state",
    [
        {"seg_encoder.weight": (6,), "encoder.layers.0.linear1.weight": (8, 8)},
        {"seg_encoder.weight": (6, 8), "encoder.layers.0.linear1.weight": (), "remap.weight": (8,)},
        {"dust_bin": (), "dust_bin_mlp.0.weight": (8, 8), "f.0.weight": (), "g.0.weight": ()},
        {"dust_bin": (), "f.0.weight": (4, 1), "remap_local.0.weight": (8, 8)},
    ],
)
def test_names_of_a_known_model_on_odd_tensors(tmp_path, state):
    path = tmp_path / "model.pt"
    torch.save({"state": {name: torch.zeros(shape) for name, shape in state.items()}}, path)
    with pytest.raises(AmesError, match="no weights of a known model"):
        load_model(path)
