"""Batches of triplets: their descriptors, their order, reading ahead, and the errors."""

import threading

import h5py
import numpy as np
import pytest
import torch

from ames.descriptors.local import DescriptorFile, create_local
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.training.data.loader import TripletLoader
from helpers.neighbourhoods import everyone, sampled


@pytest.fixture
def store(tmp_path):
    """40 images; image i has descriptors of value i, and 3 to 6 of its 8 slots are real."""
    path = tmp_path / "local.hdf5"
    with create_local(path, images=40, slots=8, width=4) as write_row:
        for i in range(40):
            descriptors = np.full((3 + i % 4, 4), i, np.float32)
            write_row(i, LocalFeatures.from_descriptors(torch.from_numpy(descriptors)))
    return DescriptorFile(path)


def loader(store, seed=0, **changes):
    sampler = sampled(*everyone(40, 2))
    return TripletLoader(sampler, store, **{"triplets": 10, "count": 8, "seed": seed} | changes)


def images_of(features):
    return features.descriptors[:, 0, 0].int().tolist()


def contents(batches):
    return [[images_of(x) for x in (b.anchor, b.positive, b.negatives)] for b in batches]


def test_batches_hold_the_descriptors_of_their_triplets(store):
    batches = list(loader(store).epoch(0))
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
    batch = next(loader(store).epoch(0))
    query, database = batch.pairs()
    assert images_of(query) == 2 * images_of(batch.anchor)
    assert images_of(database) == images_of(batch.positive) + images_of(batch.negatives)


def test_pairs_of_several_negatives(store):
    sampler = sampled(*everyone(40, 2), negatives=3)
    for batch in TripletLoader(sampler, store, triplets=10, count=8).epoch(0):
        query, database = batch.pairs()
        assert batch.images.shape == (5, 10)
        assert images_of(query) == 4 * batch.images[0].tolist()
        assert images_of(database) == batch.images[1:].reshape(-1).tolist()


def test_the_same_seed_gives_the_same_batches(store):
    first, again, other = loader(store), loader(store), loader(store, seed=1)
    epochs = [contents(first.epoch(number)) for number in range(2)]
    assert epochs == [contents(again.epoch(number)) for number in range(2)]
    assert epochs[0] != epochs[1]
    assert epochs[0] != contents(other.epoch(0))


def test_no_more_descriptors_than_asked_for(store):
    assert next(loader(store, count=2).epoch(0)).anchor.size == 2


def test_more_triplets_than_anchors_make_one_batch(store):
    assert [len(b.anchor.valid) for b in loader(store, triplets=100).epoch(0)] == [40]


def test_descriptors_of_another_data_set(store, tmp_path):
    path = tmp_path / "other.hdf5"
    with create_local(path, images=39, slots=8, width=4):
        pass
    with pytest.raises(AmesError, match=r"other.hdf5: 39 images, but 40 in the training list"):
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
    epochs = [list(alone.epoch(number)) for number in range(2)]
    for workers in (1, 3):
        reading = loader(store, workers=workers)
        for number, expected in enumerate(epochs):
            for batch, other in zip(reading.epoch(number), expected, strict=True):
                for found, known in zip(tensors(batch), tensors(other), strict=True):
                    assert torch.equal(found, known)
                    assert found.dtype in (torch.float16, torch.bool)  # as stored


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_epoch_that_is_broken_off_leaves_no_thread(store, workers):
    before = threading.active_count()
    for _ in loader(store, workers=workers).epoch(0):
        break
    assert threading.active_count() == before


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_of_a_reading_thread_is_raised_by_the_loader(store, workers):
    before = threading.active_count()
    reading = loader(store, workers=workers)
    store.path.unlink()
    with pytest.raises(AmesError, match=rf"{store.path}.*No such file"):
        list(reading.epoch(0))
    assert threading.active_count() == before
