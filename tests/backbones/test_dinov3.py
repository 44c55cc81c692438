"""DINOv3 against transformers' own model, and a file as the authors lay theirs out."""

import pickle

import pytest
import torch
import transformers

from ames.backbones.dinov3 import DinoV3
from ames.errors import AmesError
from golden import backbones as golden

SIZES = [(64, 64), (32, 112), (112, 16)]


def tiny(**changes):
    settings = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_register_tokens": 4,
    }
    return transformers.DINOv3ViTConfig(**settings | changes)


def original():
    """A released file's names and shapes, drawn; keys have no bias, and the mask says so."""
    shapes = golden.dinov2(width=48, patch=16)
    shapes = {name: shape for name, shape in shapes.items() if name not in ("pos_embed", "register_tokens")}
    shapes |= {"storage_tokens": (1, 4, 48)}
    for block in ("blocks.0", "blocks.1"):
        shapes |= golden.layer(f"{block}.mlp.fc1", 96, 48) | golden.layer(f"{block}.mlp.fc2", 48, 96)
    state = golden.state(shapes, 6)
    mask = torch.cat([torch.ones(48), torch.zeros(48), torch.ones(48)])
    state |= {f"blocks.{i}.attn.qkv.bias_mask": mask.clone() for i in range(2)}
    state["rope_embed.periods"] = (100 ** (torch.arange(4) / 4)).bfloat16()
    return state


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("dinov3") / "dinov3_vitt16_pretrain.pth"
    torch.save(original(), path)
    return path


@pytest.fixture(scope="module")
def network(file):
    return DinoV3("dinov3-s", weights=file, config=tiny(), attention=True)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_maps_are_what_transformers_gives(network, height, width):
    x = torch.cat([golden.image(i, height, width) for i in range(2)])
    eager = transformers.DINOv3ViTModel(tiny(attn_implementation="eager"))
    eager.load_state_dict(network.network.state_dict())
    expected = eager.eval()(x, output_attentions=True)
    local, vector, weight = network.maps(x)
    rows, columns = height // 16, width // 16
    assert local.shape == (2, 48, rows, columns)
    for row, col in ((0, columns - 1), (rows - 1, 0)):
        token = expected.last_hidden_state[:, 5 + row * columns + col]
        torch.testing.assert_close(local[..., row, col], token, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(vector, expected.last_hidden_state[:, 0], rtol=1e-4, atol=1e-5)
    attention = expected.attentions[-1].mean(1)[:, 0, 5:]
    torch.testing.assert_close(weight.flatten(1), attention, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_a_file_of_the_authors_fills_the_network(network):
    state = original()
    block = network.network.state_dict()
    place = next(name for name in block if name.endswith("layer.1.attention.q_proj.weight"))
    prefix = place.removesuffix("q_proj.weight")
    q, _, v = state["blocks.1.attn.qkv.bias"].chunk(3)
    assert torch.equal(block[f"{prefix}q_proj.bias"], q)
    assert torch.equal(block[f"{prefix}v_proj.bias"], v)
    assert f"{prefix}k_proj.bias" not in block
    for part, x in zip("qkv", state["blocks.1.attn.qkv.weight"].chunk(3), strict=True):
        assert torch.equal(block[f"{prefix}{part}_proj.weight"], x)
    assert torch.equal(block["embeddings.mask_token"][0], state["mask_token"])


@torch.no_grad()
def test_a_folder_gives_what_the_file_gives(network, tmp_path):
    network.network.save_pretrained(tmp_path)
    again = pickle.loads(pickle.dumps(DinoV3("dinov3-s", weights=tmp_path, config=tiny())))
    x = golden.image(5, 32, 48)
    assert torch.equal(again.maps(x).local, network.maps(x).local)
    noted = again.provenance()
    assert (noted["backbone"], noted["long_side"], noted["multiple"]) == ("dinov3-s", 768, 16)


def test_centers_are_the_middles_of_patches(network):
    assert network.centers(2, 3, 32, 48)[1, 2].tolist() == [24, 40]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("rope_embed.periods", lambda x: 2 * x, r"rope_embed\.periods are others"),
        ("blocks.1.attn.qkv.bias_mask", torch.ones_like, "its keys have a bias"),
        ("storage_tokens", lambda x: x[:, :3], r"storage_tokens is \(1, 3, 48\)"),
    ],
)
def test_a_file_that_means_another_network(tmp_path, name, change, message):
    state = original()
    torch.save(state | {name: change(state[name])}, tmp_path / "x.pth")
    with pytest.raises(AmesError, match=f"x.pth: weights of another model: {message}"):
        DinoV3("dinov3-s", weights=tmp_path / "x.pth", config=tiny())
