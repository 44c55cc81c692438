"""Intervals and paired differences, against plain loops."""

import numpy as np
import pytest

from ames.bench.significance import difference, mean, query_objects, seed_spread
from ames.datasets.ground_truth import GroundTruth
from ames.evaluation.protocols import HARD, LEAVE_ONE_OUT, MEDIUM


def truth(*queries):
    made = [{key: np.array(value, int) for key, value in query.items()} for query in queries]
    names = [f"q{i}" for i in range(len(made))] if "easy" in made[0] else [str(i) for i in range(len(made))]
    return GroundTruth(made, [str(i) for i in range(20)], names)


def test_queries_that_share_a_positive_are_one_object():
    queries = [
        {"easy": [0], "hard": [1], "junk": []},
        {"easy": [2], "hard": [3], "junk": []},
        {"easy": [4], "hard": [1], "junk": []},
        {"easy": [4], "hard": [5], "junk": []},
    ]
    found = query_objects(truth(*queries), MEDIUM)
    assert found[0] == found[2] == found[3] != found[1]
    found = query_objects(truth(*queries), HARD)
    assert found[0] == found[2]
    assert len(set(found)) == 3


def test_a_query_that_is_a_positive_of_another_is_of_its_object():
    """Leave-one-out, two images an object: 0 finds 1, and 1 finds 0."""
    queries = [{"ok": [1], "junk": [0]}, {"ok": [0], "junk": [1]}, {"ok": [3], "junk": [2]}]
    found = query_objects(truth(*queries), LEAVE_ONE_OUT)
    assert found[0] == found[1] != found[2]


def test_the_mean_is_over_all_queries_and_the_interval_resamples_objects():
    values = [np.array([10.0, 30.0, np.nan]), np.array([80.0])]
    found = mean(values, [["a", "a", "b"], ["a"]])
    assert found.mean == pytest.approx(40)
    rng = np.random.default_rng(0)
    drawn = rng.integers(2, size=(2000, 2))  # two objects
    means = np.array([40, 80])[drawn].sum(1) / np.array([2, 1])[drawn].sum(1)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))
    assert mean([np.array([np.nan])], [["a"]]) is None


def test_a_difference_is_paired():
    rng = np.random.default_rng(1)
    hard = rng.uniform(0, 100, 50)  # queries differ much, methods little
    objects = [[str(i) for i in range(50)]]
    found = difference([hard + 1], [hard], objects)
    assert (found.mean, found.low, found.high) == pytest.approx((1, 1, 1))
    assert mean([hard], objects).high - mean([hard], objects).low > 10


def test_the_deviation_over_seeds():
    assert seed_spread([np.array([1.0, 3.0])]) is None
    assert seed_spread([np.array([1.0, 3.0]), np.array([4.0, np.nan]), np.array([6.0])]) == pytest.approx(2)
