"""How an image becomes an embedder's input: sizes by hand, pixels where nothing is interpolated."""

import numpy as np
import pytest
import torch

from ames.embedders.inputs import InputSpec, resized
from ames.errors import AmesError


def ramp(height, width):
    """uint8 [height, width, 3]: blue is the row, green the column, red 7."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, 7)], -1).astype(np.uint8)


@pytest.mark.parametrize(
    ("resize", "size", "shape", "wanted"),
    [
        ("crop", 224, (300, 500), (224, 224)),
        ("crop", 224, (256, 256), (224, 224)),
        ("crop", 56, (1000, 70), (56, 56)),
        ("square", 224, (300, 500), (224, 224)),
        ("long", 224, (300, 500), (134, 224)),  # 300 * 224 / 500 = 134.4
        ("long", 224, (500, 300), (224, 134)),
        ("long", 224, (100, 100), (224, 224)),
        ("long", 64, (2000, 5), (64, 1)),
    ],
)
def test_the_size_of_an_input(resize, size, shape, wanted):
    image = np.zeros((*shape, 3), np.uint8)
    assert InputSpec(size, resize).fit(image).shape == (*wanted, 3)


def test_a_crop_is_the_centre_of_the_shorter_side_at_8_7():
    """56 of 64 pixels: an image of 64 x 100 is not resized, and 4 and 22 pixels go on each side."""
    image = ramp(64, 100)
    np.testing.assert_array_equal(InputSpec(56, "crop").fit(image), image[4:60, 22:78])
    np.testing.assert_array_equal(InputSpec(56, "crop").fit(ramp(100, 64)), ramp(100, 64)[22:78, 4:60])


def test_a_crop_keeps_the_aspect_ratio_and_a_square_does_not():
    """Twice as large as 64 pixels in one direction: by area, which is the mean of 2 x 2 pixels."""
    image = np.repeat(np.repeat(ramp(64, 100), 2, 0), 2, 1)
    np.testing.assert_array_equal(InputSpec(56, "crop").fit(image), ramp(64, 100)[4:60, 22:78])
    wide = np.repeat(ramp(64, 64), 3, 1)
    np.testing.assert_array_equal(InputSpec(56, "square").fit(wide), ramp(64, 64)[4:60, 4:60])


def test_long_resizes_the_longer_side_and_crops_nothing():
    image = np.repeat(np.repeat(ramp(30, 50), 2, 0), 2, 1)
    np.testing.assert_array_equal(InputSpec(50, "long").fit(image), ramp(30, 50))
    np.testing.assert_array_equal(InputSpec(100, "long").fit(image), image)


def test_smaller_by_area_larger_linearly():
    image = np.array([[0, 100], [100, 200]], np.uint8)[..., None].repeat(3, -1)
    assert resized(image, 1, 1).tolist() == [[[100] * 3]]
    assert resized(image[:1], 1, 4)[0, :, 0].tolist() == [0, 25, 75, 100]
    assert resized(image, 2, 2) is image


@pytest.mark.parametrize("bgr", [False, True])
def test_pixels_are_normalized_by_the_channels_own_mean(bgr):
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)  # of red, green and blue
    images = [ramp(4, 5), ramp(4, 5)[::-1]]
    found = InputSpec(32, "crop", mean, std, bgr).tensor(images)
    assert found.dtype == torch.float32
    assert found.shape == (2, 3, 4, 5)
    for number, image in enumerate(images):
        for place, channel in enumerate((0, 1, 2) if bgr else (2, 1, 0)):  # of the image, blue first
            wanted = (image[..., channel] / 255 - mean[2 - channel]) / std[2 - channel]
            np.testing.assert_allclose(found[number, place].numpy(), wanted, atol=1e-6)


def test_an_array_of_images_and_none():
    images = np.stack([ramp(4, 4)] * 3)
    assert torch.equal(InputSpec().tensor(images), InputSpec().tensor([*images]))
    assert InputSpec().tensor(images[:0]).shape == (0, 3, 4, 4)


def test_wrong_rules_are_one_line():
    with pytest.raises(AmesError, match="resize 'centre' is none of crop, square, long"):
        InputSpec(224, "centre")
    with pytest.raises(AmesError, match="size 7: give at least 8 pixels"):
        InputSpec(7)
