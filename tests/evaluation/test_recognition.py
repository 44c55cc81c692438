"""Recognition by nearest neighbours: by hand, a naive twin, and what the rule promises."""

import math

import numpy as np
import pytest

from ames.config.benchmarks import benchmark
from ames.errors import AmesError
from ames.evaluation.recognition import (
    Predictions,
    RecognitionRule,
    choose_rule,
    global_average_precision,
    predict,
    recognition_figures,
    rules_of,
)
from twins import naive_figures

CLASSES = np.array([7, 7, 3, 5, 5])


def test_a_prediction_by_hand():
    ids, similarities = np.array([[3, 0, 1, 2]]), np.array([[0.9, 0.8, 0.7, -0.4]])
    found = predict(ids, similarities, CLASSES, RecognitionRule(4, 2.0))
    weights = {5: math.exp(1.8), 7: math.exp(1.6), 3: 1.0}  # a negative similarity counts as 0
    assert found.classes.tolist() == [5]
    assert found.confidences == pytest.approx([weights[5] / sum(weights.values())])
    one = predict(ids, similarities, CLASSES, RecognitionRule(1, 2.0))
    assert one.confidences == pytest.approx([math.exp(1.8) / (math.exp(1.8) + 2)])  # two classes have 0


def test_ties_empty_entries_and_high_temperatures():
    ids = np.array([[0, 2, 3], [-1, -1, -1], [4, -1, -1]])
    similarities = np.array([[0.5, 0.5, 0.1], [0, 0, 0], [1, 0, 0]])
    found = predict(ids, similarities, CLASSES, RecognitionRule(3, 2000.0))
    assert found.classes.tolist() == [3, -1, 5]  # the lowest of equal classes; none without a neighbour
    assert found.confidences == pytest.approx([0.5, 0, 1])


def test_gap_by_hand():
    """Right, distractor, right, wrong, in the order of confidence."""
    predictions = Predictions(np.array([4, 1, 2, 9]), np.array([0.9, 0.2, 0.6, 0.8]))
    truth = np.array([4, 8, 2, -1])
    found = recognition_figures(predictions, truth, RecognitionRule())
    assert found.gap == pytest.approx(100 * (1 + 2 / 3) / 3)
    assert found.gap_known == pytest.approx(100 * (1 + 1) / 3)
    assert found.accuracy == pytest.approx(200 / 3)


def test_equal_confidences_keep_the_order_of_the_queries():
    assert global_average_precision(np.array([True, False]), np.array([1.0, 1.0]), 1) == 100
    assert global_average_precision(np.array([False, True]), np.array([1.0, 1.0]), 1) == 50


@pytest.mark.parametrize("seed", range(12))
def test_a_naive_twin(seed):
    rng = np.random.default_rng([seed, 9])
    size, queries = int(rng.integers(4, 30)), 20
    classes = rng.integers(0, 6, size)
    ids = np.stack([rng.permutation(size) for _ in range(queries)])
    similarities = -np.sort(-rng.uniform(-1, 1, ids.shape), axis=1)
    truth = np.where(rng.random(queries) < 0.4, -1, classes[ids[:, 0]])
    truth[0] = classes[0]
    rule = RecognitionRule(int(rng.integers(1, size + 1)), float(rng.uniform(0.1, 30)))
    found = predict(ids, similarities, classes, rule)
    twin = naive_figures.recognize(ids, similarities, classes.tolist(), rule.neighbours, rule.temperature)
    assert found.classes.tolist() == [name for name, _ in twin]
    assert found.confidences == pytest.approx([value for _, value in twin])
    figures = recognition_figures(found, truth, rule)
    assert figures.gap == pytest.approx(naive_figures.gap(twin, truth.tolist()))
    known = [n for n in range(queries) if truth[n] != -1]
    assert figures.gap_known == pytest.approx(
        naive_figures.gap([twin[n] for n in known], [int(truth[n]) for n in known])
    )
    right = sum(twin[n][0] == truth[n] for n in known)
    assert figures.accuracy == pytest.approx(100 * right / len(known))


def test_distractors_can_only_lose():
    rng = np.random.default_rng(1)
    for _ in range(20):
        predictions = Predictions(rng.integers(0, 3, 30), rng.random(30))
        truth = rng.integers(-1, 3, 30)
        found = recognition_figures(predictions, truth, RecognitionRule())
        assert found.gap <= found.gap_known + 1e-9


def test_the_rule_is_chosen_by_gap():
    """A distractor has two near classes, a query one neighbour of lower similarity. At the temperature 1 the
    distractor is surer (0.417, 0.403), at 50 the query (0.62, 1.0).
    """
    classes, truth = np.array([0, 1, 2]), np.array([-1, 2])
    ids, similarities = np.array([[0, 1], [2, -1]]), np.array([[0.9, 0.89], [0.3, 0.0]])
    rules = rules_of([2, 1], [1, 50.0])
    assert [(r.neighbours, r.temperature) for r in rules] == [(2, 1), (2, 50.0), (1, 1), (1, 50.0)]
    gaps = [recognition_figures(predict(ids, similarities, classes, r), truth, r).gap for r in rules]
    assert gaps == [50, 100, 50, 50]
    assert choose_rule(ids, similarities, classes, truth, rules) == rules[1]
    assert choose_rule(ids, similarities, classes, truth, rules[2:]) == rules[2]  # of equal ones the first
    with pytest.raises(AmesError, match="no rule to choose from"):
        choose_rule(ids, similarities, classes, truth, [])


def test_the_grid_of_the_met():
    rules = benchmark("met").recognition
    assert len(rules) == 9 * 12
    assert rules[0] == RecognitionRule(1, 0.01)
    assert rules[-1] == RecognitionRule(50, 500)
    assert benchmark("sop").recognition == ()


@pytest.mark.parametrize(
    ("ids", "similarities", "rule", "message"),
    [
        ([[0, 1]], [[1.0]], RecognitionRule(), "needs ids and similarities of one shape"),
        ([[0.5]], [[1.0]], RecognitionRule(), "needs ids and similarities"),
        ([[0, 1]], [[1.0, 0.5]], RecognitionRule(3), "3 neighbours vote, but the ranking has 2 entries"),
        ([[5]], [[1.0]], RecognitionRule(), "outside of the gallery, which has 5 images"),
    ],
)
def test_what_is_refused(ids, similarities, rule, message):
    with pytest.raises(AmesError, match=message):
        predict(np.array(ids), np.array(similarities), CLASSES, rule)


def test_wrong_rules_and_labels():
    with pytest.raises(AmesError, match="neighbours that vote are 0"):
        RecognitionRule(0)
    with pytest.raises(AmesError, match="temperature of the votes is 0"):
        RecognitionRule(1, 0)
    made = Predictions(np.array([1]), np.array([1.0]))
    with pytest.raises(AmesError, match="1 predictions, but 2 classes of queries"):
        recognition_figures(made, np.array([1, 2]), RecognitionRule())
    with pytest.raises(AmesError, match="every query is a distractor"):
        recognition_figures(made, np.array([-1]), RecognitionRule())
