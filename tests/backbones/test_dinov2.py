"""DINOv2 against the released code's figures; its weights in every form that users have them in."""

import pickle

import pytest
import torch
import transformers

from ames.backbones.dinov2 import DinoV2
from ames.backbones.dinov2_files import key_mappings
from ames.errors import AmesError
from golden import backbones as golden

FIGURES = golden.FIGURES["dinov2"]


def tiny(**changes):
    settings = {
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "patch_size": 14,
        "image_size": 70,
    }
    return transformers.Dinov2WithRegistersConfig(**settings | changes)


@pytest.fixture(scope="module")
def state():
    return golden.state(golden.dinov2(), FIGURES["seed"])


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    """A file as DINOv2's authors lay theirs out."""
    path = tmp_path_factory.mktemp("dinov2") / "dinov2_vitt14_reg4_pretrain.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def network(file):
    return DinoV2("dinov2", weights=file, config=tiny(), attention=True)


@torch.no_grad()
@pytest.mark.parametrize("case", FIGURES["cases"], ids=lambda case: f"{case['height']}x{case['width']}")
def test_the_released_codes_figures(network, case):
    height, width = case["height"], case["width"]
    local, vector, weight = network.maps(golden.image(FIGURES["seed"], height, width))
    assert local.shape == (1, 48, height // 14, width // 14)
    assert weight.shape == (1, height // 14, width // 14)
    found = {
        "cls_first8": vector[0, :8],
        "patch_first_first8": local[0, :8, 0, 0],
        "patch_last_first8": local[0, :8, -1, -1],
        "patch_norm": local.norm(),
    }
    for name, x in found.items():
        torch.testing.assert_close(x, torch.tensor(case[name]), atol=FIGURES["tolerance"], rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(70, 70), (42, 98), (140, 14), (14, 280)])
def test_weights_are_the_class_tokens_attention(network, height, width):
    x = golden.image(3, height, width).expand(2, -1, -1, -1) * torch.tensor([1.0, 0.5])[:, None, None, None]
    eager = transformers.Dinov2WithRegistersModel(
        tiny(attn_implementation="eager")
    )  # gives whole attention matrices
    eager.load_state_dict(network.network.state_dict())
    expected = eager.eval()(x, output_attentions=True).attentions[-1].mean(1)[:, 0, 5:]
    torch.testing.assert_close(network.maps(x).weight.flatten(1), expected)
    assert expected.std() > 1e-5


@torch.no_grad()
def test_the_grid_has_the_images_rows_and_columns(network):
    """A change in one patch changes that cell's token most, whatever the aspect."""
    for height, width in ((28, 140), (140, 28), (14, 280)):
        x = golden.image(4, height, width)
        for row, col in ((0, width // 14 - 1), (height // 14 - 1, 0)):
            other = x.clone()
            other[..., 14 * row : 14 * row + 14, 14 * col : 14 * col + 14] += 3
            change = (network.maps(x).local - network.maps(other).local).norm(dim=1)[0]
            assert divmod(int(change.argmax()), width // 14) == (row, col)


def test_centers_are_the_middles_of_patches(network):
    found = network.centers(2, 3, 28, 42)
    assert found.shape == (2, 3, 2)
    assert found[0].tolist() == [[7, 7], [7, 21], [7, 35]]
    assert found[1, 0].tolist() == [21, 7]


def test_sides_that_are_no_multiples_of_the_patch(network):
    with pytest.raises(AmesError, match="images are 28 x 30 pixels: sides must be multiples of 14"):
        network.maps(torch.zeros(1, 3, 28, 30))


@torch.no_grad()
def test_a_folder_gives_what_the_file_gives(network, tmp_path):
    network.network.save_pretrained(tmp_path)
    again = DinoV2("dinov2", weights=tmp_path, config=tiny())
    x = golden.image(5, 28, 56)
    assert torch.equal(again.maps(x).local, network.maps(x).local)
    assert again.maps(x).weight is None
    assert again.provenance()["weights"].startswith("model.safetensors sha256 ")
    with pytest.raises(AmesError, match="its hidden_size is 48, this one's is 384"):
        DinoV2("dinov2-s", weights=tmp_path)


@torch.no_grad()
def test_random_weights_come_from_their_seed():
    state = torch.random.get_rng_state()
    one, same, other = (DinoV2("dinov2", weights=None, config=tiny(), seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    x = golden.image(6, 28, 28)
    assert torch.equal(one.maps(x).local, same.maps(x).local)
    assert not torch.equal(one.maps(x).local, other.maps(x).local)
    assert one.provenance()["weights"] == "random seed 1"


@torch.no_grad()
def test_pickled_and_noted(network, file):
    copy = pickle.loads(pickle.dumps(network))
    x = golden.image(7, 28, 42)
    assert all(torch.equal(a, b) for a, b in zip(copy.maps(x), network.maps(x), strict=True))
    noted = copy.provenance()
    assert noted["weights"] == network.weights
    assert noted["weights"].startswith(f"{file.name} sha256 ")
    assert len(noted["weights"].split()[-1]) == 12
    assert (noted["backbone"], noted["long_side"], noted["multiple"]) == ("dinov2", 770, 14)
    assert not copy.training


def test_swiglu_networks_have_their_own_names():
    """The giant network: two projections in one tensor, of which transformers' versions make one or two."""
    config = tiny(use_swiglu_ffn=True)
    shapes = {row.name: row.shape for row in key_mappings(config)}
    assert shapes["blocks.0.mlp.w12.weight"] == (256, 48)  # 8 * ceil(2 / 3 * 192 / 8), twice
    assert shapes["blocks.1.mlp.w3.weight"] == (48, 128)


@torch.no_grad()
def test_a_swiglu_networks_file(tmp_path):
    config = tiny(use_swiglu_ffn=True, num_hidden_layers=1)
    state = golden.state({row.name: row.shape for row in key_mappings(config)}, 9)
    torch.save(state, tmp_path / "g.pth")
    mlp = DinoV2("dinov2-g", weights=tmp_path / "g.pth", config=config).network.encoder.layer[0].mlp
    x = golden.image(8, 1, 48)[0, :1]
    gate, up = (x @ state["blocks.0.mlp.w12.weight"].T + state["blocks.0.mlp.w12.bias"]).chunk(2, -1)
    hidden = torch.nn.functional.silu(gate) * up
    expected = hidden @ state["blocks.0.mlp.w3.weight"].T + state["blocks.0.mlp.w3.bias"]
    torch.testing.assert_close(mlp(x), expected)


# ---- wrong weights --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("blocks.1.attn.qkv.bias", None, r"it lacks blocks\.1\.attn\.qkv\.bias \(144,\)"),
        ("pos_embed", torch.zeros(1, 18, 48), r"pos_embed is \(1, 18, 48\), this model's is \(1, 26, 48\)"),
        ("head.weight", torch.zeros(5, 48), r"head\.weight \(5, 48\) has no place in this one"),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(state, tmp_path, name, tensor, message):
    changed = state | {name: tensor}
    torch.save({k: x for k, x in changed.items() if x is not None}, tmp_path / "x.pth")
    with pytest.raises(AmesError, match=f"x.pth: weights of another model: {message}"):
        DinoV2("dinov2", weights=tmp_path / "x.pth", config=tiny())


def test_a_file_of_another_size(file):
    with pytest.raises(AmesError, match=r"cls_token is \(1, 1, 48\), this model's is \(1, 1, 768\)"):
        DinoV2("dinov2", weights=file)
