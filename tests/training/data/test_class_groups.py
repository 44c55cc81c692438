"""Groups of a class and their negatives: what is drawn, what is left out, what counts as a pair."""

import numpy as np
import pytest

from ames.errors import AmesError
from ames.training.data.class_groups import draw, is_small, mine, others, pairs_of
from ames.training.data.photo_vectors import PhotoVectors
from golden import raml


def rng(seed=0):
    return np.random.default_rng(seed)


def vectors(drawn, labels, unreadable=()):
    """Random unit vectors of what was drawn; images of ``unreadable`` have none."""
    values = np.random.default_rng(5).standard_normal((len(labels), 8)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    readable = ~np.isin(drawn.rows, unreadable)
    return PhotoVectors(np.where(readable[:, None], values[drawn.rows], 0), readable)


def test_every_class_of_two_or_more_has_one_group_of_its_images():
    labels = np.array([0] * 6 + [1] * 3 + [2] + [3] * 4)
    drawn = draw(labels, 4, 5, rng())
    assert drawn.members.shape == (3, 4)
    for members in drawn.members:
        found = members[members >= 0]
        (label,) = {*labels[found].tolist()}
        assert len({*found.tolist()}) == len(found) == min(4, (labels == label).sum())
    assert sorted(labels[drawn.members[:, 0]].tolist()) == [0, 1, 3]
    assert len({*drawn.pool.tolist()}) == 5
    assert {*drawn.rows.tolist()} == {*drawn.pool.tolist(), *drawn.members[drawn.members >= 0].tolist()}
    other = draw(labels, 4, 5, rng(1))
    assert other.members.tolist() != drawn.members.tolist()
    assert draw(labels, 4, 100, rng()).pool.tolist() == [*range(14)]


def test_what_has_no_anchor_or_no_negative_is_refused():
    with pytest.raises(AmesError, match="no class has two images"):
        draw(np.arange(5), 4, 5, rng())
    with pytest.raises(AmesError, match="all images are of one class"):
        draw(np.zeros(5, int), 4, 5, rng())


def test_positives_are_all_others_of_a_group():
    (case,) = raml.CASES["hardest_positives"]
    members = np.arange(case["classes"] * case["per_class"]).reshape(case["classes"], -1)
    found = members[:, others(case["per_class"])].reshape(-1, case["per_class"] - 1)
    assert found.tolist() == [sorted(row) for row in case["positives"]]


def test_negatives_are_of_other_classes_and_from_the_pool():
    labels = np.repeat(np.arange(10), 5)
    drawn = draw(labels, 4, 30, rng())
    found = mine(drawn, vectors(drawn, labels), labels, negatives=3, small=False, rng=rng(1))
    assert found.shape == (10, 4 + 12)
    np.testing.assert_array_equal(found[:, :4], drawn.members)
    for group in found:
        for negatives in group[4:].reshape(4, 3):
            assert len({*negatives.tolist()}) == 3
            assert labels[group[0]] not in labels[negatives]
            assert {*negatives.tolist()} <= {*drawn.pool.tolist()}


def test_small_lists_pass_wrong_labels():
    """As released: those of the list's first rows, so that images of the anchor's class are drawn."""
    labels = np.repeat(np.arange(10), 5)
    drawn = draw(labels, 4, 50, rng())
    found = mine(drawn, vectors(drawn, labels), labels, negatives=20, small=True, rng=rng(1))
    negatives = found[:, 4:].reshape(40, 20)
    own = labels[drawn.members.reshape(-1)]
    passed = labels[:40]
    assert (labels[negatives] == own[:, None]).any()
    assert not (labels[negatives] == passed[:, None]).any()
    # the published sets: 4 images of each class and a pool of up to 20,000
    assert is_small(5864, 400, 20_000)
    assert is_small(8054, 392, 20_000)
    assert not is_small(59_551, 4 * 11_318, 20_000)


def test_what_has_no_vector_is_left_out():
    labels = np.repeat(np.arange(6), 4)
    drawn = draw(labels, 4, 24, rng())
    bad = [0, 1, 9]
    found = mine(drawn, vectors(drawn, labels, bad), labels, negatives=2, small=False, rng=rng(1))
    assert not np.isin(found, bad).any()
    for members, group in zip(drawn.members, found, strict=True):
        gone = np.isin(members, bad)
        np.testing.assert_array_equal(group[:4], np.where(gone, -1, members))
        np.testing.assert_array_equal(group[4:].reshape(4, 2) < 0, np.repeat(gone[:, None], 2, 1))


def test_pairs_are_those_of_which_all_three_are_there():
    present = np.array([[1, 1, 0, 1, 1, 1, 0, 1]], bool)  # three members, but the third; 2 negatives short
    size = 2
    found = pairs_of(present, size)
    assert found.shape == (1, 2, 1, 3)
    assert found[0, 0, 0].tolist() == [False, True, True]
    assert found[0, 1, 0].tolist() == [True, False, True]
    three = pairs_of(np.array([[1, 1, 0] + [1] * 3], bool), 3)  # the third is missing
    assert three.reshape(3, 2).tolist() == [[True, False], [True, False], [False, False]]
