"""The strongest keypoints and their descriptors are those of describing all and sorting."""

from collections import Counter

import cv2
import numpy as np
import pytest

from ames.backbones import sift_keypoints
from ames.backbones.sift_keypoints import CONTRAST, strongest

COUNTS = [1, 7, 60, 400, 10_000]


def stretched(values):
    return cv2.normalize(values, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def noise(height, width, blur, seed=0):
    values = np.random.default_rng(seed).random((height, width))
    return stretched(cv2.GaussianBlur(values, (0, 0), blur) if blur else values)


def discs(height=200, width=260):
    """Round shapes, whose keypoints have many orientations."""
    image = np.full((height, width), 40, np.uint8)
    for row in range(20, height, 40):
        for column in range(20, width, 40):
            cv2.circle(image, (column, row), 6 + (row + column) % 7, 90 + (3 * row + column) % 150, -1)
    return image


IMAGES = {
    "textured": noise(160, 220, 2.5),
    "fine": noise(120, 150, 0.8),
    "noisy": noise(90, 110, 0),
    "smooth": noise(240, 320, 12),
    "faint": noise(160, 220, 2.5) // 20 + 100,
    "periodic": np.tile(noise(32, 32, 1.2), (6, 7)),
    "board": np.kron(np.indices((12, 14)).sum(0) % 2 * 200, np.ones((13, 13))).astype(np.uint8),
    "discs": discs(),
    "flat": np.full((80, 80), 128, np.uint8),
    "small": noise(14, 17, 1),
    "strip": noise(3, 500, 1),
    "pixel": np.full((1, 1), 9, np.uint8),
}


def plain(gray, count, sigma=1.6):
    sift = cv2.SIFT_create(contrastThreshold=CONTRAST, sigma=sigma)
    keypoints, descriptors = sift.detectAndCompute(gray, None)
    first = {}
    pairs = enumerate(keypoints)
    for i, k in sorted(pairs, key=lambda x: (-x[1].response, x[1].pt[1], x[1].pt[0], x[1].angle)):
        first.setdefault((*k.pt, k.size), i)
    order = list(first.values())[:count]
    return [keypoints[i] for i in order], descriptors[order] if order else np.zeros((0, 128), np.float32)


def values(keypoints):
    return [(*k.pt, k.size, k.angle, k.response, k.octave) for k in keypoints]


@pytest.mark.parametrize("sigma", [1.6, 1.2])
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", IMAGES)
def test_they_are_those_of_the_plain_way(name, count, sigma):
    keypoints, descriptors = strongest(IMAGES[name], count, sigma=sigma)
    expected, expected_descriptors = plain(IMAGES[name], count, sigma)
    assert values(keypoints) == values(expected)
    assert descriptors.dtype == np.float32
    np.testing.assert_array_equal(descriptors, expected_descriptors)


def test_equal_responses_at_the_last_place_are_kept_in_a_fixed_order():
    keypoints, _ = plain(IMAGES["periodic"], 10_000)
    responses = [k.response for k in keypoints]
    tied = next(i for i in range(20, len(responses)) if responses[i - 1] == responses[i])
    found, _ = strongest(IMAGES["periodic"], tied)
    assert values(found) == values(keypoints[:tied])


@pytest.fixture
def limits(monkeypatch):
    """The limits that OpenCV was asked for."""
    asked, make = [], sift_keypoints._sift

    def spy(sigma, limit):
        asked.append(limit)
        return make(sigma, limit)

    monkeypatch.setattr(sift_keypoints, "_sift", spy)
    return asked


def test_the_pyramid_is_built_once(limits):
    strongest(IMAGES["fine"], 60)
    assert limits == [112]


def test_many_orientations_a_location_ask_for_more(limits):
    gray = IMAGES["discs"]
    keypoints = cv2.SIFT_create(contrastThreshold=CONTRAST).detect(gray, None)
    assert max(Counter((*k.pt, k.size) for k in keypoints).values()) > 2
    found, _ = strongest(gray, 30)
    assert len(found) == 30
    assert limits[:2] == [64, 128]
