"""VLAD against a naive loop."""

import numpy as np
import pytest
import torch

from ames.backbones.vlad import Vlad, aggregate
from ames.errors import AmesError
from ames.weights.files import read_weights, save_state

D, REDUCED, CENTROIDS, DIM = 10, 4, 3, 5


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.random((rng.integers(20, 40), D)).astype(np.float32) for _ in range(40)]


@pytest.fixture(scope="module")
def vlad(images):
    return Vlad.fit(images, reduced=REDUCED, centroids=CENTROIDS, dim=DIM)


def naive(vlad, descriptors):
    sums = np.zeros((len(vlad.centroids), vlad.centroids.shape[1]))
    for descriptor in descriptors:
        x = (descriptor - vlad.mean) @ vlad.pca
        nearest = min(range(len(sums)), key=lambda i: np.linalg.norm(x - vlad.centroids[i]))
        sums[nearest] += x - vlad.centroids[nearest]
    for row in sums:
        if np.linalg.norm(row):
            row /= np.linalg.norm(row)
    raw = sums.ravel() / np.linalg.norm(sums)
    projected = (raw - vlad.vlad_mean) @ vlad.whiten
    return projected / np.linalg.norm(projected)


def test_encode_is_the_naive_loop(vlad, images):
    assert vlad.dim == DIM
    for image in [*images[:5], images[0][:1]]:
        found = vlad.encode(image)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, naive(vlad, image), atol=2e-5)


def test_the_order_of_descriptors_does_not_matter(vlad, images):
    np.testing.assert_allclose(vlad.encode(images[0]), vlad.encode(images[0][::-1]), atol=1e-5)


def test_no_descriptors_give_the_zero_vector(vlad):
    found = vlad.encode(np.zeros((0, D), np.float32))
    assert found.shape == (DIM,)
    assert not found.any()


def test_a_descriptor_on_its_centroid_leaves_no_residual():
    centroids = np.float32([[0, 0], [4, 0]])
    assert not aggregate(np.float32([[4, 0]]), centroids).any()
    # intra-normalization: three residuals of one centroid weigh as much as one of the other
    found = aggregate(np.float32([[0, 1], [0, 2], [0, 3], [4, -1]]), centroids)
    np.testing.assert_allclose(found, np.float32([0, 1, 0, -1]) / np.sqrt(2), atol=1e-6)


def test_the_projection_is_centred_uncorrelated_and_half_whitened(vlad, images):
    raw = np.stack([aggregate((x - vlad.mean) @ vlad.pca, vlad.centroids) for x in images]) - vlad.vlad_mean
    projected = raw @ vlad.whiten
    np.testing.assert_allclose(projected.mean(0), 0, atol=1e-4)
    covariance = projected.T @ projected / len(projected)
    directions = vlad.whiten / np.linalg.norm(vlad.whiten, axis=0)
    np.testing.assert_allclose(directions.T @ directions, np.eye(DIM), atol=1e-4)
    # each direction is divided by its variance to the power 1/4, so its square root is what is left
    left = np.sqrt((raw @ directions).var(0))
    np.testing.assert_allclose(covariance, np.diag(left), atol=1e-3)


def test_save_and_load(vlad, images, tmp_path):
    vlad.save(tmp_path / "x.safetensors")
    loaded = Vlad.load(tmp_path / "x.safetensors")
    assert all(x.dtype == np.float32 for x in vars(loaded).values())
    for image in images[:5]:
        assert loaded.encode(image) @ vlad.encode(image) > 0.999  # stored as fp16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.unlink(), "no such checkpoint"),
        (lambda p: p.write_bytes(p.read_bytes()[:100]), "not a readable safetensors file"),
        (
            lambda p: save_state(p, {"pca": torch.zeros(D, 2)}, {}),
            r"not a VLAD model: it lacks mean \(10,\)",
        ),
        (
            lambda p: save_state(p, read_weights(p).state | {"whiten": torch.zeros(7, DIM)}, {}),
            r"not a VLAD model: whiten is \(7, 5\), this model's is \(12, 5\)",
        ),
        (
            lambda p: save_state(p, read_weights(p).state | {"more": torch.zeros(1)}, {}),
            r"not a VLAD model: more \(1,\) has no place in this one",
        ),
    ],
)
def test_what_is_no_vlad_model(vlad, tmp_path, change, message):
    path = tmp_path / "x.safetensors"
    vlad.save(path)
    change(path)
    with pytest.raises(AmesError, match=f"x.safetensors: {message}"):
        Vlad.load(path)


def test_fitting_is_deterministic(vlad, images):
    again = Vlad.fit(images, reduced=REDUCED, centroids=CENTROIDS, dim=DIM)
    np.testing.assert_allclose(again.encode(images[3]), vlad.encode(images[3]), atol=1e-5)


def test_fitting_needs_more_images_than_dimensions(images):
    with pytest.raises(ValueError, match="needs more than 5 images, got 3"):
        Vlad.fit([*images[:3], np.zeros((0, D), np.float32)], reduced=4, centroids=3, dim=DIM)
