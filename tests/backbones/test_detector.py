"""The detector against one written with convolutions; sets of locations, padding, files."""

import json

import pytest
import torch
import torch.nn.functional as F

from ames.backbones.detector import (
    SpatialAttention,
    global_descriptor,
    load_detector,
    read_detector,
    save_detector,
)
from ames.errors import AmesError
from ames.inspection.inspect import inspect
from ames.models.checkpoints import save_content
from ames.weights.files import read_weights
from golden import backbones as golden

D, H, W = 6, 3, 4
PUBLISHED = {
    "conv1.weight": (D, D, 1, 1),
    "conv1.bias": (D,),
    "bn.weight": (D,),
    "bn.bias": (D,),
    "bn.running_mean": (D,),
    "bn.running_var": (D,),
    "bn.num_batches_tracked": (),
    "conv2.weight": (1, D, 1, 1),
    "conv2.bias": (1,),
}


def made(seed=0):
    """A detector no tensor of which has a value that could be left out unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    detector = SpatialAttention(D)
    state = {
        name: torch.tensor(7) if name == "bn.num_batches_tracked" else torch.rand(shape, generator=generator)
        for name, shape in PUBLISHED.items()
    }
    state["conv1.weight"] -= 0.5
    state["conv2.weight"] -= 0.5
    detector.load_state_dict(state)
    return detector.eval()


def twin(state, x, training):
    """The published forward, layer by layer."""
    x = F.conv2d(x, state["conv1.weight"], state["conv1.bias"])
    mean, var = state["bn.running_mean"].clone(), state["bn.running_var"].clone()
    x = F.batch_norm(x, mean, var, state["bn.weight"], state["bn.bias"], training, 0.1, 1e-5)
    attention = F.softplus(F.conv2d(F.relu(x), state["conv2.weight"], state["conv2.bias"]))
    return F.normalize(x, dim=1), attention[:, 0], mean, var


def feature_map(seed=1, images=2):
    return torch.randn(images, D, H, W, generator=torch.Generator().manual_seed(seed))


def padded(features, valid):
    """The same locations, with room between them that holds what must not count."""
    room = torch.full((*valid.shape, D), float("nan"))
    room[valid] = features.reshape(-1, D)
    return room


VALID = torch.tensor([[1, 1, 0, 1, 1, 0], [0, 1, 1, 1, 0, 1]]).bool()  # 2 x 4 real locations


def test_the_published_names_and_shapes():
    assert {name: tuple(x.shape) for name, x in SpatialAttention(D).state_dict().items()} == PUBLISHED


@pytest.mark.parametrize("training", [False, True])
def test_forward_is_the_published_one(training):
    detector, x = made().train(training), feature_map()
    state = {name: value.clone() for name, value in detector.state_dict().items()}
    projected, weights = detector(x)
    expected, attention, mean, var = twin(state, x, training)
    torch.testing.assert_close(projected, expected)
    torch.testing.assert_close(weights, attention)
    torch.testing.assert_close(detector.bn.running_mean, mean)
    torch.testing.assert_close(detector.bn.running_var, var)
    assert weights.std() > 0.01
    assert weights.shape == (2, H, W)


@torch.no_grad()
def test_the_released_codes_figures(tmp_path):
    figures = golden.FIGURES["detector"]
    torch.save({"state": golden.state(golden.detector(), figures["seed"])}, tmp_path / "x_detector.pt")
    projected, weights = load_detector(tmp_path / "x_detector.pt")(golden.image(figures["seed"], 5, 7, 16))
    for found, name in ((projected.flatten()[:8], "features_first8"), (weights.flatten(), "weights")):
        torch.testing.assert_close(found, torch.tensor(figures[name]), atol=figures["tolerance"], rtol=0)


def test_a_set_of_locations_is_a_map_without_places():
    detector, x = made(), feature_map()
    projected, weights = detector(x)
    flat, of_flat = detector.locations(x.flatten(2).transpose(1, 2))
    torch.testing.assert_close(flat, projected.flatten(2).transpose(1, 2))
    torch.testing.assert_close(of_flat, weights.flatten(1))
    one, of_one = detector.locations(x[1].flatten(1).T)  # no axis of images
    torch.testing.assert_close(one, flat[1])
    torch.testing.assert_close(of_one, of_flat[1])


@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_nothing(training):
    x = torch.randn(2, 4, D, generator=torch.Generator().manual_seed(2))
    tight, loose = made().train(training), made().train(training)
    projected, weights = tight.locations(x)
    with_room, of_room = loose.locations(padded(x, VALID), VALID)
    assert torch.equal(with_room[VALID], projected.flatten(0, 1))
    assert torch.equal(of_room[VALID], weights.flatten())
    assert not with_room[~VALID].any()
    assert not of_room[~VALID].any()
    assert all(torch.equal(a, loose.state_dict()[name]) for name, a in tight.state_dict().items())
    torch.testing.assert_close(global_descriptor(with_room, of_room), global_descriptor(projected, weights))


@pytest.mark.parametrize("training", [False, True])
def test_where_all_locations_are_real_nothing_is_asked_of_the_device(training, monkeypatch):
    x = torch.randn(2, 4, D, generator=torch.Generator().manual_seed(2))
    expected = made().train(training).locations(x, torch.ones(2, 4, dtype=torch.bool))
    for name in ("nonzero", "index_put"):  # how many are real waits for a GPU
        monkeypatch.setattr(torch.Tensor, name, None)
    found = made().train(training).locations(x)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_padding_has_no_gradient():
    x = torch.randn(2, 4, D, generator=torch.Generator().manual_seed(2))
    tight, loose = made().train(), made().train()
    for detector, projected in (
        (tight, tight.locations(x)),
        (loose, loose.locations(padded(x, VALID), VALID)),
    ):
        global_descriptor(*projected)[:, 0].sum().backward()
        assert all(p.grad.isfinite().all() for p in detector.parameters())
    for a, b in zip(tight.parameters(), loose.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    assert tight.conv2.weight.grad.abs().max() > 1e-3


def test_the_global_descriptor():
    projected = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]], [[0.0, 0.0]] * 3])
    weights = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    found = global_descriptor(projected, weights)
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_stored_float16_and_images_without_descriptors():
    detector = made()
    x = torch.randn(2, 4, D).half()
    torch.testing.assert_close(detector.locations(x), detector.locations(x.float()))
    projected, weights = detector.locations(x, torch.zeros(2, 4, dtype=torch.bool))
    assert not projected.any()
    assert not weights.any()


def test_a_new_detector_passes_features_on_as_they_are():
    x = feature_map()
    projected, _ = SpatialAttention(D).eval()(x)
    torch.testing.assert_close(projected, F.normalize(x, dim=1))


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("plain", [True, False])
def test_a_state_dict_loads_strictly(counted, plain):
    state = made().state_dict()  # its metadata says that batches are counted
    if not counted:
        del state["bn.num_batches_tracked"]
    detector = SpatialAttention(D)
    detector.load_state_dict(dict(state) if plain else state)
    assert all(torch.equal(x, state[name]) for name, x in detector.state_dict().items() if name in state)
    assert detector.bn.num_batches_tracked == (7 if counted else 0)
    with pytest.raises(RuntimeError, match=r"conv1\.bias"):
        detector.load_state_dict({name: x for name, x in state.items() if name != "conv1.bias"})


# ---- files ----------------------------------------------------------------------------------------


def test_a_file_is_laid_out_as_the_published_ones(tmp_path):
    path, detector = tmp_path / "x_detector.pt", made()
    save_detector(path, detector, provenance={"backbone": "x", "epochs": 3})
    content = torch.load(path, weights_only=True)
    assert set(content) == {"state", "about"}
    assert {name: tuple(x.shape) for name, x in content["state"].items()} == PUBLISHED
    assert json.loads(content["about"]) == {
        "detector": {"width": D, "input": "normalized"},
        "backbone": "x",
        "epochs": 3,
    }
    assert set(read_detector(path)) == set(PUBLISHED) - {"bn.num_batches_tracked"}
    assert read_weights(path).about["backbone"] == "x"
    assert inspect(path)["kind"] == "feature detector"
    loaded, x = load_detector(path, backbone="x"), feature_map()
    assert not loaded.training
    for a, b in zip(loaded(x), detector(x), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(AmesError, match="trained on x descriptors, not on y"):
        load_detector(path, backbone="y")


def test_a_published_file_fits_any_backbone(tmp_path):
    path, detector = tmp_path / "x_detector.pt", made()
    state = {k: v for k, v in detector.state_dict().items() if k != "bn.num_batches_tracked"}
    torch.save({"state": state}, path)
    x = feature_map()
    for a, b in zip(load_detector(path, backbone="y")(x), detector(x), strict=True):
        assert torch.equal(a, b)


def test_a_file_that_cannot_be_written_leaves_what_was_there(tmp_path):
    path = tmp_path / "x.pt"
    path.mkdir()
    with pytest.raises(AmesError, match="cannot be written"):
        save_detector(path, made())
    assert [p.name for p in tmp_path.iterdir()] == ["x.pt"]


# ---- wrong input ----------------------------------------------------------------------------------


def test_features_of_another_width():
    with pytest.raises(AmesError, match="descriptors are 5-d, but the detector takes 6-d"):
        made().locations(torch.zeros(2, 4, 5))
    with pytest.raises(AmesError, match="descriptors are 7-d, but the detector takes 6-d"):
        made()(torch.zeros(1, 7, 2, 2))


def test_training_on_a_single_descriptor():
    with pytest.raises(AmesError, match="a batch of 1 descriptors: the detector's batch normalization"):
        made().train().locations(torch.zeros(1, 1, D))


def test_what_a_detector_takes_is_said_by_its_file(tmp_path):
    for taken in ("network", "normalized"):
        save_detector(tmp_path / "x.pt", SpatialAttention(D, input=taken))
        assert load_detector(tmp_path / "x.pt").input == taken
    state = {"state": SpatialAttention(D).state_dict()}
    save_content(tmp_path / "x.pt", state, {"detector": {"width": D}})
    assert load_detector(tmp_path / "x.pt").input == "normalized"  # of this library, from before
    torch.save(state, tmp_path / "x.pt")
    assert load_detector(tmp_path / "x.pt").input == "network"  # published: it says nothing
    save_content(tmp_path / "x.pt", state, {"detector": {"input": "raw"}})
    with pytest.raises(AmesError, match=r"x.pt: its detector takes 'raw', .* none of network, normalized"):
        load_detector(tmp_path / "x.pt")
