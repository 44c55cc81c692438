"""Sizes of what goes into a network, and the way back to the image it was made of."""

import numpy as np
import pytest
import torch

from ames.datasets.images import UnreadableImage
from ames.extraction.preprocessing import Placement, Sizing, network_inputs, whole_pixels
from helpers import photos


def inputs(shape, box=None, **sizing):
    return network_inputs(np.zeros((*shape, 3), np.uint8), Sizing(**sizing), box)


@pytest.mark.parametrize(
    ("shape", "multiple", "expected"),
    [
        ((1000, 1500), 14, (518, 770)),  # 513.3 -> 518, the next multiple of 14
        ((1500, 1000), 14, (770, 518)),
        ((300, 400), 14, (574, 770)),  # smaller images are enlarged
        ((1000, 1500), 1, (513, 770)),
        ((1000, 1500), 16, (512, 768)),
        ((20_000, 2), 14, (770, 14)),  # never without a single patch
        ((2, 20_000), 14, (14, 770)),
        ((1, 1), 14, (770, 770)),
    ],
)
def test_the_long_side_and_multiples_of_a_patch(shape, multiple, expected):
    (found,) = inputs(shape, multiple=multiple)
    assert found.pixels.shape == (*expected, 3)
    assert found.pixels.flags.c_contiguous


def test_as_it_is():
    (found,) = inputs((50, 70), long_side=0)
    assert found.pixels.shape == (50, 70, 3)


def test_scales():
    shapes = [x.pixels.shape[:2] for x in inputs((500, 1000), long_side=500, scales=(0.5, 1.0, 2.0))]
    assert shapes == [(125, 250), (250, 500), (500, 1000)]


def test_a_box_keeps_the_scale_of_the_whole_image():
    """A query of half the image's sides goes in at half the size: as large as it is seen in the image."""
    (found,) = inputs((1000, 2000), [500, 200, 1500, 700], long_side=700, multiple=14)
    assert found.pixels.shape[:2] == (168, 350)  # 175 -> 168 (Python rounds 12.5 to 12), 350
    whole = Placement(1000, 2000, 200, 500, 500, 1000, 168, 350)
    assert found.placement == whole


@pytest.mark.parametrize(
    ("shape", "box", "sizing"),
    [
        ((400, 600), None, {"long_side": 300}),
        ((600, 400), None, {"long_side": 300}),
        ((600, 400), None, {"long_side": 900, "multiple": 14}),
        ((600, 400), (100, 250, 340, 590), {"long_side": 300, "multiple": 14}),
        ((400, 600), (-20, -5, 380.4, 1000), {"long_side": 450, "scales": (0.7071, 1.0, 1.4142)}),
    ],
)
def test_what_is_seen_in_the_input_is_found_in_the_image(shape, box, sizing):
    """A bright spot's centre in the input, carried back, is where it was drawn."""
    row, column = 0.6 * shape[0], 0.55 * shape[1]
    image = np.zeros((*shape, 3), np.uint8)
    image[int(row) - 9 : int(row) + 9, int(column) - 9 : int(column) + 9] = 255
    for found in network_inputs(image, Sizing(**sizing), box):
        bright = np.argwhere(found.pixels[..., 0] > 127)
        centre = torch.tensor(bright.mean(0) + 0.5)
        back = found.placement.pixels(centre).tolist()
        assert back == pytest.approx([int(row), int(column)], abs=2)
        shares = found.placement.normalized(centre).tolist()
        assert shares == pytest.approx([int(row) / shape[0], int(column) / shape[1]], abs=0.005)


def test_corners_of_the_input_are_corners_of_the_image():
    (found,) = inputs((333, 517), multiple=14)
    corners = torch.tensor([[0.0, 0.0], found.pixels.shape[:2]])
    torch.testing.assert_close(found.placement.pixels(corners), torch.tensor([[0.0, 0.0], [333.0, 517.0]]))
    torch.testing.assert_close(found.placement.normalized(corners), torch.tensor([[0.0, 0.0], [1.0, 1.0]]))


def test_boxes_are_cut_at_the_border_and_refused_outside():
    assert whole_pixels([-5, 1.6, 99, 7], 10, 20) == (2, 0, 7, 20)
    for box in ([20, 0, 30, 10], [3, 3, 3, 9], [9, 0, 2, 5], [-9, -9, 0, 0]):
        with pytest.raises(UnreadableImage, match="shows nothing of 20 x 10 pixels"):
            whole_pixels(box, 10, 20)
    with pytest.raises(UnreadableImage, match="is none"):
        whole_pixels([0, 0, float("nan"), 5], 10, 20)


def test_smaller_by_area_larger_linear():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::2] = 200
    (small,) = network_inputs(stripes, Sizing(32))
    assert set(np.unique(small.pixels)) == {100}  # the mean of two rows, where nothing is skipped
    image = photos.scene(0)
    (same,) = network_inputs(image, Sizing(0))
    np.testing.assert_array_equal(same.pixels, image)
