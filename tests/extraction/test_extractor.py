"""Photos to features in memory: every form of a photo, one or many; what is refused."""

import numpy as np
import pytest
import torch

from ames.backbones.rootsift import RootSift
from ames.datasets.images import read_image
from ames.errors import AmesError
from ames.extraction.extractor import Extractor, preset_config
from ames.models.registry import MODELS
from helpers import photos


def test_a_photo_in_every_form(tmp_path):
    photos.save(tmp_path / "1.png", photos.scene(1))
    extract = Extractor("rootsift", desc_num=30)
    expected = extract(tmp_path / "1.png")
    assert expected.local.descriptors.shape == (30, 128)
    assert expected.backbone == "rootsift"
    alone = RootSift().extract(read_image(tmp_path / "1.png"), 30)
    assert torch.equal(expected.local.descriptors, alone.local.descriptors)
    rgb = np.ascontiguousarray(photos.scene(1)[..., ::-1])
    image = pytest.importorskip("PIL.Image").fromarray(rgb)
    transparent = np.dstack((rgb, np.full(rgb.shape[:2], 9, np.uint8)))
    for form in (str(tmp_path / "1.png"), rgb, transparent, image, image.convert("RGBA")):
        found = extract(form)
        assert torch.equal(found.local.descriptors, expected.local.descriptors)
        np.testing.assert_array_equal(found.vector, expected.vector)
    grey = photos.scene(1)[..., 0]
    assert torch.equal(extract(grey).local.descriptors, extract(np.dstack([grey] * 3)).local.descriptors)


def test_a_turned_pil_image_is_upright():
    image = pytest.importorskip("PIL.Image").fromarray(np.ascontiguousarray(photos.scene(1)[..., ::-1]))
    turned = image.transpose(2)  # by 90 degrees to the left, which orientation 6 turns back
    turned.getexif()[0x0112] = 6
    extract = Extractor("rootsift")
    assert torch.equal(extract(turned).local.descriptors, extract(image).local.descriptors)


def test_many_photos_are_a_batch_with_padding():
    extract = Extractor("rootsift", desc_num=40)
    images = [photos.scene(1), photos.plain(), photos.scene(2)]
    found, singles = extract(images), [extract(image) for image in images]
    assert found.local.counts.tolist() == [single.local.size for single in singles]
    assert found.local.counts[1] == 0
    assert found.vector.shape == (3, 256)
    for row, single in enumerate(singles):
        size = single.local.size
        assert torch.equal(found.local.descriptors[row, :size], single.local.descriptors)
        np.testing.assert_array_equal(found.vector[row], single.vector)


def test_a_network_gives_what_it_gives_alone_and_in_a_batch():
    extract = Extractor("dinov2-s", weights="random", long_side=56, desc_num=7)
    images = [photos.scene(seed) for seed in (1, 2, 3)]
    found = extract(images)
    assert found.local.descriptors.shape == (3, 7, 384)
    assert found.backbone == "dinov2-s"
    for row, image in enumerate(images):
        np.testing.assert_allclose(found.vector[row], extract(image).vector, atol=1e-5)


def test_a_model_s_name_brings_backbone_detector_and_settings(tmp_path):
    released = preset_config("dinov2_ames_dist", detector=tmp_path / "d.pt", device="cpu")
    assert (released.backbone, released.desc_num, released.weight_by) == ("dinov2", 700, None)
    assert released.detector == tmp_path / "d.pt"
    assert MODELS["dinov2_ames_dist"].extraction["detector"] == "dinov2_detector"
    assert preset_config("rootsift_ames_dist").backbone == "rootsift"
    assert preset_config("dinov2_ames", detector=tmp_path / "d.pt", desc_num=9).desc_num == 9


def test_what_is_refused(tmp_path):
    extract = Extractor("rootsift")
    (tmp_path / "x.jpg").write_bytes(b"text")
    photos.save(tmp_path / "1.png", photos.scene(1))
    for given, message in (
        (tmp_path / "nowhere.jpg", "nowhere.jpg: No such file or directory"),
        ([tmp_path / "1.png", tmp_path / "x.jpg"], "x.jpg: not an image that OpenCV can decode"),
        ([], "no photos: give at least one"),
        (np.zeros((4, 4, 3), np.float32), r"photo 0: float32 \[4, 4, 3\]; expected uint8"),
        (np.zeros((4, 4, 2), np.uint8), r"photo 0: uint8 \[4, 4, 2\]; expected uint8"),
        (np.zeros((0, 4, 3), np.uint8), "photo 0: uint8"),
        ([torch.zeros(3, 4, 4)], "photo 0: a Tensor; give a path, an array or a PIL image"),
    ):
        with pytest.raises(AmesError, match=message):
            extract(given)
    for given, message in (
        (None, "photos: a NoneType; give a path"),
        (5, "photos: a int; give a path"),
        (b"bytes", "photos: a bytes; give a path"),
        ("a\0.jpg", "embedded null byte"),
    ):
        with pytest.raises(AmesError, match=message):
            extract(given)
    with pytest.raises(AmesError, match="backbone or model is a int: give a name"):
        Extractor(5)
    with pytest.raises(AmesError, match="device gpu: cannot be used here"):
        Extractor("rootsift", device="gpu")
    with pytest.raises(AmesError, match=r"backbone or model 'rotsift' does not exist; did you mean rootsift"):
        Extractor("rotsift")
    with pytest.raises(AmesError, match="option 'desc_nun' does not exist; did you mean desc_num"):
        Extractor("rootsift", desc_nun=3)
    with pytest.raises(AmesError, match="model chamfer takes any descriptors: name the backbone"):
        Extractor("chamfer")
