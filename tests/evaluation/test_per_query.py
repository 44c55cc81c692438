"""Figures of single queries by hand, and as the evaluation has them."""

import numpy as np
import pytest

from ames.datasets.ground_truth import GroundTruth
from ames.errors import AmesError
from ames.evaluation.metrics import recall_at
from ames.evaluation.per_query import figures
from ames.evaluation.protocols import LEAVE_ONE_OUT, evaluate


def truth(*queries, size=12):
    found = [{"ok": np.array(ok, int), "junk": np.array(junk, int)} for ok, junk in queries]
    names = [str(i) for i in range(size)]
    return GroundTruth(found, names, names[: len(found)])


def test_figures_by_hand():
    # Without junk 0, the answers 3 and 5 are at places 1 and 4; 9 is not in the ranking.
    ranking = np.array([[0, 3, 1, 2, 5, 4, 6], [1, 2, 3, 4, 5, 6, 7]])
    found = figures(ranking, truth(([3, 5, 9], [0]), ([], [1])), LEAVE_ONE_OUT)
    trapezoid = 100 * ((1 + 1) / 2 + (1 / 3 + 2 / 4) / 2) / 3
    assert found.aps[0] == pytest.approx(trapezoid)
    assert found.precisions[0] == pytest.approx([100, 40, 20])  # one answer is missing: k stays
    assert found.recalls[0] == pytest.approx([100 / 3, 200 / 3, 200 / 3])
    assert np.isnan([found.aps[1], *found.precisions[1], *found.recalls[1]]).all()
    mean = found.mean()
    assert list(mean) == ["mAP", "P@1", "P@5", "P@10", "R@1", "R@5", "R@10"]
    assert mean["mAP"] == pytest.approx(trapezoid)  # over queries with an answer
    assert found.mean([1]) == dict.fromkeys(mean)


def test_a_perfect_ranking_has_full_precision_at_every_k():
    found = figures(np.array([[0, 1, 2, 3]]), truth(([1, 2], [0])), LEAVE_ONE_OUT)
    assert found.mean() == pytest.approx(
        {"mAP": 100, "P@1": 100, "P@5": 100, "P@10": 100, "R@1": 50, "R@5": 100, "R@10": 100}
    )


def test_means_are_those_of_the_evaluation():
    rng = np.random.default_rng(0)
    ranking = np.stack([rng.permutation(12) for _ in range(6)])
    given = truth(*((rng.permutation(12)[1:4], [i]) for i in range(6)))
    found, expected = figures(ranking, given, LEAVE_ONE_OUT).mean(), evaluate(ranking, given, LEAVE_ONE_OUT)
    assert found["mAP"] == expected.map
    assert [found[f"P@{k}"] for k in (1, 5, 10)] == list(expected.mp.values())


def test_recall_at():
    assert recall_at(np.array([0, 4]), (1, 4, 5), num_positives=4).tolist() == [25, 25, 50]
    assert np.isnan(recall_at(np.array([], int), (1,), num_positives=0)).all()
    with pytest.raises(AmesError, match="at least 1"):
        recall_at(np.array([0]), (0,), num_positives=1)
