"""Average precision and precision at k: cases worked out by hand, and a twin written with loops."""

import numpy as np
import pytest

from ames.errors import AmesError
from ames.evaluation.metrics import average_precision, precision_at


def naive_average_precision(relevant, num_positives, rule, cutoff):
    """Walk down a list of booleans; `relevant` says of each position whether it is a positive."""
    total, hits = 0.0, 0
    for position, is_relevant in enumerate(relevant[:cutoff]):
        if not is_relevant:
            continue
        before = 1.0 if position == 0 else hits / position
        hits += 1
        after = hits / (position + 1)
        total += after if rule == "rectangle" else (before + after) / 2
    return 100 * total / (num_positives if cutoff is None else min(num_positives, cutoff))


def naive_precision_at(relevant, num_positives, k):
    if sum(relevant) == num_positives:
        last = max(i for i, is_relevant in enumerate(relevant) if is_relevant)
        k = min(k, last + 1)
    return 100 * sum(relevant[:k]) / k


@pytest.mark.parametrize("rule", ["trapezoid", "rectangle"])
@pytest.mark.parametrize("cutoff", [None, 1, 7, 30, 1000])
def test_agrees_with_loops(rule, cutoff):
    rng = np.random.default_rng(0)
    for _ in range(50):
        relevant = rng.random(40) < rng.random()
        missing = int(rng.integers(0, 5))
        positives = int(relevant.sum()) + missing
        if positives == 0:
            continue
        ranks = np.flatnonzero(relevant)
        expected = naive_average_precision(relevant.tolist(), positives, rule, cutoff)
        assert average_precision(ranks, positives, rule=rule, cutoff=cutoff) == pytest.approx(expected)
        ks = [1, 3, 10, 40]
        expected_at = [naive_precision_at(relevant.tolist(), positives, k) for k in ks]
        assert precision_at(ranks, ks, num_positives=positives) == pytest.approx(expected_at)


@pytest.mark.parametrize(
    ("ranks", "positives", "rule", "cutoff", "expected"),
    [
        ([0, 1, 2], 3, "trapezoid", None, 100.0),
        ([0, 1, 2], 3, "rectangle", None, 100.0),
        ([0, 1, 2], 6, "rectangle", None, 50.0),  # three of six never found
        ([1], 1, "trapezoid", None, 25.0),  # (0 + 1/2) / 2
        ([1], 1, "rectangle", None, 50.0),
        ([0, 2], 2, "trapezoid", None, 100 * (1 + (1 / 2 + 2 / 3) / 2) / 2),
        ([0, 2], 2, "rectangle", None, 100 * (1 + 2 / 3) / 2),
        ([0, 2], 2, "rectangle", 2, 50.0),  # the second hit is behind the cut
        ([0, 1], 5, "rectangle", 2, 100.0),  # divided by the cutoff, not by the positives
        ([], 4, "trapezoid", None, 0.0),
    ],
)
def test_average_precision_by_hand(ranks, positives, rule, cutoff, expected):
    ranks = np.array(ranks, dtype=np.int64)
    assert average_precision(ranks, positives, rule=rule, cutoff=cutoff) == pytest.approx(expected)


def test_precision_at_stops_at_the_last_positive():
    assert precision_at(np.array([0, 1]), [1, 5, 10], num_positives=2) == pytest.approx([100, 100, 100])
    assert precision_at(np.array([0, 3]), [1, 2, 10], num_positives=2) == pytest.approx([100, 50, 50])


def test_precision_at_keeps_k_when_a_positive_is_missing():
    assert precision_at(np.array([0, 1]), [1, 5, 10], num_positives=3) == pytest.approx([100, 40, 20])
    assert precision_at(np.array([], dtype=np.int64), [1, 5], num_positives=3) == pytest.approx([0, 0])


def test_no_positive_is_not_a_number():
    none = np.array([], dtype=np.int64)
    assert np.isnan(average_precision(none, 0))
    assert np.isnan(precision_at(none, [1, 5], num_positives=0)).all()


@pytest.mark.parametrize(
    ("ranks", "arguments", "message"),
    [
        ([0], {"num_positives": 1, "rule": "square"}, "'square': choose one of trapezoid, rectangle"),
        ([0], {"num_positives": 1, "cutoff": 0}, "cutoff of average precision is 0"),
        ([2, 1], {"num_positives": 2}, "ascending"),
        ([1, 1], {"num_positives": 2}, "ascending"),
        ([-1, 1], {"num_positives": 2}, "from 0 on"),
        ([0, 1], {"num_positives": 1}, "2 positives were found for a query that has 1"),
    ],
)
def test_errors_of_average_precision(ranks, arguments, message):
    with pytest.raises(AmesError, match=message):
        average_precision(np.array(ranks), **arguments)


def test_error_of_precision_at():
    with pytest.raises(AmesError, match="k = 0: give values of at least 1"):
        precision_at(np.array([0]), [5, 0], num_positives=1)
