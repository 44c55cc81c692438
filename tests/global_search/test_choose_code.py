"""Tuning: recall against exact search, and what fits a number of bytes."""

import numpy as np
import pytest

from ames.errors import AmesError
from ames.global_search.choose_code import Measured, Pick, measure, pick
from helpers.clusters import unit


def test_recall_is_against_exact_search():
    x = unit(800)
    found, left_out = measure(x, factories=("Flat", "SQ8", "SQ4", "PCA8,SQ4"), sample=100)
    assert not left_out
    by_name = {m.factory: m for m in found}
    assert by_name["Flat"].recall == {1: 1.0, 10: 1.0, 100: 1.0}
    falling = [by_name[name].recall[100] for name in ("SQ8", "SQ4", "PCA8,SQ4")]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] < 0.9 < falling[0]
    assert [m.bytes for m in found] == [128, 32, 16, 4]
    again, _ = measure(x, factories=("SQ4",), sample=100)
    assert again[0].recall == by_name["SQ4"].recall


def test_lengths_do_not_matter():
    x = unit(300)
    lengths = np.random.default_rng(0).uniform(1, 50, (300, 1)).astype(np.float32)
    one, other = (measure(vectors, factories=("SQ4",), sample=50)[0][0] for vectors in (x, x * lengths))
    assert one.recall == pytest.approx(other.recall, abs=0.01)


def test_recall_by_hand():
    """Ten vectors on a circle, queries of their own: the two nearest of each are known."""
    angle = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    x = np.stack((np.cos(angle), np.sin(angle)), 1).astype(np.float32)
    turn = np.deg2rad(10)
    q = x @ np.float32([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    found, _ = measure(x, q, factories=("SQfp16",), ks=(1, 2))
    assert found[0].recall == {1: 1.0, 2: 1.0}


def test_queries_without_keypoints_say_nothing_about_a_code():
    x = unit(60)
    found, _ = measure(x, np.concatenate((np.zeros_like(x[:3]), x[:5])), factories=("Flat",), sample=4)
    assert found[0].recall == {1: 1.0, 10: 1.0}


def test_nothing_could_be_measured():
    with pytest.raises(AmesError, match="no factory could be measured"):
        pick([], bytes_per_image=1024)


def test_factories_that_do_not_suit_are_named():
    found, left_out = measure(unit(60), factories=("SQ8", "IVF64,SQ8", "nonsense"), ks=(1, 10))
    assert [m.factory for m in found] == ["SQ8"]
    assert set(left_out) == {"IVF64,SQ8", "nonsense"}


def test_too_little_to_measure():
    with pytest.raises(AmesError, match="1 global descriptors and 1 queries are too few"):
        measure(unit(1))


def made(factory, size, recall):
    return Measured(factory, size, {1: recall, 100: recall}, 1.0, 1.0)


MEASURED = [
    made("small", 32, 0.6),
    made("middle", 128, 0.93),
    made("large", 192, 0.94),
    made("huge", 512, 1.0),
]


@pytest.mark.parametrize(
    ("budget", "desc_bytes", "expected"),
    [
        (1050, 16, Pick("middle", 54, 1040)),  # large fits too, and is no better than the tolerance
        (2000, 16, Pick("huge", 90, 2000)),
        (14000, 256, Pick("huge", 52, 13872)),
        (900, 16, Pick("small", 51, 896)),
    ],
)
def test_the_rest_of_the_bytes_is_for_local_descriptors(budget, desc_bytes, expected):
    assert pick(MEASURED, bytes_per_image=budget, desc_bytes=desc_bytes, overhead=48) == expected


def test_a_budget_that_holds_nothing():
    with pytest.raises(
        AmesError, match=r"100 bytes per image hold no 50 local descriptors .* \(smallest: 32\)"
    ):
        pick(MEASURED, bytes_per_image=100)
