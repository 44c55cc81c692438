"""Halves that share no object, and intervals by the bootstrap."""

import numpy as np
import pytest

from ames.errors import AmesError
from ames.evaluation.held_out import halves, interval

OBJECTS = [name for name in "abcde" for _ in range(3)]


def test_halves_share_no_object():
    first, second = halves(OBJECTS, seed=1)
    sides = [{OBJECTS[row] for row in rows} for rows in (first, second)]
    assert [len(side) for side in sides] == [3, 2]
    assert not sides[0] & sides[1]
    assert sorted([*first, *second]) == list(range(15))
    assert halves(OBJECTS, seed=1)[0].tolist() == first.tolist()
    assert len({tuple(halves(OBJECTS, seed=seed)[0]) for seed in range(20)}) > 3
    with pytest.raises(AmesError, match="1 object with answers: choosing and reporting need two"):
        halves(["a", "a"])


def test_interval_of_equal_values_is_a_point():
    assert interval(np.full(15, 2.5), OBJECTS) == interval(np.full(15, 2.5), OBJECTS, seed=5)
    found = interval(np.full(15, 2.5), OBJECTS)
    assert (found.mean, found.low, found.high) == (2.5, 2.5, 2.5)
    assert found.tells


def test_interval_draws_objects_not_queries():
    values = np.repeat([-1.0, 1.0, -1.0, 1.0], 50)  # queries of one object say the same
    names = [name for name in "abcd" for _ in range(50)]
    found = interval(values, names)
    # The mean of 4 draws of -1 or 1: P(-1) = 1/16 > 2.5 %.
    assert (found.mean, found.low, found.high) == (0, -1, 1)
    assert not found.tells
    assert interval(np.append(values, np.nan), [*names, "e"]) == found
    many = interval(np.tile([-1.0, 1.0], 100), [str(i) for i in range(200)])
    assert many.high == pytest.approx(1.96 / np.sqrt(200), abs=0.03)
    with pytest.raises(AmesError, match="no query has an answer"):
        interval(np.full(2, np.nan), ["a", "b"])
