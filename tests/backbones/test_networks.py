"""Networks by name, and weights that cannot be used: one line each, nothing executed, nothing fetched."""

import json
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from ames.backbones import NAMES, NETWORKS, make_backbone, pretrained
from ames.backbones.dinov2 import DinoV2
from ames.errors import AmesError

WIDTHS = {
    "dinov2": 768,
    "dinov2-s": 384,
    "dinov2-l": 1024,
    "dinov2-g": 1536,
    "dinov2-b-noreg": 768,
    "dinov2-s-noreg": 384,
    "dinov2-l-noreg": 1024,
    "dinov2-g-noreg": 1536,
    "dinov3-s": 384,
    "dinov3-b": 768,
    "dinov3-l": 1024,
    "siglip2-b": 768,
    "siglip2-so400m": 1152,
}
# Networks of which ``transformers`` knows nothing; their tests are test_keypoints.py and others.
LOCAL = ("xfeat", "aliked", "aliked-t16", "aliked-n32", "disk", "efficientnet-lite0", "efficientnet-lite2")


def tiny():
    return transformers.Dinov2WithRegistersConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, patch_size=14, image_size=28
    )


def made(weights):
    return DinoV2("dinov2", weights=weights, config=tiny())


@pytest.fixture
def folder(tmp_path):
    made(None).network.save_pretrained(tmp_path / "hf")
    return tmp_path / "hf"


def fails(message, weights):
    with pytest.raises(AmesError, match=message) as caught:
        made(weights)
    assert "\n" not in str(caught.value)


# ---- the table ------------------------------------------------------------------------------------


def test_the_table_has_the_published_networks():
    assert set(NETWORKS) == {*WIDTHS, "cvnet", "cvnet-r50", *LOCAL}
    assert ("rootsift", *NETWORKS) == NAMES
    for name, width in WIDTHS.items():
        config = getattr(transformers, NETWORKS[name]._config)(**NETWORKS[name].SIZES[name].config)
        assert config.hidden_size == width
        assert width % config.num_attention_heads == 0


def test_a_published_network_by_name():
    network = make_backbone("dinov2-s", weights=None, attention=True, seed=2)
    assert (network.name, network.local_dim, network.global_dim) == ("dinov2-s", 384, 384)
    with torch.no_grad():
        local, vector, weight = network.maps(torch.zeros(1, 3, 28, 42))
    assert (local.shape, vector.shape, weight.shape) == ((1, 384, 2, 3), (1, 384), (1, 2, 3))
    assert network.provenance()["weights"] == "random seed 2"


def test_names_and_options_that_there_are_not():
    with pytest.raises(AmesError, match="backbone 'dino' is none of: rootsift, dinov2, dinov2-s"):
        make_backbone("dino")
    with pytest.raises(AmesError, match="rootsift has no weights to choose"):
        make_backbone("rootsift", weights=None)
    with pytest.raises(AmesError, match="cvnet has no attention of its own"):
        make_backbone("cvnet", weights=None, attention=True)
    with pytest.raises(AmesError, match="DinoV2 'x' is none of: dinov2"):
        DinoV2("x", weights=None)


def test_the_package_does_not_load_transformers():
    code = "import sys, ames, ames.backbones; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    for name in ("dinov2", "cvnet", "siglip2-b"):
        with pytest.raises(
            AmesError, match=r"needs transformers.*: pip install 'ames-retrieval\[extract\]'$"
        ):
            make_backbone(name, weights=None)


# ---- folders and the hub --------------------------------------------------------------------------


def test_a_folder_in_several_files(folder):
    whole = made(folder).network.state_dict()
    state = load_file(folder / "model.safetensors")
    names = sorted(state)
    (folder / "model.safetensors").unlink()
    for number, part in enumerate((names[:9], names[9:]), 1):
        save_file({name: state[name] for name in part}, folder / f"model-0000{number}-of-00002.safetensors")
    parted = made(folder)
    assert all(torch.equal(x, whole[name]) for name, x in parted.network.state_dict().items())
    assert parted.weights.startswith("2 safetensors sha256 ")


def test_folders_that_do_not_fit(folder):
    state = load_file(folder / "model.safetensors")
    name = "layernorm.bias"
    for changed, message in (
        ({k: x for k, x in state.items() if k != name}, f"it lacks {name}"),
        (state | {name: torch.zeros(7)}, f"{name} has another shape than this model's"),
        (state | {"head.weight": torch.zeros(7)}, "head.weight has no place in this one"),
    ):
        save_file(changed, folder / "model.safetensors")
        fails(f"hf: weights of another model: {message}", folder)
    for kind in (torch.int8, torch.complex64):
        save_file(state | {name: state[name].to(kind)}, folder / "model.safetensors")
        fails(f"hf: {name} holds {str(kind)[6:]}; weights of floating-point", folder)
    (folder / "model.safetensors").write_bytes(b"nothing of the kind")
    fails("model.safetensors: not a readable safetensors file", folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    fails("hf: no model.safetensors in it", folder)
    (folder / "config.json").write_text("{")
    fails(r"config\.json: not a readable configuration", folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    fails("hf: a model of type siglip, expected dinov2_with_registers", folder)
    (folder / "config.json").unlink()
    fails("hf: no config.json in it", folder)


def test_names_of_the_hub(folder, monkeypatch):
    asked = []

    def fetch(name, **options):
        assert "local_files_only" not in options
        asked.append(name)
        return str(folder)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, name, **options: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert made("someone/some-model").weights == pretrained.fingerprint(folder)
    made(pretrained.PUBLISHED)
    assert asked == ["someone/some-model", "facebook/dinov2-with-registers-base"]


def test_no_network(folder, monkeypatch):
    def fail(self, name, **options):
        assert 0 < options["timeout"] <= 10  # without one, a network that swallows packets is waited for
        raise OSError("no route to the hub\nand a page of advice")

    def not_there(name, **options):
        assert options["local_files_only"]
        raise FileNotFoundError("nothing in the cache")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", not_there)
    fails(r"someone/model: cannot be fetched from the hub \(no route to the hub\); fetch it", "someone/model")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **options: str(folder))
    assert made("someone/model").weights == pretrained.fingerprint(folder)  # what the cache holds will do


def test_places_where_there_is_nothing(tmp_path):
    message = "no such file or folder of weights, nor a name of the hub"
    for weights in (tmp_path / "missing", "weights/x.pth", "./weights/x", "dinov2.pth"):
        fails(message, weights)


@pytest.mark.parametrize("setting", [{"hidden_act": "nothing"}, {"patch_size": 0}, {"image_size": 10**7}])
def test_settings_of_a_folder_that_make_no_network(folder, setting):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | setting))
    fails("hf: its settings make no network here ", folder)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precisions_become_float32(folder, kind):
    state = load_file(folder / "model.safetensors")
    save_file({name: x.to(kind) for name, x in state.items()}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": str(kind)[6:]}))
    assert {x.dtype for x in made(folder).network.state_dict().values()} == {torch.float32}


# ---- files ----------------------------------------------------------------------------------------


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_files_that_are_no_weights(tmp_path):
    trap, path = tmp_path / "sprung", tmp_path / "x.pth"
    torch.save({"cls_token": Trap(trap)}, path)
    fails(r"x\.pth: holds more than weights", path)
    assert not trap.exists()
    path.write_bytes(b"PK\x03\x04 but no archive")
    fails(r"x\.pth: not a checkpoint, or a damaged one", path)
    path.write_bytes(b"hello")  # stops the unpickler by a bare KeyError(101)
    fails(r"x\.pth: not a checkpoint, or a damaged one$", path)
    torch.save([1, 2], path)
    fails(r"x\.pth: holds a list, not a checkpoint", path)
    torch.save({"model_state": {1: torch.zeros(2)}}, tmp_path / "numbered.pth")
    with pytest.raises(AmesError, match=r"numbered\.pth: no weights in it"):
        make_backbone("cvnet-r50", weights=tmp_path / "numbered.pth")
    with pytest.raises(AmesError, match=r"x\.pth: holds a list"):
        make_backbone("cvnet-r50", weights=path)
