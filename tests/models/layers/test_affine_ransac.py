"""RANSAC of affine models against a twin that solves every triple, and by hand."""

from itertools import combinations

import numpy as np
import pytest
import torch

from ames.models.layers.affine_ransac import affine_inliers, triples

LIMITS = {"residual": 20.0, "trials": 1000, "seed": 0}


def optimum(query, database, residual):
    """The largest number of inliers that any triple of matches reaches, by numpy's solver."""
    most = 0
    points = np.concatenate([database, np.ones((len(database), 1))], 1)
    for rows in map(list, combinations(range(len(query)), 3)):
        if abs(np.linalg.det(points[rows])) < 1e-6:
            continue
        model = np.linalg.solve(points[rows], query[rows])
        most = max(most, int((np.linalg.norm(points @ model - query, axis=1) < residual).sum()))
    return most


def drawn(count, true, seed, noise=4.0):
    """Matched points [count, 2]; the first ``true`` follow an affine model up to noise."""
    rng = np.random.default_rng(seed)
    query, database = rng.random((2, count, 2)) * 800
    noise = noise * rng.standard_normal((true, 2))
    query[:true] = database[:true] @ np.array([[0.9, 0.2], [-0.1, 1.1]]) + [30, -60] + noise
    return query, database


def found(*pairs, **limits):
    """Inliers of pairs of unequal length, in one call: a list of bool arrays."""
    counts = torch.tensor([len(query) for query, _ in pairs])
    sides = [torch.full((len(pairs), int(counts.max()), 2), 7.0) for _ in range(2)]  # padding is not read
    for row, pair in enumerate(pairs):
        for side, points in zip(sides, pair, strict=True):
            side[row, : len(points)] = torch.from_numpy(points)
    inliers = affine_inliers(*sides, counts, **LIMITS | limits).numpy()
    assert not any(inliers[row, n:].any() for row, n in enumerate(counts))
    return [inliers[row, :n] for row, n in enumerate(counts)]


@pytest.mark.parametrize("count", [4, 5, 9, 14, 18])
def test_all_triples_of_few_matches_are_tried(count):
    for seed in range(5):
        pair = drawn(count, count // 2, seed)
        assert found(pair)[0].sum() == optimum(*pair, 20.0)


@pytest.mark.parametrize("trials", [20, 200, 5000])
def test_no_sample_exceeds_the_optimum_and_enough_reach_it(trials):
    reached = []
    for seed in range(8):
        pair = drawn(24, 10, seed)
        reached.append((found(pair, trials=trials)[0].sum(), optimum(*pair, 20.0)))
    assert all(mine <= best for mine, best in reached)
    if trials == 5000:  # of 2,024 triples
        assert all(mine == best for mine, best in reached)


def test_inliers_are_those_of_the_true_model():
    pair = drawn(80, 40, 3, noise=0.5)
    (inliers,) = found(pair, residual=3.0)
    assert inliers[:40].all()
    assert inliers[40:].sum() <= 2


def test_a_pair_alone_and_in_any_batch_has_the_same_inliers():
    pairs = [drawn(n, n // 3, seed) for seed, n in enumerate((60, 4, 33, 90, 47, 3, 0, 90))]
    alone = [found(pair)[0] for pair in pairs]
    for order in (range(8), reversed(range(8)), (3, 0, 5)):
        order = list(order)
        for row, inliers in zip(order, found(*(pairs[i] for i in order)), strict=True):
            np.testing.assert_array_equal(inliers, alone[row])


def test_seeds_draw_other_samples_and_the_same_again():
    tables = [triples(50, 100, seed) for seed in (0, 0, 1)]
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])
    for table in (*tables, triples(4, 100, 0)):
        assert (table.sort(-1).values.diff(dim=-1) > 0).all()  # three different matches
    assert len(triples(4, 100, 0)) == 4
    assert len(triples(3, 1, 0)) == 1
    assert set(triples(30, 4000, 0).flatten().tolist()) == set(range(30))


def test_points_on_a_line_have_no_model():
    line = np.arange(6)[:, None] * np.array([[10.0, 25.0]])
    elsewhere = np.random.default_rng(0).random((6, 2)) * 100
    assert not found((elsewhere, line))[0].any()
    same = np.full((6, 2), 5.0)
    assert not found((elsewhere, same))[0].any()
    assert found((line, elsewhere))[0].sum() >= 3  # a line in the query is an image of the plane


def test_the_threshold_itself_is_outside():
    database = np.array([[0.0, 0], [100, 0], [0, 100], [50, 50]])
    for far, inliers in ((20.0, 3), (19.0, 4)):
        query = database + np.array([[0, 0], [0, 0], [0, 0], [far, 0]])
        # The first three put the fourth so far away, and the others no nearer.
        assert found((query, database))[0].sum() == inliers == optimum(query, database, 20.0)
