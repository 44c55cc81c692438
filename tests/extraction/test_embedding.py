"""Vectors of images: those of the embedder, computed by hand."""

import cv2
import numpy as np
import pytest
import torch

from ames.embedders.network import GlobalNetwork
from ames.extraction.base import ImageRegion
from ames.extraction.embedding import embed_images


def network(**options):
    torch.manual_seed(3)
    chosen = {"trunk": "resnet10", "width": 0.125, "dim": 16, "size": 32} | options
    return GlobalNetwork(**chosen).eval()


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(5)
    paths = []
    for number, (height, width) in enumerate([(40, 60), (50, 30), (64, 64), (33, 90), (40, 60)]):
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), rng.integers(0, 256, (height, width, 3), np.uint8))
        paths.append(path)
    return paths


def by_hand(embedder, image, box=None):
    if box is not None:
        x1, y1, x2, y2 = box
        image = image[y1:y2, x1:x2]
    with torch.no_grad():
        return embedder(embedder.inputs.tensor([embedder.inputs.fit(image)]))[0].numpy()


@pytest.mark.parametrize("resize", ["crop", "square", "long"])
@pytest.mark.parametrize("workers", [0, 2])
def test_embedded_images_are_what_the_embedder_makes_of_each(photos, resize, workers):
    embedder = network(resize=resize)
    found = embed_images(embedder, [ImageRegion(x) for x in photos], batch_size=2, workers=workers)
    wanted = np.stack([by_hand(embedder, cv2.imread(str(x))) for x in photos])
    assert found.vectors.dtype == np.float32
    assert np.allclose(found.vectors, wanted, atol=1e-6)
    assert not found.unreadable


def test_a_box_is_cut_before_the_image_is_resized(photos):
    embedder, box = network(), (5, 8, 50, 36)
    found = embed_images(embedder, [ImageRegion(photos[0], box), ImageRegion(photos[0])])
    wanted = by_hand(embedder, cv2.imread(str(photos[0])), box)
    assert np.allclose(found.vectors[0], wanted, atol=1e-6)
    assert not np.allclose(found.vectors[1], wanted, atol=1e-3)


def test_unreadable_images_keep_their_row(photos, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    regions = [ImageRegion(photos[0]), ImageRegion(tmp_path / "broken.jpg"), ImageRegion(photos[1])]
    regions.append(ImageRegion(photos[2], (100, 100, 200, 200)))
    found = embed_images(network(), regions)
    assert list(found.unreadable) == [1, 3]
    assert "shows nothing of 64 x 64 pixels" in found.unreadable[3]
    assert not found.vectors[[1, 3]].any()
    alone = embed_images(network(), [ImageRegion(photos[1])])
    assert np.allclose(found.vectors[2], alone.vectors[0], atol=1e-6)


def test_a_training_goes_on_in_its_mode_with_its_statistics(photos):
    embedder = network().train()
    embedder.backbone[1].eval()
    before = {name: x.clone() for name, x in embedder.state_dict().items()}
    found = embed_images(embedder, [ImageRegion(x) for x in photos])
    assert embedder.training
    assert not embedder.backbone[1].training
    assert embedder.backbone[4].training
    assert all(torch.equal(before[name], x) for name, x in embedder.state_dict().items())
    assert np.allclose(found.vectors[0], by_hand(embedder.eval(), cv2.imread(str(photos[0]))), atol=1e-6)


def test_values_that_are_not_finite_are_no_vector(photos):
    embedder = network()
    torch.nn.init.constant_(embedder.whiten.bias, float("nan"))
    found = embed_images(embedder, [ImageRegion(photos[0])])
    assert "not finite" in found.unreadable[0]
    assert not found.vectors.any()
