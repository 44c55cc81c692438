"""Descriptor files whose global vectors an embedder made: of images, and of features."""

import cv2
import numpy as np
import pytest
import torch

from ames.cli.main import main
from ames.descriptors.local import DescriptorFile, GlobalFile, recorded
from ames.descriptors.provenance import Provenance
from ames.embedders.checkpoints import fingerprint, load_embedder
from ames.embedders.features import FeatureSpec, StoredFeatures
from ames.errors import AmesError
from ames.extraction import factory
from ames.extraction.config import ExtractionConfig
from ames.extraction.extractor import Extractor
from ames.extraction.factory import build_extractor
from ames.features import LocalFeatures
from helpers import embedders, photos
from helpers.brightness import Brightness

NAMES = [f"{seed}.png" for seed in range(4)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four photos, one of them without a keypoint, and the embedders' files."""
    root = tmp_path_factory.mktemp("embedded")
    for seed, name in enumerate(NAMES[:3]):
        photos.save(root / "photos" / name, photos.scene(seed))
    photos.save(root / "photos" / NAMES[3], photos.plain())
    embedders.save_one(root / "one.pt")
    embedders.save_pair(root / "pair.pt")
    assert run("extract", root, "plain") == 0
    return root


def run(command, root, out, *words):
    start = ["--images", root / "photos", "-o", root / out, "--backbone", "rootsift", "--workers", 0]
    return main([str(word) for word in (command, *start, *words)])


def of_image(embedder, path):
    pixels = embedder.inputs.tensor([embedder.inputs.fit(cv2.imread(str(path)))])
    with torch.no_grad():
        return embedder(pixels)[0].numpy()


def test_an_image_embedder_replaces_the_vectors_alone(root):
    assert run("extract", root, "one", "--embedder", root / "one.pt") == 0
    plain, local = (DescriptorFile(root / f"{x}_local.hdf5") for x in ("plain", "one"))
    assert torch.equal(plain.read(range(4)).descriptors, local.read(range(4)).descriptors)
    embedder = load_embedder(root / "one.pt")
    wanted = np.stack([of_image(embedder, root / "photos" / name) for name in NAMES])
    vectors = GlobalFile(root / "one_global.hdf5")
    np.testing.assert_allclose(vectors.read(), wanted, atol=1e-6)
    assert vectors.names == NAMES
    assert (vectors.space, vectors.provenance["side"]) == (embedder.space, "both")
    assert vectors.provenance["embedder"] == fingerprint(embedder)
    assert not {"vlad", "vector"} & local.provenance.keys()


def test_a_feature_embedder_fuses_what_files_would_hold(root):
    words = ("--desc-num", 10, "--embedder", root / "pair.pt", "--side", "gallery")
    assert run("extract", root, "fused", *words) == 0
    stored = StoredFeatures(
        {"vlad": root / "plain_global.hdf5", "sift": root / "plain_local.hdf5"}, {"sift": 20}
    )
    mixer = load_embedder(root / "pair.pt", "gallery")
    with torch.no_grad():
        wanted = mixer(stored.read(np.arange(4))).numpy()
    wanted[3] = 0  # of an image without features there is nothing to fuse
    vectors = GlobalFile(root / "fused_global.hdf5")
    np.testing.assert_allclose(vectors.read(), wanted, atol=1e-6)
    local = DescriptorFile(root / "fused_local.hdf5")
    assert local.slots == 10
    plain = DescriptorFile(root / "plain_local.hdf5").read(range(3), 10)
    assert torch.equal(local.read(range(3)).descriptors, plain.descriptors)
    fused = local.provenance["fused"]
    assert set(fused) == {"vlad", "sift"}
    assert fused["vlad"]["vlad"] == recorded(root / "plain_global.hdf5").provenance["vlad"]


def test_both_sides_of_a_space_can_be_compared_and_no_other_space(root):
    options = {"backbone": "rootsift", "workers": 0, "desc_num": 30}
    query, gallery = (
        build_extractor(ExtractionConfig(**options, embedder=root / "pair.pt", side=side)).provenance
        for side in ("query", "gallery")
    )
    one = build_extractor(ExtractionConfig(**options, embedder=root / "one.pt")).provenance
    plain = build_extractor(ExtractionConfig(**options)).provenance
    assert gallery.other_features(query) is None
    assert query.other_features(gallery) is None
    assert gallery.other_features(gallery) is None
    assert gallery.difference(query) is not None
    for other in (one, plain):
        assert gallery.other_features(other) is not None
        assert other.other_features(query) is not None
    assert Provenance.from_dict(gallery.to_dict()) == gallery


def test_features_of_several_backbones_and_local_ones_of_another(root, monkeypatch, tmp_path):
    made = factory.make_backbone

    def make(name, **options):
        return Brightness() if name == "dinov2" else made(name, **options)

    monkeypatch.setattr(factory, "make_backbone", make)
    specs = (
        FeatureSpec("bright", "global", 4, 1, "dinov2"),
        FeatureSpec("cells", "local", 4, 6, "dinov2"),
        embedders.ROOTSIFT[0],
    )
    embedders.save_pair(tmp_path / "pair.pt", specs)
    extract = Extractor("rootsift", desc_num=5, embedder=tmp_path / "pair.pt", side="gallery")
    images = [root / "photos" / name for name in NAMES]
    found = extract(images)
    assert found.local.descriptors.shape == (4, 5, 128)
    bright, sift = Extractor("dinov2", desc_num=6)(images), Extractor("rootsift")(images)
    assert torch.equal(found.local.descriptors, sift.local.trim(5).descriptors)
    mixer = load_embedder(tmp_path / "pair.pt", "gallery")
    with torch.no_grad():
        wanted = mixer(
            {
                "bright": by_image(bright.vector),
                "cells": bright.local.with_descriptors(bright.local.descriptors.half().float()),
                "vlad": by_image(sift.vector),
            }
        )
    np.testing.assert_allclose(found.vector, wanted.numpy(), atol=1e-6)
    assert found.backbone == "rootsift"


def test_the_sides_of_a_pair_of_networks_are_compared_by_the_local_one(root, tmp_path):
    pytest.importorskip("kornia")
    specs = (FeatureSpec("v", "global", 256, 1, "aliked"), FeatureSpec("p", "local", 128, 9, "aliked"))
    embedders.save_pair(tmp_path / "pair.pt", specs)
    options = {"embedder": tmp_path / "pair.pt", "weights": "random", "desc_num": 30}
    query, gallery = (Extractor("aliked", side=side, **options) for side in ("query", "gallery"))
    made, asked = (x._extractor.provenance for x in (gallery, query))
    assert made.other_features(asked) is None
    assert made.backbone == asked.backbone == "aliked"
    image = root / "photos" / NAMES[0]
    assert torch.equal(query(image).local.descriptors, gallery(image).local.descriptors)


def by_image(vectors):
    x = torch.from_numpy(vectors)
    return LocalFeatures(x[:, None], x.any(1, keepdim=True))


def test_a_chunk_goes_on_where_an_image_cannot_be_read(root, tmp_path):
    (tmp_path / "photos").mkdir()
    photos.save(tmp_path / "photos" / "a.png", photos.scene(1))
    (tmp_path / "photos" / "b.png").write_bytes(b"text")
    photos.save(tmp_path / "photos" / "c.png", photos.scene(2))
    for side in ("query", "gallery"):
        assert run("extract", tmp_path, side, "--embedder", root / "pair.pt", "--side", side) == 0
        vectors = GlobalFile(tmp_path / f"{side}_global.hdf5").read()
        assert vectors.any(1).tolist() == [True, False, True]
        errors = (tmp_path / f"{side}.errors.csv").read_text().splitlines()
        assert errors[1:] == ["b.png,not an image that OpenCV can decode"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            FeatureSpec("noise", "global", 8),
            "reads the feature 'noise', made by no known backbone: extract it",
        ),
        (FeatureSpec("delg", "global", 8, 1, "delg"), "made by 'delg', no backbone here: extract it"),
        (
            FeatureSpec("v", "global", 8, 1, "rootsift"),
            "'v': .* rootsift gives 256-d ones, .* takes 8-d",
        ),
        (
            FeatureSpec("s", "local", 64, 9, "rootsift"),
            "'s': .* rootsift gives 128-d ones, .* takes 64-d",
        ),
    ],
)
def test_features_that_cannot_be_extracted_are_refused(tmp_path, spec, message):
    embedders.save_pair(tmp_path / "pair.pt", (spec,))
    with pytest.raises(AmesError, match=message):
        Extractor("rootsift", embedder=tmp_path / "pair.pt", side="gallery")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--embedder", "nowhere.pt"], "nowhere.pt: no such checkpoint"),
        (["--embedder", "pair.pt"], "holds the sides query and gallery: say which"),
        (["--side", "query"], "side query: of an embedder, which is not given"),
        (["--embedder", "one.pt", "--global", "gem"], "global gem: the embedder gives the vector"),
    ],
)
def test_what_the_command_refuses(root, capsys, monkeypatch, words, message):
    monkeypatch.chdir(root)
    assert run("extract", root, "refused", *words) == 2
    assert message in capsys.readouterr().err
