"""Sliding windows: where they start, and the order that they leave."""

import numpy as np
import pytest

from ames.errors import AmesError
from ames.reranking.fusion import Fusion
from ames.reranking.windows import ROUTES, Windows, rank_by_windows

# Of LOCORE's released code: total, window, stride, starts.
RELEASED = [
    ("end-to-start", 10, 4, 2, [6, 4, 2, 0]),
    ("start-to-end", 10, 4, 2, [0, 2, 4, 6]),
    ("start-to-end-to-start", 10, 4, 2, [0, 2, 4, 6, 4, 2, 0]),
    ("end-to-start-to-end", 10, 4, 2, [6, 4, 2, 0, 2, 4, 6]),
    ("end-to-start", 12, 6, 3, [6, 3, 0]),
    ("start-to-end", 12, 6, 3, [0, 3, 6]),
    ("start-to-end-to-start", 12, 6, 3, [0, 3, 6, 3, 0]),
    ("end-to-start-to-end", 12, 6, 3, [6, 3, 0, 3, 6]),
    ("end-to-start", 400, 100, 50, [300, 250, 200, 150, 100, 50, 0]),
]


@pytest.mark.parametrize(("route", "total", "window", "stride", "starts"), RELEASED)
def test_starts_are_those_of_the_released_code(route, total, window, stride, starts):
    assert Windows(route=route, stride=stride).starts(total, window) == starts


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("total", "window", "stride"), [(100, 100, 25), (3, 8, None), (10, 4, 4), (11, 4, 3)]
)
def test_windows_cover_the_list_and_stay_inside(route, total, window, stride):
    starts = Windows(route=route, stride=stride).starts(total, window)
    assert {0, max(total - window, 0)} <= set(starts)
    assert min(starts) >= 0
    assert max(starts) == max(total - window, 0)
    covered = {column for start in starts for column in range(start, min(start + window, total))}
    assert covered == set(range(total))
    assert len(starts) == 1 if total <= window else len(starts) > 1


def test_an_item_climbs_from_the_end_to_the_start():
    worth = np.array([[0.0, 1.0, 2.0, 3.0, 9.0]])  # the last one is the best by far

    def score(columns):
        return np.take_along_axis(worth, columns, 1).astype(np.float32)

    same = np.zeros((1, 5), np.float32)
    local = Fusion(lamb=0.0, gamma=1.0)
    climbed = rank_by_windows(score, same, local, window=2, windows=Windows(stride=1))
    assert climbed.tolist() == [[4, 0, 1, 2, 3]]  # one bubble
    stayed = rank_by_windows(score, same, local, window=2, windows=Windows(stride=1, route="start-to-end"))
    assert stayed.tolist() == [[1, 2, 3, 4, 0]]  # it is met only in the last window


def test_the_blend_uses_the_similarity_of_each_candidate_and_ties_keep_their_order():
    similarities = np.array([[0.1, 0.9, 0.5, 0.5]], np.float32)
    order = rank_by_windows(
        lambda columns: np.zeros(columns.shape, np.float32),
        similarities,
        Fusion(lamb=1.0, gamma=1.0),
        window=4,
        windows=Windows(),
    )
    assert order.tolist() == [[1, 2, 3, 0]]


def test_wrong_windows_are_refused():
    with pytest.raises(AmesError, match="route 'sideways' of the windows is none of end-to-start"):
        Windows(route="sideways")
    with pytest.raises(AmesError, match="stride 0 of the windows is below 1"):
        Windows(stride=0)
    with pytest.raises(AmesError, match="stride 5 of the windows leaves gaps between windows of 4"):
        Windows(stride=5).starts(10, 4)
