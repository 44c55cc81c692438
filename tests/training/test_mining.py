"""Mined negatives: figures of the released code, frequencies, and cases by hand."""

import numpy as np
import pytest

from ames.errors import AmesError
from ames.training.mining import draw_negatives, negative_probabilities
from golden import raml

(DISTANCE,) = raml.CASES["distance_weighted"]


def golden_probabilities():
    seed, dim, classes = DISTANCE["seed"], DISTANCE["dim"], DISTANCE["classes"]
    pool, queries = raml.unit((DISTANCE["pool"], dim), seed), raml.unit((DISTANCE["queries"], dim), seed + 1)
    anchors = raml.labels(DISTANCE["queries"], classes, seed + 1)
    return negative_probabilities(
        queries.numpy(), pool.numpy(), anchors, raml.labels(DISTANCE["pool"], classes, seed)
    )


def test_probabilities_are_those_of_the_released_code():
    np.testing.assert_allclose(golden_probabilities(), DISTANCE["probabilities"], rtol=1e-5)


def at(distance, dim=4):
    """A unit vector so far from the first axis."""
    cosine = 1 - distance**2 / 2
    return np.array([cosine, np.sqrt(1 - cosine**2)] + [0.0] * (dim - 2))


def test_probabilities_are_the_inverse_density_of_distances():
    def density(x, dim):
        return x ** (dim - 2) * (1 - x * x / 4) ** ((dim - 3) / 2)

    distances = [0.2, 0.5, 0.9, 1.3, 1.9]
    pool = np.stack([at(x) for x in distances])
    found = negative_probabilities(at(0)[None], pool, np.array([7]), np.arange(5))[0]
    weights = np.array([1 / density(max(x, 0.5), 4) for x in distances])
    np.testing.assert_allclose(found, weights / weights.sum(), rtol=1e-5)
    assert found[0] == pytest.approx(found[1])


def test_extremes_have_probabilities_too():
    anchor = at(0)[None]
    opposite = negative_probabilities(anchor, np.stack([-at(0), at(1)]), np.array([0]), np.array([1, 1]))
    assert np.isfinite(opposite).all()
    assert opposite[0, 0] > 0.99  # the density of opposite vectors is 0
    alone = negative_probabilities(anchor, np.stack([at(1), at(1.2)]), np.array([0]), np.array([0, 0]))
    np.testing.assert_allclose(alone, [[0.5, 0.5]])


def test_negatives_are_drawn_as_often_as_probable_and_never_twice():
    probabilities = np.array([[0.1, 0.2, 0.3, 0.4]])
    numbers = np.random.default_rng(0).random((20_000, 2))
    drawn = draw_negatives(np.repeat(probabilities, len(numbers), 0), numbers)
    np.testing.assert_allclose(np.bincount(drawn[:, 0]) / len(drawn), probabilities[0], atol=0.015)
    assert (drawn[:, 0] != drawn[:, 1]).all()
    # the second: what is left, in proportion
    wanted = [sum(p * q / (1 - p) for p in probabilities[0] if p != q) for q in probabilities[0]]
    np.testing.assert_allclose(np.bincount(drawn[:, 1]) / len(drawn), wanted, atol=0.015)


def test_all_of_a_pool_can_be_drawn_and_no_more():
    drawn = draw_negatives(np.full((3, 4), 0.25), np.random.default_rng(1).random((3, 4)))
    assert [sorted(row) for row in drawn.tolist()] == [[0, 1, 2, 3]] * 3
    assert draw_negatives(np.array([[0.5, 0.5]]), np.array([[0.999999999999]])).tolist() == [[1]]
    with pytest.raises(AmesError, match="3 negatives cannot be drawn from 2 images"):
        draw_negatives(np.full((1, 2), 0.5), np.zeros((1, 3)))
