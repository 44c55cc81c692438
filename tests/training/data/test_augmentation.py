"""Views of images: each change of colour against its formula, and the distribution of the draws."""

import colorsys
import math

import cv2
import numpy as np
import pytest

from ames.errors import AmesError
from ames.training.data.augmentation import (
    CHANGES,
    Augmentation,
    View,
    brightness,
    centre_box,
    contrast,
    hue,
    saturation,
)
from helpers.photos import scene


@pytest.fixture(scope="module")
def image():
    return scene(1, size=(60, 80))


def gray(image):
    """Float [H, W, 1], of BGR."""
    return (image.astype(np.float64) @ [0.114, 0.587, 0.299])[..., None]


def close(found, wanted, tolerance=0.5):
    assert found.dtype == np.uint8
    assert np.abs(found - np.clip(wanted, 0, 255)).max() <= tolerance + 1e-6


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4])
def test_brightness_contrast_and_saturation_are_blends(image, factor):
    close(brightness(image, factor), factor * image)
    close(contrast(image, factor), factor * image + (1 - factor) * gray(image).mean())
    # the grey level of a pixel is rounded before the blend
    close(saturation(image, factor), factor * image + (1 - factor) * gray(image), 1.1)


@pytest.mark.parametrize("shift", [-0.1, 0.0, 0.05, 0.5])
def test_the_hue_is_turned(image, shift):
    wanted = np.empty(image.shape)
    for place in np.ndindex(image.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*(image[place][::-1] / 255))
        wanted[place] = 255 * np.array(colorsys.hsv_to_rgb((h + shift) % 1, s, v))[::-1]
    found = hue(image, shift)
    close(found, wanted, 6)  # half a step of the hue is 3 levels of a pure colour
    assert np.abs(found - wanted).mean() < 1


def test_changes_of_nothing_change_nothing(image):
    for name in ("brightness", "contrast"):
        np.testing.assert_array_equal(CHANGES[name](image, 1.0), image)
    np.testing.assert_array_equal(saturation(image, 1.0), image)


def test_a_view_is_crop_size_flip_and_changes_in_their_order(image):
    part = cv2.resize(image[5:45, 10:60], (20, 20), interpolation=cv2.INTER_AREA)[:, ::-1]
    jitter = (("contrast", 1.4), ("brightness", 1.3))
    found = View((5, 10, 40, 50), True, jitter).apply(image, 20)
    np.testing.assert_array_equal(found, brightness(contrast(part, 1.4), 1.3))
    assert (found != contrast(brightness(part, 1.3), 1.4)).any()
    np.testing.assert_array_equal(View((0, 0, 60, 60)).apply(image, 60), image[:, :60])


def test_shrinking_by_a_whole_factor_is_the_mean_of_the_pixels(image):
    found = View((0, 0, 60, 60)).apply(image, 20)
    close(found, image[:, :60].reshape(20, 3, 20, 3, 3).mean((1, 3)))


def test_one_view_at_two_resolutions_shows_the_same(image):
    large = cv2.resize(image, (800, 600), interpolation=cv2.INTER_CUBIC)
    rng = np.random.default_rng(0)
    for _ in range(5):
        view = Augmentation(scale=(0.3, 1)).draw(rng, 600, 800)
        a, b = view.apply(large, 56).astype(float), view.apply(large, 112).astype(float)
        assert np.abs(a - b.reshape(56, 2, 56, 2, 3).mean((1, 3))).mean() < 2


def drawn(n=4000, height=300, width=400, **options):
    rng = np.random.default_rng(3)
    return [Augmentation(**options).draw(rng, height, width) for _ in range(n)]


def test_crops_have_a_uniform_area_and_a_log_uniform_ratio_and_lie_anywhere():
    # small enough that no try fails, whatever the ratio
    boxes = np.array([view.box for view in drawn(scale=(0.1, 0.5))], float)
    top, left, height, width = boxes.T
    area = height * width / (300 * 400)
    assert 0.098 < area.min() < 0.11
    assert 0.49 < area.max() < 0.505
    np.testing.assert_allclose(np.quantile(area, [0.25, 0.5, 0.75]), [0.2, 0.3, 0.4], atol=0.02)
    ratio = np.log(width / height) / math.log(4 / 3)
    np.testing.assert_allclose(np.quantile(ratio, [0.25, 0.5, 0.75]), [-0.5, 0, 0.5], atol=0.05)
    np.testing.assert_allclose((top / (300 - height)).mean(), 0.5, atol=0.02)
    np.testing.assert_allclose((left / (400 - width)).mean(), 0.5, atol=0.02)
    assert (top + height).max() == 300
    assert (left + width).max() == 400


def test_a_crop_that_never_fits_is_the_largest_one_at_the_centre():
    wide, high = ({view.box for view in drawn(20, *size, scale=(1, 1))} for size in ((10, 400), (400, 10)))
    assert wide == {(0, 193, 10, 13)}  # 10 x 4 / 3
    assert high == {(193, 0, 13, 10)}
    assert centre_box(30, 50) == (0, 10, 30, 30)
    assert centre_box(50, 30) == (10, 0, 30, 30)
    assert Augmentation(scale=(1, 1), ratio=(1, 1)).draw(np.random.default_rng(0), 1, 1).box == (0, 0, 1, 1)


def test_flips_and_changes_come_as_often_and_as_strong_as_asked():
    views = drawn()
    assert np.mean([view.flip for view in views]) == pytest.approx(0.5, abs=0.03)
    amounts = {name: np.array([dict(view.jitter)[name] for view in views]) for name in CHANGES}
    for name in ("brightness", "contrast", "saturation"):
        np.testing.assert_allclose(np.quantile(amounts[name], [0, 0.5, 1]), [0.6, 1, 1.4], atol=0.03)
    np.testing.assert_allclose(np.quantile(amounts["hue"], [0, 0.5, 1]), [-0.1, 0, 0.1], atol=0.01)
    orders = [tuple(name for name, _ in view.jitter) for view in views]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 24
    assert min(counts) > 100  # of 4000 / 24 = 167
    some = drawn(jitter_probability=0.8, jitter=(2.0, 0, 0.4, 0))
    assert np.mean([view.jitter != () for view in some]) == pytest.approx(0.8, abs=0.03)
    changes = [dict(view.jitter) for view in some if view.jitter]
    assert {*changes[0]} == {"brightness", "saturation"}
    strong = np.array([x["brightness"] for x in changes])
    assert (strong.min(), strong.max()) == (pytest.approx(0, abs=0.01), pytest.approx(3, abs=0.01))


def test_equal_generators_give_images_of_other_sizes_the_same_view():
    small, large = (
        [Augmentation(scale=(0.1, 0.5)).draw(np.random.default_rng(i), *size) for i in range(50)]
        for size in ((300, 400), (600, 800))
    )
    assert [(x.flip, x.jitter) for x in small] == [(x.flip, x.jitter) for x in large]
    a, b = (np.array([x.box for x in views]) for views in (small, large))
    np.testing.assert_allclose(2 * a, b, atol=3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scale": (0.5, 0.2)}, "scale"),
        ({"scale": (0, 1)}, "scale"),
        ({"ratio": (0, 1)}, "ratio"),
        ({"flip": 1.5}, "flip 1.5 is no probability"),
        ({"jitter": (0.4, 0.4, 0.4)}, "four strengths"),
        ({"jitter": (0.4, 0.4, 0.4, 0.6)}, "the last at most 0.5"),
    ],
)
def test_what_is_no_distribution_is_refused(options, said):
    with pytest.raises(AmesError, match=said):
        Augmentation(**options)


def test_a_view_of_another_image_is_refused(image):
    with pytest.raises(AmesError, match="outside of an image of 80 x 60"):
        View((0, 0, 61, 10)).apply(image, 8)
