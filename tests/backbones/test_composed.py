"""A composed backbone: what each part gives, under one name."""

import numpy as np
import pytest

import ames.backbones
from ames.backbones import COMPOSITIONS, Composition, is_backbone, make_backbone
from ames.backbones.composed import Composed
from ames.backbones.whitening import Whitening
from ames.errors import AmesError
from helpers.brightness import Brightness

pytest.importorskip("kornia")

PAIR = "aliked-t16+efficientnet-lite0"


def whitening(width, dim=3, seed=0):
    rng = np.random.default_rng(seed)
    mean, matrix = rng.random(width, np.float32), rng.random((width, dim), np.float32)
    return Whitening(
        mean.astype(np.float16).astype(np.float32), matrix.astype(np.float16).astype(np.float32), 0.5
    )


def test_two_networks_by_their_names():
    made = make_backbone(PAIR, weights=None, seed=4)
    assert isinstance(made, Composed)
    assert (made.name, made.local_dim, made.global_dim) == (PAIR, 64, 1280)
    assert (made.local.name, made.vector.name, made.pooling) == ("aliked-t16", "efficientnet-lite0", "cls")
    record = made.provenance()
    assert record["backbone"] == PAIR
    assert record["local_network"] == "aliked-t16"
    assert record["weights"] == "random seed 4"
    assert record["global_network"] == made.vector.provenance() | {"pooling": "cls"}
    x = np.ones((2, 1280), np.float32)
    assert made.finish(x) is x


def test_a_composition_may_have_its_local_networks_name(tmp_path, monkeypatch):
    fitted = whitening(1280)
    fitted.save(tmp_path / "white.safetensors")
    monkeypatch.setattr(ames.backbones, "shipped_path", lambda name: tmp_path / f"{name}.safetensors")
    row = Composition("xfeat", "efficientnet-lite0", "gem", "white")
    monkeypatch.setitem(COMPOSITIONS, "xfeat", row)
    made = make_backbone("xfeat", weights=None)
    assert (made.name, made.local.name, made.local_dim, made.global_dim) == ("xfeat", "xfeat", 64, 3)
    found = made.provenance()["global_network"]
    assert (found["pooling"], found["whitening"]) == ("gem", fitted.fingerprint())
    x = np.random.default_rng(1).random((2, 1280), np.float32)
    np.testing.assert_allclose(made.finish(x), fitted.apply(x), atol=1e-6)
    monkeypatch.setitem(COMPOSITIONS, "mine", row)
    assert is_backbone("mine")


def test_what_does_not_go_together():
    local, vector = make_backbone("xfeat", weights=None), Brightness()
    with pytest.raises(AmesError, match="x: pooling 'max' is none of cls, gem"):
        Composed("x", local, vector, pooling="max")
    with pytest.raises(AmesError, match="x: its whitening takes 5-d vectors, these are 4-d"):
        Composed("x", local, vector, whitening=whitening(5))
    vector.global_dim = None
    with pytest.raises(AmesError, match="x: brightness has no global vector; take pooling gem"):
        Composed("x", local, vector)
    assert Composed("x", local, vector, pooling="gem").global_dim == 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "dinov2+aliked",
            "'dinov2' gives no local features here; take xfeat, aliked, aliked-t16, aliked-n32, d",
        ),
        ("aliked+disk", "'disk' gives no global vector here; take dinov2"),
        ("aliked+dino", "'dino' gives no global vector here"),
        ("rootsift+dinov2", "'rootsift' gives no local features here"),
        ("+", "'' gives no local features here"),
    ],
)
def test_names_of_no_pair(name, message):
    with pytest.raises(AmesError, match=message) as caught:
        make_backbone(name, weights=None)
    assert "\n" not in str(caught.value)


def test_options_of_a_pair():
    with pytest.raises(AmesError, match="two networks have no common file: leave weights out"):
        make_backbone(PAIR, weights="x.pth")
    with pytest.raises(AmesError, match="has no attention of its own"):
        make_backbone(PAIR, weights=None, attention=True)
    assert is_backbone(PAIR)
    assert is_backbone("rootsift")
    assert not any(is_backbone(name) for name in ("x", "x+y", "aliked+", "rootsift+dinov2", "aliked+a+b"))
