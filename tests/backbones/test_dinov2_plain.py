"""DINOv2 without registers against transformers' model, and training checkpoints of DINOv2's code."""

import math
import re

import numpy as np
import pytest
import torch
import transformers

from ames.backbones import make_backbone
from ames.backbones.dinov2 import DinoV2, DinoV2Plain, interpolated
from ames.errors import AmesError
from ames.inspection.convert import convert
from ames.inspection.inspect import inspect
from ames.weights.files import read_weights
from golden import backbones as golden

SIZES = {
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "patch_size": 14,
    "image_size": 70,
}


def tiny(**changes):
    return transformers.Dinov2Config(**SIZES | changes)


def with_registers():
    return transformers.Dinov2WithRegistersConfig(**SIZES)


def released(seed=1, registers=0, **changes):
    """Tensors of a released file; without registers, such files lack their tensor."""
    state = golden.state(golden.dinov2(layers=4, registers=max(registers, 1), **changes), seed)
    return state if registers else {name: x for name, x in state.items() if name != "register_tokens"}


def saved(path, content):
    torch.save(content, path)
    return path


def kernel(distance):
    """The cubic convolution kernel (Keys 1981), A = -0.75."""
    x, a = abs(distance), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def naive(positions, grid, offset=0.1):
    """Positions of another grid, one cell after the other, in float64."""
    side = math.isqrt(positions.shape[1] - 1)
    cells = positions[0, 1:].double().numpy().reshape(side, side, -1)
    found = np.zeros((*grid, cells.shape[2]))
    for i, j in np.ndindex(*grid):
        y, x = ((k + 0.5) * side / (n + offset) - 0.5 for k, n in zip((i, j), grid, strict=True))
        for dy in range(-1, 3):
            for dx in range(-1, 3):
                row, col = math.floor(y) + dy, math.floor(x) + dx
                cell = cells[np.clip(row, 0, side - 1), np.clip(col, 0, side - 1)]
                found[i, j] += kernel(y - row) * kernel(x - col) * cell
    rest = torch.from_numpy(found.reshape(1, -1, cells.shape[2])).float()
    return torch.cat([positions[:, :1], rest], dim=1)


def twin_of(network, monkeypatch, offset=0.1):
    """transformers' own forward pass, with positions of the naive interpolation."""
    twin = transformers.Dinov2Model(network.network.config).eval()
    twin.load_state_dict(network.network.state_dict())
    table = twin.embeddings.position_embeddings
    monkeypatch.setattr(
        twin.embeddings,
        "interpolate_pos_encoding",
        lambda x, height, width: naive(table, (height // 14, width // 14), offset),
    )
    return twin


# ---- without registers ------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(70, 70), (42, 98), (140, 28), (14, 280)])
def test_as_transformers_with_the_released_positions(tmp_path, monkeypatch, height, width):
    file = saved(tmp_path / "dinov2_vitt14_pretrain.pth", released())
    network = DinoV2Plain("dinov2-b-noreg", weights=file, config=tiny(), attention=True)
    twin = twin_of(network, monkeypatch)
    x = golden.image(3, height, width)
    local, vector, weight = network.maps(x)
    if height == width:
        monkeypatch.undo()  # the grid of the file: its positions are taken as they are
    expected = twin(x)
    assert local.shape == (1, 48, height // 14, width // 14)
    torch.testing.assert_close(local.flatten(2).mT, expected.last_hidden_state[:, 1:], atol=1e-4, rtol=0)
    torch.testing.assert_close(vector, expected.last_hidden_state[:, 0], atol=1e-4, rtol=0)
    twin.set_attn_implementation("eager")
    attention = twin(x, output_attentions=True).attentions[-1].mean(1)[:, 0, 1:]
    torch.testing.assert_close(weight.flatten(1), attention)
    assert network.provenance()["backbone"] == "dinov2-b-noreg"


def test_positions_of_other_grids():
    positions = golden.state({"pos_embed": (1, 26, 8)}, 5)["pos_embed"]
    assert interpolated(positions, (5, 5)) is positions
    for grid in ((3, 7), (10, 2), (1, 20), (16, 16)):
        torch.testing.assert_close(interpolated(positions, grid), naive(positions, grid), atol=1e-5, rtol=0)
    with_offset, without = interpolated(positions, (3, 7)), interpolated(positions, (3, 7), 0.0)
    assert float((with_offset - without).abs().max()) > 0.01  # what transformers leaves out
    torch.testing.assert_close(without, naive(positions, (3, 7), 0.0), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_folder_of_the_hub(tmp_path):
    file = saved(tmp_path / "x.pth", released())
    network = DinoV2Plain("dinov2-s-noreg", weights=file, config=tiny())
    network.network.save_pretrained(tmp_path / "hf")
    again = DinoV2Plain("dinov2-s-noreg", weights=tmp_path / "hf", config=tiny())
    x = golden.image(5, 28, 56)
    assert torch.equal(again.maps(x).local, network.maps(x).local)
    with pytest.raises(AmesError, match="a model of type dinov2, expected dinov2_with_registers"):
        DinoV2("dinov2", weights=tmp_path / "hf", config=with_registers())


def test_by_name():
    network = make_backbone("dinov2-s-noreg", weights=None, attention=True, seed=2)
    with torch.no_grad():
        local, vector, weight = network.maps(torch.zeros(1, 3, 28, 42))
    assert (local.shape, vector.shape, weight.shape) == ((1, 384, 2, 3), (1, 384), (1, 2, 3))


def test_registers_or_none(tmp_path):
    plain, other = saved(tmp_path / "a.pth", released()), saved(tmp_path / "b.pth", released(registers=4))
    with pytest.raises(AmesError, match="it has no register tokens: take a backbone -noreg"):
        DinoV2("dinov2", weights=plain, config=with_registers())
    with pytest.raises(AmesError, match="it has register tokens: take one without -noreg"):
        DinoV2Plain("dinov2-b-noreg", weights=other, config=tiny())


# ---- training checkpoints ---------------------------------------------------------------------------


def trained(state, chunks=2):
    """The same network as the training code writes it: chunked blocks below "backbone.", heads beside."""

    def chunked(name):
        number = re.match(r"blocks\.(\d+)\.", name)
        return f"blocks.{int(number[1]) * chunks // 4}.{name.removeprefix('blocks.')}" if number else name

    made = {f"backbone.{chunked(name)}": x for name, x in state.items()}
    return made | {"dino_head.mlp.0.weight": torch.ones(3, 48), "ibot_head.last_layer.weight": torch.ones(3)}


@torch.no_grad()
@pytest.mark.parametrize("registers", [0, 4])
def test_a_training_checkpoint(tmp_path, registers, caplog):
    state = released(registers=registers)
    kind, name, config = (
        (DinoV2, "dinov2", with_registers()) if registers else (DinoV2Plain, "dinov2-b-noreg", tiny())
    )
    expected = kind(name, weights=saved(tmp_path / "released.pth", state), config=config)
    x = golden.image(6, 42, 98)
    for key in ("teacher", "student"):
        network = kind(name, weights=saved(tmp_path / f"{key}.pth", {key: trained(state)}), config=config)
        assert torch.equal(network.maps(x).local, expected.maps(x).local)
    assert "teacher.pth: 2 tensors outside of backbone (heads) are left out" in caplog.text
    both = saved(tmp_path / "both.pth", {"student": trained(released(9)), "teacher": trained(state)})
    assert torch.equal(kind(name, weights=both, config=config).maps(x).local, expected.maps(x).local)
    assert "both.pth: holds a teacher and a student: the teacher is read" in caplog.text


@torch.no_grad()
@pytest.mark.parametrize("side", [4, 16])
def test_positions_of_a_training_grid(tmp_path, side, monkeypatch):
    file = saved(tmp_path / "t.pth", {"teacher": trained(released(positions=side * side + 1))})
    config = tiny()
    network = DinoV2Plain("dinov2-b-noreg", weights=file, config=config)
    assert config.image_size == 70  # the caller's configuration is left alone
    x = golden.image(7, 42, 98)
    found, expected = network.maps(x).local, twin_of(network, monkeypatch)(x).last_hidden_state[:, 1:]
    torch.testing.assert_close(found.flatten(2).mT, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_patches_of_a_training(tmp_path, caplog):
    file = saved(tmp_path / "p.pth", {"teacher": trained(released(patch=16, positions=197))})
    network = DinoV2Plain("dinov2-b-noreg", weights=file, config=tiny())
    assert (network.multiple, network.maps(golden.image(8, 32, 48)).local.shape[2:]) == (16, (2, 3))
    assert "p.pth: patches of 16 pixels, not 14" in caplog.text


def test_a_swiglu_network(tmp_path):
    config = tiny(use_swiglu_ffn=True, num_hidden_layers=1)
    shapes = golden.dinov2(layers=1)
    shapes = {name: x for name, x in shapes.items() if "fc" not in name and name != "register_tokens"}
    shapes |= golden.layer("blocks.0.mlp.w12", 256, 48) | golden.layer("blocks.0.mlp.w3", 48, 128)
    file = saved(tmp_path / "g.pth", golden.state(shapes, 9))
    assert DinoV2Plain("dinov2-g-noreg", weights=file, config=config).local_dim == 48
    assert inspect(file)["feed_forward"] == "SwiGLU"


def test_described_and_converted(tmp_path):
    file = saved(tmp_path / "teacher_checkpoint.pth", {"teacher": trained(released(positions=17))})
    about = {"width": 48, "blocks": 4, "patch": 14, "positions": "4 x 4", "registers": 0}
    found = inspect(file)
    assert {key: found[key] for key in about} == about
    assert found["kind"] == "DINOv2 network"
    target, what = convert(file)
    assert what == "weights, 63 tensors"
    again = read_weights(target).state
    assert all(torch.equal(x, again[name]) for name, x in released(positions=17).items())


def test_names_that_meet(tmp_path):
    state = trained(released()) | {"backbone.blocks.1.0.norm1.weight": torch.ones(48)}
    file = saved(tmp_path / "t.pth", {"teacher": state})
    with pytest.raises(AmesError, match=r"t\.pth: holds two tensors blocks\.0\.norm1\.weight"):
        DinoV2Plain("dinov2-b-noreg", weights=file, config=tiny())
