"""Neighbours within a distance: a naive twin, edges of cells, and many images."""

import math

import numpy as np
import pytest

from ames.datasets.benchmarks.places import within


def naive(queries, gallery, radius):
    return [
        [n for n, (x, y) in enumerate(gallery) if math.sqrt((x - a) ** 2 + (y - b) ** 2) <= radius]
        for a, b in queries
    ]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("radius", [0.5, 25.0, 400.0])
def test_a_naive_twin(seed, radius):
    rng = np.random.default_rng([seed, 21])
    offset = np.array([-300.0, 4.47e6])
    gallery = rng.uniform(0, 500, (300, 2)) + offset
    queries = np.concatenate([rng.uniform(-100, 600, (40, 2)) + offset, gallery[:5]])
    assert [ids.tolist() for ids in within(queries, gallery, radius)] == naive(queries, gallery, radius)


def test_grid_points_at_exactly_the_radius():
    """On a lattice of the radius, the point and its four neighbours; diagonals are too far."""
    axis = np.arange(-3, 4) * 25.0
    gallery = np.array([(x, y) for x in axis for y in axis])
    found = within(gallery, gallery, 25.0)
    assert [ids.tolist() for ids in found] == naive(gallery, gallery, 25.0)
    assert {len(ids) for ids in found} == {3, 4, 5}


def test_no_image_is_near():
    (found,) = within(np.array([[0.0, 0.0]]), np.array([[1e6, -1e6]]), 25.0)
    assert found.tolist() == []
    assert found.dtype == np.int64


def test_many_pairs_take_little_memory():
    """6,000 queries and 40,000 images: 240 million pairs, of which a thousandth is looked at."""
    rng = np.random.default_rng(5)
    gallery, queries = rng.uniform(0, 10_000, (40_000, 2)), rng.uniform(0, 10_000, (6_000, 2))
    found = within(queries, gallery, 25.0)
    near = np.sqrt(((gallery - queries[17]) ** 2).sum(1)) <= 25
    assert found[17].tolist() == np.flatnonzero(near).tolist()
    assert sum(map(len, found)) > 3_000
