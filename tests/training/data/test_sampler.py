"""Triplets: which images are drawn and how often, what is never drawn, and the errors."""

import hashlib
from collections import Counter

import numpy as np
import pytest

from ames.errors import AmesError
from ames.global_search.shortlist import Shortlist
from helpers.neighbourhoods import everyone, one_row, sampled

LOOSE = {"min_positives": 1, "min_negatives": 1}


class Uniform:
    """Stands for numpy's generator where a test chooses the draw."""

    def __init__(self, value):
        self.value = value

    def random(self, shape):
        return np.full(shape, self.value)


def draws(sampler, anchor, count=20000, seed=0):
    rng = np.random.default_rng(seed)
    positives, negatives = sampler.draw(np.full(count, anchor), rng)
    return Counter(positives.tolist()), Counter(negatives.tolist())


@pytest.mark.parametrize("power", [3.0, 1.0, 0.0])
def test_drawn_in_proportion_to_the_power_of_similarity(power):
    shortlist, labels = everyone(30, 3)
    sampler = sampled(shortlist, labels, options={"similarity_power": power})
    anchor, count = 7, 20000
    similarity = dict(zip(shortlist.ids[anchor].tolist(), shortlist.similarities[anchor], strict=True))
    for found, same in zip(draws(sampler, anchor, count), (True, False), strict=True):
        images = [i for i in range(30) if (labels[i] == labels[anchor]) == same and i != anchor]
        weights = np.array([similarity[i] ** power for i in images])
        expected = count * weights / weights.sum()
        assert set(found) <= set(images)
        chi_square = sum((found[i] - e) ** 2 / e for i, e in zip(images, expected, strict=True))
        freedom = len(images) - 1
        assert chi_square < freedom + 5 * (2 * freedom) ** 0.5


def test_an_image_is_never_drawn_for_itself():
    shortlist, labels = everyone(30, 3)
    assert (shortlist.ids[:, 0] == np.arange(30)).all()  # and would be the likeliest by far
    sampler = sampled(shortlist, labels)
    for anchor in (0, 29):
        assert anchor not in draws(sampler, anchor)[0]
        assert anchor not in draws(sampler, anchor)[1]


@pytest.mark.parametrize("power", [3.0, 2.0, 0.0])  # even ones turn negative similarities positive
def test_neither_dissimilar_nor_empty_entries_are_drawn(power):
    # Images 1 to 4 are of the anchor's class; -1 stands for the last label where it is read as an index.
    ids = [1, 5, 2, 6, -1, 3, 7, 4, -1]
    similarities = [0.9, 0.8, 0.7, 0.6, 0.5, 0.0, 0.0, -0.3, -0.9]
    shortlist, labels = one_row(ids, similarities, [0, 0, 0, 0, 0, 1, 1, 1, 0])
    positives, negatives = draws(sampled(shortlist, labels, options={"similarity_power": power}, **LOOSE), 0)
    assert set(positives) == {1, 2}
    assert set(negatives) == {5, 6}


def test_no_entry_of_zero_weight_at_either_end_of_the_range():
    rng = np.random.default_rng(0)
    for _ in range(300):
        # Rows that begin and end with entries of the other class and of similarity 0.
        similarities = rng.uniform(1e-3, 1, 12).astype(np.float32)
        same = rng.random(12) < 0.5
        same[[1, 2]] = True, False
        similarities[[0, 11]] = 0
        shortlist, labels = one_row(np.arange(1, 13), similarities, [0, *np.where(same, 0, 1)])
        sampler = sampled(shortlist, labels, **LOOSE)
        ends = {0.0: np.flatnonzero, 1 - 2.0**-53: lambda x: np.flatnonzero(x)[::-1], 1.0: None}
        for value, order in ends.items():
            drawn = sampler.draw(np.array([0]), Uniform(value))
            for image, mine in zip(drawn, (same, ~same), strict=True):
                chosen = mine & (similarities > 0)
                assert chosen[image[0] - 1]
                if order is not None:
                    assert image[0] - 1 == order(chosen)[0]


def test_weights_at_the_bottom_of_the_range_of_floats():
    similarities = np.array([0.5, 1.5e-36, 1.5e-36, 0.5], np.float32)
    shortlist, labels = one_row([4, 1, 2, 3], similarities, [0, 0, 0, 1, 1])
    sampler = sampled(
        shortlist, labels, options={"similarity_power": 9.0}, **LOOSE
    )  # some of the smallest there are
    positive, _ = sampler.draw(np.zeros(100, int), np.random.default_rng(0))
    assert set(positive.tolist()) <= {1, 2}


def test_only_the_first_neighbours_count():
    shortlist, labels = everyone(40, 2)
    sampler = sampled(shortlist, labels, neighbours=20, **LOOSE)
    found = draws(sampler, 3)
    assert set(found[0]) | set(found[1]) == set(shortlist.ids[3, 1:20].tolist())


def test_three_hundred_neighbours_count_by_default():
    labels = np.arange(402) % 2
    ids = np.stack([np.roll(np.arange(402), -i)[1:] for i in range(402)])
    sampler = sampled(Shortlist(ids, np.ones(ids.shape)), labels)
    found = draws(sampler, 0)
    assert set(found[0]) | set(found[1]) == set(range(1, 301))


def test_anchors_have_enough_positives_and_negatives():
    shortlist, labels = everyone(40, 4)
    for needed in ((3, 2), (2, 5)):
        sampler = sampled(shortlist, labels, neighbours=8, min_positives=needed[0], min_negatives=needed[1])
        expected = []
        for i in range(40):
            others = [j for j in shortlist.ids[i, :8] if j != i]
            positives = sum(labels[j] == labels[i] for j in others)
            if positives >= needed[0] and len(others) - positives >= needed[1]:
                expected.append(i)
        assert sampler.anchors.tolist() == expected
        assert 0 < len(expected) < 40


def test_five_and_five_are_needed_by_default():
    for positives, negatives in ((4, 5), (5, 4), (5, 5)):
        labels = [0] * (positives + 1) + [1] * negatives
        ids = np.arange(1, len(labels))
        shortlist, labels = one_row(ids, np.full(len(ids), 0.5), labels)
        if (positives, negatives) == (5, 5):
            assert sampled(shortlist, labels).anchors.tolist() == [0]
        else:
            with pytest.raises(AmesError, match=f"at most {positives} positives and {negatives} negatives"):
                sampled(shortlist, labels)


def test_an_epoch_is_one_permutation_of_the_anchors():
    shortlist, labels = everyone(40, 2)
    sampler = sampled(shortlist, labels)
    rng = np.random.default_rng(0)
    first, second = (np.concatenate([anchors for anchors, *_ in sampler.epoch(8, rng)]) for _ in range(2))
    assert sorted(first) == sorted(second) == sampler.anchors.tolist()
    assert first.tolist() != second.tolist()


def test_triplets_of_an_epoch_have_the_right_labels():
    shortlist, labels = everyone(40, 4)
    for anchors, positives, negatives in sampled(shortlist, labels).epoch(7, np.random.default_rng(0)):
        assert (labels[anchors] == labels[positives]).all()
        assert (labels[anchors] != labels[negatives]).all()


def test_a_short_rest_is_left_out_unless_it_is_all():
    shortlist, labels = everyone(40, 2)
    sampler = sampled(shortlist, labels)
    rng = np.random.default_rng(0)
    assert [len(a) for a, *_ in sampler.epoch(15, rng)] == [15, 15]
    assert [len(a) for a, *_ in sampler.epoch(100, rng)] == [40]


def test_draws_of_a_seed_stay_as_they_are():
    sampler = sampled(*everyone(12, 2), **LOOSE)
    rng = np.random.default_rng([5, 11, 0])
    assert [[x.tolist() for x in triplets] for _ in range(2) for triplets in sampler.epoch(5, rng)] == [
        [[10, 3, 7, 1, 8], [6, 9, 9, 5, 2], [11, 0, 6, 2, 7]],
        [[5, 0, 2, 6, 4], [7, 8, 4, 2, 2], [0, 5, 3, 5, 1]],
        [[2, 1, 8, 4, 7], [4, 11, 10, 2, 5], [3, 10, 1, 1, 6]],
        [[3, 11, 10, 9, 6], [1, 9, 2, 7, 2], [4, 4, 3, 6, 11]],
    ]
    sampler = sampled(*everyone(420, 7, seed=3))  # more than the neighbours that count
    rng = np.random.default_rng([5, 11, 1])
    drawn = np.concatenate([np.stack(tuple(x)) for x in sampler.epoch(50, rng)], 1).astype("<i8")
    digest = "12e9588dbd456f3c3a94e04c31925a0d2b26d07a61d57774f1865ccc65977e8b"
    assert hashlib.sha256(drawn.tobytes()).hexdigest() == digest


# ---- several negatives ----------------------------------------------------------------------------


def test_negatives_of_an_anchor_differ_while_there_are_enough():
    ids, similarities = [1, 5, 2, 6, 7], [0.9, 0.8, 0.7, 0.6, 0.1]
    shortlist, labels = one_row(ids, similarities, [0, 0, 0, 0, 0, 1, 1, 1])
    drawn = sampled(shortlist, labels, negatives=5, **LOOSE).draw(np.zeros(50, int), np.random.default_rng(0))
    assert drawn.shape == (6, 50)
    assert set(drawn[0].tolist()) == {1, 2}
    assert all(set(x) == {5, 6, 7} for x in drawn[1:4].T.tolist())
    assert all(len(set(x)) == 2 and set(x) <= {5, 6, 7} for x in drawn[4:].T.tolist())  # the next round


def test_several_negatives_in_proportion_without_replacement():
    ids, similarities = [1, 5, 6, 7], [0.9, 0.5, 0.3, 0.2]
    shortlist, labels = one_row(ids, similarities, [0, 0, 0, 0, 0, 1, 1, 1])
    count = 20000
    sampler = sampled(shortlist, labels, negatives=2, options={"similarity_power": 1}, **LOOSE)
    drawn = sampler.draw(np.zeros(count, int), np.random.default_rng(0))
    found = Counter(zip(*drawn[1:].tolist(), strict=True))
    weight = dict(zip(ids[1:], similarities[1:], strict=True))
    for (a, b), times in found.items():
        expected = count * weight[a] * weight[b] / (1 - weight[a])  # the weights sum to 1
        assert abs(times - expected) < 5 * expected**0.5
    assert len(found) == 6


def test_the_first_negative_is_the_one_that_is_drawn_alone():
    shortlist, labels = everyone(40, 4)
    one, three = (sampled(shortlist, labels, negatives=n) for n in (1, 3))
    drawn = [x.draw(np.array([3]), np.random.default_rng(2)) for x in (one, three)]
    assert np.array_equal(drawn[0], drawn[1][:2])


def test_at_least_one_negative():
    with pytest.raises(AmesError, match="negatives 0"):
        sampled(*everyone(30, 3), negatives=0)


# ---- errors ---------------------------------------------------------------------------------------


def test_an_id_out_of_range():
    shortlist, labels = everyone(30, 3)
    with pytest.raises(AmesError, match="names image 29 of 20"):
        sampled(Shortlist(shortlist.ids[:20], shortlist.similarities[:20]), labels[:20])


def test_a_shortlist_of_another_length():
    shortlist, labels = everyone(30, 3)
    with pytest.raises(AmesError, match="shortlist of 30 images, but 29 labels"):
        sampled(shortlist, labels[:29])


def test_no_valid_anchor():
    shortlist, _ = everyone(30, 3)
    with pytest.raises(AmesError, match="no valid anchor among 30 images: at most 0 positives"):
        sampled(shortlist, np.arange(30))
    with pytest.raises(AmesError, match="29 positives and 0 negatives"):
        sampled(shortlist, np.zeros(30, int))


def test_statistics_say_who_was_left_out():
    shortlist, labels = everyone(30, 3)
    labels[:4] = [7, 7, 7, 8]  # three of a class with two others each, and one alone
    said = sampled(shortlist, labels, min_positives=3).statistics
    assert (said["images"], said["labels"], said["anchors"]) == (30, 5, 26)
    assert (said["few_positives"], said["few_negatives"]) == (4, 0)
    others = [(labels == label).sum() - 1 for label in labels[4:]]
    assert said["positives"] == pytest.approx(np.mean(others))
    assert said["positives"] + said["negatives"] == pytest.approx(29)  # all others, in a list of everyone


def test_an_anchor_needs_one_of_each():
    shortlist, labels = everyone(30, 3)
    with pytest.raises(AmesError, match="must be at least 1"):
        sampled(shortlist, labels, min_positives=0)
