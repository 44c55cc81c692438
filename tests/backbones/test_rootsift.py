"""RootSIFT: what a descriptor is, where it lies, and images that have none."""

import pickle

import cv2
import numpy as np
import pytest
import torch

from ames.backbones import make_backbone
from ames.backbones.rootsift import RootSift
from ames.errors import AmesError


def texture(height=160, width=220, seed=0):
    noise = np.random.default_rng(seed).random((height, width, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def blob(height, width, row, col, radius):
    image = np.full((height, width, 3), 60, np.uint8)
    cv2.circle(image, (int(col * width), int(row * height)), radius, (230, 230, 230), -1)
    return cv2.GaussianBlur(image, (0, 0), radius / 3)


def test_descriptors_are_unit_vectors_sorted_by_response():
    local = RootSift().extract(texture(), 1000).local
    assert local.size > 50
    assert local.width == 128
    assert local.descriptors.dtype == torch.float32
    torch.testing.assert_close(local.descriptors.norm(dim=-1), torch.ones(local.size), atol=1e-5, rtol=0)
    assert (local.descriptors >= 0).all()
    assert (local.weight.diff() <= 0).all()
    assert local.valid.all()
    assert ((local.positions >= 0) & (local.positions <= 1)).all()


def test_fewer_are_the_first_of_many():
    backbone = RootSift()
    many, few = backbone.extract(texture(), 1000).local, backbone.extract(texture(), 20).local
    assert few.size == 20
    assert torch.equal(few.descriptors, many.trim(20).descriptors)
    assert torch.equal(few.positions, many.trim(20).positions)


def test_keypoints_are_near_those_of_opencv_at_the_full_size():
    """Three quarters of the size, with the blur of the full one, give most of its keypoints."""
    gray = cv2.cvtColor(texture(240, 320), cv2.COLOR_BGR2GRAY)
    local = RootSift().extract(gray, 200).local
    keypoints, described = cv2.SIFT_create(contrastThreshold=0.02).detectAndCompute(gray, None)
    places = torch.tensor([(k.pt[1] / 240, k.pt[0] / 320, k.size / 320) for k in keypoints])
    here = torch.cat((local.positions, local.scale[:, None]), 1)
    full = torch.from_numpy(np.sqrt(described / described.sum(1, keepdims=True)))
    near = torch.cdist(here, places) < 0.01  # three pixels
    cosine = (local.descriptors @ full.T).masked_fill(~near, 0).amax(1)
    assert (cosine > 0.95).float().mean() > 0.8
    assert cosine.median() > 0.99


def test_one_keypoint_a_location():
    local = RootSift().extract(texture(), 1000).local
    places = torch.cat((local.positions, local.scale[:, None]), 1)
    assert len(places.unique(dim=0)) == local.size
    # and the picture has places with several orientations, so that there was something to leave out
    gray = cv2.cvtColor(texture(), cv2.COLOR_BGR2GRAY)
    found = cv2.SIFT_create(contrastThreshold=0.02).detect(gray, None)
    assert len(found) > local.size


def test_the_same_image_gives_the_same_features():
    first, second = (RootSift().extract(texture(), 300).local for _ in range(2))
    for field in ("descriptors", "positions", "scale", "weight"):
        assert torch.equal(getattr(first, field), getattr(second, field))


@pytest.mark.parametrize("size", [(300, 400), (400, 300), (1500, 900), (700, 2000)])
@pytest.mark.parametrize(("row", "col"), [(0.25, 0.7), (0.8, 0.3)])
def test_a_blob_is_found_where_it_was_drawn(size, row, col):
    """(row, col) as shares of height and width, in either orientation and after downscaling."""
    image = blob(*size, row, col, radius=max(size) // 40)
    local = RootSift().extract(image, 50).local
    nearest = (local.positions - torch.tensor([row, col])).norm(dim=-1).argmin()
    torch.testing.assert_close(local.positions[nearest], torch.tensor([row, col]), atol=0.01, rtol=0)
    # its diameter is 1/20 of the long side
    assert 0.02 < local.scale[nearest] < 0.15


def test_long_sides_are_reduced_and_short_ones_left_alone():
    image = texture(400, 300)
    large = RootSift(max_size=200).extract(image, 9999).local
    assert large.size < RootSift(max_size=400).extract(image, 9999).local.size
    reduced = cv2.resize(image, (150, 200), interpolation=cv2.INTER_AREA)
    small = RootSift(max_size=200).extract(reduced, 9999).local
    assert abs(small.size - large.size) < 0.2 * large.size  # grey before or after the resize
    assert torch.equal(
        RootSift(max_size=400).extract(image, 9).local.positions,
        RootSift(max_size=9999).extract(image, 9).local.positions,
    )


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 2), (3, 3), (7, 5), (2, 20000), (20000, 2), (1, 5000), (100, 100)]
)
def test_images_without_texture_have_no_descriptors(shape):
    features = RootSift().extract(np.full((*shape, 3), 128, np.uint8), 10)
    assert features.local.descriptors.shape == (0, 128)
    assert features.local.positions.shape == (0, 2)
    assert features.local.weight.shape == features.local.scale.shape == (0,)
    assert features.vector is None


@pytest.mark.parametrize("shape", [(1, 1), (2, 20000), (20000, 2), (9, 9), (33, 5)])
def test_tiny_and_thin_noise_does_not_crash(shape):
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    local = RootSift().extract(image, 10).local
    assert local.descriptors.shape == (local.size, 128)
    assert torch.isfinite(local.descriptors).all()


def test_a_grey_array_is_an_image_too():
    image = texture()
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    first, second = (RootSift().extract(x, 10).local for x in (image, gray))
    assert torch.equal(first.descriptors, second.descriptors)


def test_by_name_with_its_global_descriptor():
    backbone = make_backbone("rootsift")
    vector = backbone.extract(texture(), 100).vector
    assert vector.shape == (backbone.global_dim,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    blank = backbone.extract(np.zeros((50, 50, 3), np.uint8), 100)
    assert not blank.vector.any()
    copy = pickle.loads(pickle.dumps(backbone))
    np.testing.assert_array_equal(copy.extract(texture(), 100).vector, vector)
    assert copy.provenance() == backbone.provenance()
    assert backbone.provenance()["backbone"] == "rootsift"


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(AmesError, match="backbone 'dinov9' is none of: rootsift"):
        make_backbone("dinov9")
