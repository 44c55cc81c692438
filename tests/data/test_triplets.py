"""Triplets: which images are drawn and how often, what is never drawn, and the errors."""

import hashlib
import threading
from collections import Counter

import h5py
import numpy as np
import pytest
import torch

from ames.data.descriptors import DescriptorFile, DescriptorWriter
from ames.data.shortlist import Shortlist
from ames.data.triplets import TripletLoader, TripletSampler
from ames.errors import AmesError
from ames.features import LocalFeatures

LOOSE = {"min_positives": 1, "min_negatives": 1}


class Uniform:
    """Stands for numpy's generator where a test chooses the draw."""

    def __init__(self, value):
        self.value = value

    def random(self, shape):
        return np.full(shape, self.value)


def everyone(images, classes, seed=0):
    """Shortlist of random images against themselves, themselves included, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    similarity = rng.uniform(0.05, 0.8, (images, images)) + 0.1 * (labels[:, None] == labels)
    np.fill_diagonal(similarity, 1)
    ids = np.argsort(-similarity, axis=1)
    return Shortlist(ids, np.take_along_axis(similarity, ids, 1)), labels


def one_row(ids, similarities, labels):
    """A shortlist in which only image 0 has neighbours."""
    table = np.full((len(labels), len(ids)), -1)
    table[0] = ids
    values = np.zeros(table.shape)
    values[0] = similarities
    return Shortlist(table, values), np.array(labels)


def draws(sampler, anchor, count=20000, seed=0):
    rng = np.random.default_rng(seed)
    positives, negatives = sampler.draw(np.full(count, anchor), rng)
    return Counter(positives.tolist()), Counter(negatives.tolist())


@pytest.mark.parametrize("power", [3.0, 1.0])
def test_drawn_in_proportion_to_the_power_of_similarity(power):
    shortlist, labels = everyone(30, 3)
    sampler = TripletSampler(shortlist, labels, power=power)
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
    sampler = TripletSampler(shortlist, labels)
    for anchor in (0, 29):
        assert anchor not in draws(sampler, anchor)[0]
        assert anchor not in draws(sampler, anchor)[1]


@pytest.mark.parametrize("power", [3.0, 2.0])  # an even one turns negative similarities positive
def test_neither_dissimilar_nor_empty_entries_are_drawn(power):
    # Images 1 to 4 are of the anchor's class; -1 stands for the last label where it is read as an index.
    ids = [1, 5, 2, 6, -1, 3, 7, 4, -1]
    similarities = [0.9, 0.8, 0.7, 0.6, 0.5, 0.0, 0.0, -0.3, -0.9]
    shortlist, labels = one_row(ids, similarities, [0, 0, 0, 0, 0, 1, 1, 1, 0])
    positives, negatives = draws(TripletSampler(shortlist, labels, power=power, **LOOSE), 0)
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
        sampler = TripletSampler(shortlist, labels, **LOOSE)
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
    sampler = TripletSampler(shortlist, labels, power=9.0, **LOOSE)  # some of the smallest there are
    positive, _ = sampler.draw(np.zeros(100, int), np.random.default_rng(0))
    assert set(positive.tolist()) <= {1, 2}


def test_only_the_first_neighbours_count():
    shortlist, labels = everyone(40, 2)
    sampler = TripletSampler(shortlist, labels, neighbours=20, **LOOSE)
    found = draws(sampler, 3)
    assert set(found[0]) | set(found[1]) == set(shortlist.ids[3, 1:20].tolist())


def test_three_hundred_neighbours_count_by_default():
    labels = np.arange(402) % 2
    ids = np.stack([np.roll(np.arange(402), -i)[1:] for i in range(402)])
    sampler = TripletSampler(Shortlist(ids, np.ones(ids.shape)), labels)
    found = draws(sampler, 0)
    assert set(found[0]) | set(found[1]) == set(range(1, 301))


def test_anchors_have_enough_positives_and_negatives():
    shortlist, labels = everyone(40, 4)
    for needed in ((3, 2), (2, 5)):
        sampler = TripletSampler(
            shortlist, labels, neighbours=8, min_positives=needed[0], min_negatives=needed[1]
        )
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
            assert TripletSampler(shortlist, labels).anchors.tolist() == [0]
        else:
            with pytest.raises(AmesError, match=f"at most {positives} positives and {negatives} negatives"):
                TripletSampler(shortlist, labels)


def test_an_epoch_is_one_permutation_of_the_anchors():
    shortlist, labels = everyone(40, 2)
    sampler = TripletSampler(shortlist, labels)
    rng = np.random.default_rng(0)
    first, second = (np.concatenate([anchors for anchors, *_ in sampler.epoch(8, rng)]) for _ in range(2))
    assert sorted(first) == sorted(second) == sampler.anchors.tolist()
    assert first.tolist() != second.tolist()


def test_triplets_of_an_epoch_have_the_right_labels():
    shortlist, labels = everyone(40, 4)
    for anchors, positives, negatives in TripletSampler(shortlist, labels).epoch(7, np.random.default_rng(0)):
        assert (labels[anchors] == labels[positives]).all()
        assert (labels[anchors] != labels[negatives]).all()


def test_a_short_rest_is_left_out_unless_it_is_all():
    shortlist, labels = everyone(40, 2)
    sampler = TripletSampler(shortlist, labels)
    rng = np.random.default_rng(0)
    assert [len(a) for a, *_ in sampler.epoch(15, rng)] == [15, 15]
    assert [len(a) for a, *_ in sampler.epoch(100, rng)] == [40]


def test_draws_of_a_seed_stay_as_they_are():
    sampler = TripletSampler(*everyone(12, 2), **LOOSE)
    rng = np.random.default_rng([5, 11, 0])
    assert [[x.tolist() for x in triplets] for _ in range(2) for triplets in sampler.epoch(5, rng)] == [
        [[10, 3, 7, 1, 8], [6, 9, 9, 5, 2], [11, 0, 6, 2, 7]],
        [[5, 0, 2, 6, 4], [7, 8, 4, 2, 2], [0, 5, 3, 5, 1]],
        [[2, 1, 8, 4, 7], [4, 11, 10, 2, 5], [3, 10, 1, 1, 6]],
        [[3, 11, 10, 9, 6], [1, 9, 2, 7, 2], [4, 4, 3, 6, 11]],
    ]
    sampler = TripletSampler(*everyone(420, 7, seed=3))  # more than the neighbours that count
    rng = np.random.default_rng([5, 11, 1])
    drawn = np.concatenate([np.stack(tuple(x)) for x in sampler.epoch(50, rng)], 1).astype("<i8")
    digest = "12e9588dbd456f3c3a94e04c31925a0d2b26d07a61d57774f1865ccc65977e8b"
    assert hashlib.sha256(drawn.tobytes()).hexdigest() == digest


# ---- several negatives ----------------------------------------------------------------------------


def test_negatives_of_an_anchor_differ_while_there_are_enough():
    ids, similarities = [1, 5, 2, 6, 7], [0.9, 0.8, 0.7, 0.6, 0.1]
    shortlist, labels = one_row(ids, similarities, [0, 0, 0, 0, 0, 1, 1, 1])
    drawn = TripletSampler(shortlist, labels, negatives=5, **LOOSE).draw(
        np.zeros(50, int), np.random.default_rng(0)
    )
    assert drawn.shape == (6, 50)
    assert set(drawn[0].tolist()) == {1, 2}
    assert all(set(x) == {5, 6, 7} for x in drawn[1:4].T.tolist())
    assert all(len(set(x)) == 2 and set(x) <= {5, 6, 7} for x in drawn[4:].T.tolist())  # the next round


def test_several_negatives_in_proportion_without_replacement():
    ids, similarities = [1, 5, 6, 7], [0.9, 0.5, 0.3, 0.2]
    shortlist, labels = one_row(ids, similarities, [0, 0, 0, 0, 0, 1, 1, 1])
    count = 20000
    sampler = TripletSampler(shortlist, labels, negatives=2, power=1, **LOOSE)
    drawn = sampler.draw(np.zeros(count, int), np.random.default_rng(0))
    found = Counter(zip(*drawn[1:].tolist(), strict=True))
    weight = dict(zip(ids[1:], similarities[1:], strict=True))
    for (a, b), times in found.items():
        expected = count * weight[a] * weight[b] / (1 - weight[a])  # the weights sum to 1
        assert abs(times - expected) < 5 * expected**0.5
    assert len(found) == 6


def test_the_first_negative_is_the_one_that_is_drawn_alone():
    shortlist, labels = everyone(40, 4)
    one, three = (TripletSampler(shortlist, labels, negatives=n) for n in (1, 3))
    drawn = [x.draw(np.array([3]), np.random.default_rng(2)) for x in (one, three)]
    assert np.array_equal(drawn[0], drawn[1][:2])


def test_at_least_one_negative():
    with pytest.raises(AmesError, match="negatives 0"):
        TripletSampler(*everyone(30, 3), negatives=0)


# ---- errors ---------------------------------------------------------------------------------------


def test_an_id_out_of_range():
    shortlist, labels = everyone(30, 3)
    with pytest.raises(AmesError, match="names image 29 of 20"):
        TripletSampler(Shortlist(shortlist.ids[:20], shortlist.similarities[:20]), labels[:20])


def test_a_shortlist_of_another_length():
    shortlist, labels = everyone(30, 3)
    with pytest.raises(AmesError, match="shortlist of 30 images, but 29 labels"):
        TripletSampler(shortlist, labels[:29])


def test_no_valid_anchor():
    shortlist, _ = everyone(30, 3)
    with pytest.raises(AmesError, match="no valid anchor among 30 images: at most 0 positives"):
        TripletSampler(shortlist, np.arange(30))
    with pytest.raises(AmesError, match="29 positives and 0 negatives"):
        TripletSampler(shortlist, np.zeros(30, int))


def test_statistics_say_who_was_left_out():
    shortlist, labels = everyone(30, 3)
    labels[:4] = [7, 7, 7, 8]  # three of a class with two others each, and one alone
    said = TripletSampler(shortlist, labels, min_positives=3).statistics
    assert (said["images"], said["labels"], said["anchors"]) == (30, 5, 26)
    assert (said["few_positives"], said["few_negatives"]) == (4, 0)
    others = [(labels == label).sum() - 1 for label in labels[4:]]
    assert said["positives"] == pytest.approx(np.mean(others))
    assert said["positives"] + said["negatives"] == pytest.approx(29)  # all others, in a list of everyone


def test_an_anchor_needs_one_of_each():
    shortlist, labels = everyone(30, 3)
    with pytest.raises(AmesError, match="must be at least 1"):
        TripletSampler(shortlist, labels, min_positives=0)


# ---- batches --------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    """40 images; image i has descriptors of value i, and 3 to 6 of its 8 slots are real."""
    path = tmp_path / "local.hdf5"
    with DescriptorWriter(path, images=40, slots=8, width=4) as writer:
        for i in range(40):
            descriptors = np.full((3 + i % 4, 4), i, np.float32)
            writer.write(i, LocalFeatures.of(torch.from_numpy(descriptors)))
    return DescriptorFile(path)


def loader(store, seed=0, **changes):
    sampler = TripletSampler(*everyone(40, 2))
    return TripletLoader(sampler, store, **{"triplets": 10, "count": 8, "seed": seed} | changes)


def images_of(features):
    return features.descriptors[:, 0, 0].int().tolist()


def contents(batches):
    return [[images_of(x) for x in (b.anchor, b.positive, b.negatives)] for b in batches]


def test_batches_hold_the_descriptors_of_their_triplets(store):
    batches = list(loader(store))
    assert len(batches) == len(loader(store)) == 4
    labels = np.arange(40) % 2
    for anchors, positives, negatives in contents(batches):
        assert len(anchors) == 10
        assert (labels[anchors] == labels[positives]).all()
        assert (labels[anchors] != labels[negatives]).all()
    for batch in batches:
        sizes = {x.size for x in (batch.anchor, batch.positive, batch.negatives)}
        assert len(sizes) == 1  # the distillation compares slot by slot
        assert sizes.pop() <= 6
        counts = [3 + i % 4 for i in images_of(batch.negatives)]
        assert batch.negatives.counts.tolist() == counts


def test_pairs_are_matching_ones_first(store):
    batch = next(iter(loader(store)))
    query, database = batch.pairs()
    assert images_of(query) == 2 * images_of(batch.anchor)
    assert images_of(database) == images_of(batch.positive) + images_of(batch.negatives)


def test_pairs_of_several_negatives(store):
    sampler = TripletSampler(*everyone(40, 2), negatives=3)
    for batch in TripletLoader(sampler, store, triplets=10, count=8):
        query, database = batch.pairs()
        assert batch.images.shape == (5, 10)
        assert images_of(query) == 4 * batch.images[0].tolist()
        assert images_of(database) == batch.images[1:].reshape(-1).tolist()


def test_the_same_seed_gives_the_same_batches(store):
    first, again, other = loader(store), loader(store), loader(store, seed=1)
    epochs = [contents(first), contents(first)]
    assert epochs == [contents(again), contents(again)]
    assert epochs[0] != epochs[1]
    assert epochs[0] != contents(other)


def test_no_more_descriptors_than_asked_for(store):
    assert next(iter(loader(store, count=2))).anchor.size == 2


def test_more_triplets_than_anchors_make_one_batch(store):
    assert [len(b.anchor.valid) for b in loader(store, triplets=100)] == [40]


def test_descriptors_of_another_data_set(store, tmp_path):
    path = tmp_path / "other.hdf5"
    with DescriptorWriter(path, images=39, slots=8, width=4):
        pass
    with pytest.raises(AmesError, match=r"other.hdf5: 39 images, but 40 in the shortlist"):
        loader(DescriptorFile(path))


def test_packed_descriptors(store, tmp_path):
    with h5py.File(tmp_path / "packed.hdf5", "w") as file:
        file.create_dataset("features", data=np.zeros((40, 8, 2), np.uint8))
    with pytest.raises(AmesError, match=r"packed.hdf5: holds packed bits; training needs descriptors"):
        loader(DescriptorFile(tmp_path / "packed.hdf5"))


# ---- reading ahead --------------------------------------------------------------------------------


def tensors(batch):
    return [
        x for side in (batch.anchor, batch.positive, batch.negatives) for x in (side.descriptors, side.valid)
    ]


def test_workers_change_no_batch(store):
    alone = loader(store)
    epochs = [list(alone), list(alone)]
    for workers in (1, 3):
        reading = loader(store, workers=workers)
        for expected in epochs:
            for batch, other in zip(reading, expected, strict=True):
                for found, known in zip(tensors(batch), tensors(other), strict=True):
                    assert torch.equal(found, known)
                    assert found.dtype in (torch.float16, torch.bool)  # as stored


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_epoch_that_is_broken_off_leaves_no_thread(store, workers):
    before = threading.active_count()
    for _ in loader(store, workers=workers):
        break
    assert threading.active_count() == before


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_of_a_reading_thread_is_raised_by_the_loader(store, workers, monkeypatch):
    before = threading.active_count()
    reading = loader(store, workers=workers)
    monkeypatch.setattr(store, "path", store.path.with_name("gone.hdf5"))
    with pytest.raises(FileNotFoundError, match=r"gone.hdf5"):
        list(reading)
    assert threading.active_count() == before
