"""ALIKED at its keypoints alone, against kornia's own ``forward``."""

import pytest
import torch

from ames.backbones import make_backbone
from helpers import photos
from helpers.learned import made, tensors

kornia = pytest.importorskip("kornia.feature")


@torch.no_grad()
@pytest.mark.parametrize(
    "size", [(96, 128), (97, 75), (33, 160)]
)  # padded by nothing, by odd and even numbers
@pytest.mark.parametrize("name", ["aliked", "aliked-t16", "aliked-n32"])
def test_values_are_those_of_kornias_forward(name, size):
    network = made(name)
    count = 60
    reference = kornia.ALIKED(network.SIZES[name], max_num_keypoints=count, detection_threshold=0).eval()
    reference.load_state_dict(network.network.state_dict())
    images = torch.cat([tensors(photos.scene(seed, size=size)) for seed in (1, 2)])
    found = network.keypoints(images, count)
    assert found.width == network.local_dim == {"aliked-t16": 64}.get(name, 128)
    for number, one in enumerate(reference(images)):
        order = one.keypoint_scores.argsort(descending=True, stable=True)
        assert len(order) == int(found.counts[number]) > 10
        mine = found[number].trim(len(order))
        torch.testing.assert_close(mine.weight, one.keypoint_scores[order], atol=2e-5, rtol=0)
        torch.testing.assert_close(mine.positions, one.keypoints[order].flip(1) + 0.5, atol=2e-3, rtol=0)
        torch.testing.assert_close(mine.descriptors, one.descriptors[order], atol=2e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 40), (4, 4), (40, 3)])
def test_images_too_small_for_a_point(size):
    found = made("aliked").keypoints(torch.rand(2, 3, *size), 10)
    assert found.descriptors.shape == (2, 0, 128)
    assert found.positions.shape == (2, 0, 2)


@torch.no_grad()
def test_a_count_above_the_pixels():
    found = made("aliked").keypoints(tensors(photos.scene(1, size=(20, 30))), 10_000)
    assert 0 < found.size < 100


def test_the_network_is_the_named_one():
    sizes = {
        name: make_backbone(name, weights=None, vector=False).network.model_name
        for name in ("aliked", "aliked-t16")
    }
    assert sizes == {"aliked": "aliked-n16", "aliked-t16": "aliked-t16"}
