"""Labelled neighbours: what is left out and counted, random negatives, one pass for several processes."""

import pickle
from collections import Counter

import numpy as np
import pytest

from ames.errors import AmesError
from ames.global_search.shortlist import Shortlist, repeated
from ames.training.data import candidates
from ames.training.data.candidates import LabelledNeighbours, nth_free
from ames.training.data.neighbours import Neighbours
from ames.training.data.sampler import TripletSampler, describe
from helpers.neighbourhoods import everyone, one_row, sampled

LOOSE = {"min_positives": 1, "min_negatives": 1}


def weights(shortlist, labels, anchor=0, **options):
    """{image: weight} of an anchor's positives and of its negatives."""
    near = Neighbours.from_arrays(shortlist.ids, shortlist.similarities)
    found = LabelledNeighbours(near, labels, similarity_power=1, **options).candidates_for(np.array([anchor]))
    return [
        {int(i): pytest.approx(float(w)) for i, w in zip(found.ids[0], side[0], strict=True) if w}
        for side in (found.positive, found.negative)
    ]


def test_an_image_that_a_row_names_twice_counts_once():
    shortlist, labels = one_row([1, 3, 1, 2, 3, 3], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [0, 0, 0, 1])
    assert weights(shortlist, labels) == [{1: 0.9, 2: 0.6}, {3: 0.8}]
    said = sampled(shortlist, labels, **LOOSE).statistics
    assert (said["positives"], said["negatives"], said["repeated"]) == (2, 1, 3)
    assert "3 neighbours named twice, counted once" in describe(said)


def test_repeated_entries_against_a_plain_loop():
    ids = np.random.default_rng(0).integers(-1, 30, (200, 9))
    expected = [[i >= 0 and i in row[:place] for place, i in enumerate(row)] for row in ids.tolist()]
    assert repeated(ids).tolist() == expected
    assert np.array_equal(repeated(ids + 2**31 * (ids >= 0)), expected)
    assert 0 < np.sum(expected) < np.size(expected)


def test_the_same_path_twice_is_one_image():
    # Rows 4 and 5 are row 0 and row 1 again.
    first = np.array([0, 1, 2, 3, 0, 1])
    labels = [7, 7, 7, 8, 7, 7]
    shortlist, labels = one_row([4, 5, 1, 2, 3], [0.9, 0.8, 0.7, 0.6, 0.5], labels)
    assert weights(shortlist, labels, first=first) == [{5: 0.8, 2: 0.6}, {3: 0.5}]
    assert weights(shortlist, labels) == [{4: 0.9, 5: 0.8, 1: 0.7, 2: 0.6}, {3: 0.5}]
    said = sampled(shortlist, labels, options={"first": first}, **LOOSE).statistics
    assert (said["duplicates"], said["repeated"], said["single_labels"]) == (2, 1, 1)
    assert "2 images are listed again" in describe(said)


def test_a_label_whose_images_are_one_has_a_single_image():
    shortlist, labels = everyone(12, 2)
    labels[[10, 11]] = 9
    first = np.arange(12)
    assert sampled(shortlist, labels, **LOOSE).statistics["single_labels"] == 0
    first[11] = 10
    said = sampled(shortlist, labels, options={"first": first}, **LOOSE).statistics
    assert said["single_labels"] == 1
    assert said["few_positives"] == 2
    assert "1 labels have a single image" in describe(said)


def test_near_duplicates_are_left_out():
    shortlist, labels = one_row([0, 1, 2, 3, 4], [1, 0.97, 0.9, 0.96, 0.5], [0, 0, 0, 1, 1])
    assert weights(shortlist, labels, max_similarity=0.95) == [{2: 0.9}, {4: 0.5}]
    assert weights(shortlist, labels, max_similarity=0.97)[0] == {1: 0.97, 2: 0.9}
    said = sampled(shortlist, labels, options={"max_similarity": 0.95}, **LOOSE).statistics
    assert said["near_duplicates"] == 2  # the image itself is none
    assert "2 near-duplicates left out" in describe(said)


def test_counts_against_a_plain_loop(monkeypatch):
    monkeypatch.setattr(candidates, "_ROWS_AT_ONCE", 7)
    rng = np.random.default_rng(3)
    ids, labels = rng.integers(-1, 50, (50, 15)), rng.integers(0, 4, 50)
    similarities = rng.uniform(-0.3, 1, ids.shape)
    near = LabelledNeighbours(Neighbours.from_arrays(ids, similarities), labels, max_similarity=0.8)
    found = near.scan()
    for i in range(50):
        kept = {}
        for j, s in zip(ids[i].tolist(), similarities[i].astype(np.float32), strict=True):
            kept.setdefault(j, s)
        kept = {j for j, s in kept.items() if j not in (-1, i) and 0 < s <= np.float32(0.8)}
        assert found.positives[i] == sum(labels[j] == labels[i] for j in kept)
        assert found.negatives[i] == sum(labels[j] != labels[i] for j in kept)
        drawn = near.candidates_for(np.array([i]))
        assert set(drawn.ids[(drawn.positive + drawn.negative) > 0].tolist()) == kept


# ---- negatives from everywhere --------------------------------------------------------------------


def test_a_share_of_the_negatives_is_any_image_of_another_label():
    labels = [0, 0, 1, 1, 2, 2, 0, 2, 1, 3]
    shortlist, labels = one_row([1, 2], [0.9, 0.8], labels)
    count, share = 20000, 0.25
    sampler = sampled(shortlist, labels, hard_negative_fraction=share, **LOOSE)
    found = Counter(sampler.draw(np.zeros(count, int), np.random.default_rng(0))[1].tolist())
    others = [2, 3, 4, 5, 7, 8, 9]
    assert set(found) == set(others)
    for image in others:
        expected = count * ((1 - share) / len(others) + share * (image == 2))
        assert abs(found[image] - expected) < 5 * expected**0.5
    assert "25 % of the draws from neighbours" in describe(sampler.statistics)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_random_negatives_of_an_anchor_differ_too(share):
    shortlist, labels = everyone(24, 3, seed=1)
    sampler = sampled(shortlist, labels, hard_negative_fraction=share, negatives=16)
    for images in sampler.epoch(24, np.random.default_rng(0)):
        for (
            anchor,
            *_,
        ) in images.T:
            assert labels[anchor] == labels[images[1, images[0] == anchor][0]]
        for column in images.T.tolist():
            assert len(set(column[2:])) == 16  # all there are
            assert all(labels[i] != labels[column[0]] for i in column[2:])


def test_all_negatives_are_neighbours_by_default():
    shortlist, labels = everyone(30, 3)
    one, other = sampled(shortlist, labels), sampled(shortlist, labels, hard_negative_fraction=1.0)
    drawn = [x.draw(np.arange(30), np.random.default_rng(0)) for x in (one, other)]
    assert np.array_equal(*drawn)
    assert "negatives come from neighbours" in describe(one.statistics)
    with pytest.raises(AmesError, match=r"hard_negative_fraction 1.5"):
        sampled(shortlist, labels, hard_negative_fraction=1.5)


def test_nth_free_against_a_plain_list():
    rng = np.random.default_rng(0)
    for _ in range(300):
        count = int(rng.integers(1, 7))
        taken = rng.integers(-1, 8, (1, int(rng.integers(0, 6))))
        free = [i for i in range(count) if i not in taken] or list(range(count))
        for k, expected in enumerate(free):
            number = np.array([(k + 0.5) / len(free)])
            assert nth_free(number, np.array([count]), taken).tolist() == [expected]


# ---- one pass for several processes ---------------------------------------------------------------


def test_a_summary_saves_the_pass(monkeypatch):
    shortlist, labels = everyone(60, 4)
    near = LabelledNeighbours(Neighbours.from_arrays(shortlist.ids, shortlist.similarities), labels)
    looked = TripletSampler(near, min_negatives=44)
    summary = pickle.loads(pickle.dumps(looked.summary()))
    monkeypatch.setattr(near, "scan", None)
    told = TripletSampler(near, summary=summary)
    assert told.statistics == looked.statistics
    assert told.settings() == looked.settings()
    for mine, other in zip(*(x.epoch(9, np.random.default_rng(1)) for x in (told, looked)), strict=True):
        assert np.array_equal(mine, other)
    shortlist, labels = everyone(59, 4)
    near = LabelledNeighbours(Neighbours.from_arrays(shortlist.ids, shortlist.similarities), labels)
    with pytest.raises(AmesError, match="summary of 60 images, but there are 59"):
        TripletSampler(near, summary=summary)


def test_the_line_about_a_sampler():
    ids = np.stack([np.roll(np.arange(12), -i) for i in range(12)])
    said = sampled(Shortlist(ids, np.ones(ids.shape)), np.arange(12) % 2).statistics
    assert describe(said) == (
        "12 valid anchors of 12 images with 2 labels (0 have too few positives, 0 too few negatives); an "
        "anchor has 5.0 positives and 6.0 negatives on average; negatives come from neighbours"
    )
