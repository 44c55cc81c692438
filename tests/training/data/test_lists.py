"""Lists of a query and its shuffled neighbours: what is in them, their labels, their batches, the errors."""

import re

import numpy as np
import pytest
import torch

from ames.descriptors.local import DescriptorFile, create_local
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.training.data.candidates import LabelledNeighbours
from ames.training.data.lists import ListLoader, ListSampler
from ames.training.data.neighbours import Neighbours
from ames.training.distributed import Ranks

IMAGES, NEAR = 40, 12


def candidates(labels=2, near=NEAR):
    """Image i's neighbours are itself, i + 1, ... in this order, falling; labels: i modulo ``labels``."""
    ids = (np.arange(IMAGES)[:, None] + np.arange(near)) % IMAGES
    similarities = np.linspace(1, 0.1, near) * np.ones((IMAGES, 1))
    return LabelledNeighbours(Neighbours.from_arrays(ids, similarities), np.arange(IMAGES) % labels)


@pytest.fixture
def store(tmp_path):
    """Image i has 3 to 6 descriptors of value i."""
    path = tmp_path / "local.hdf5"
    with create_local(path, images=IMAGES, slots=8, width=4) as write_row:
        for i in range(IMAGES):
            descriptors = np.full((3 + i % 4, 4), i, np.float32)
            write_row(i, LocalFeatures.from_descriptors(torch.from_numpy(descriptors)))
    return DescriptorFile(path)


def loader(store, seed=0, lists=10, **options):
    return ListLoader(ListSampler(candidates(), length=5), store, lists=lists, count=8, seed=seed, **options)


def test_a_list_is_the_nearest_images_without_the_query_in_any_order():
    sampler, rng = ListSampler(candidates(3), length=5), np.random.default_rng(0)
    anchors = np.array([0, 7, 39])
    orders = set()
    for _ in range(20):
        images, labels = sampler.draw(anchors, rng)
        assert images[0].tolist() == anchors.tolist()
        for column, anchor in enumerate(anchors):
            members = images[1:, column]
            assert sorted((members - anchor) % IMAGES) == [1, 2, 3, 4, 5]
            assert labels[1:, column].tolist() == (members % 3 == anchor % 3).astype(int).tolist()
            orders.add(tuple((members - anchor) % IMAGES))
    assert len(orders) > 30  # of 60 draws among 120 orders


def test_which_images_are_queries():
    assert len(ListSampler(candidates(), length=11).anchors) == IMAGES
    # 5 of the 11 neighbours share the label
    sampler = ListSampler(candidates(), length=5, min_positives=5)
    assert "40 lists of 5 neighbours, of 40 images; an image has 5.0 matches" in sampler.describe()
    with pytest.raises(AmesError, match="no list of 12 images: an image has at most 11 neighbours") as error:
        ListSampler(candidates(), length=12)
    assert "lower the model's window, or raise train_dataset.num_neighbours" in str(error.value)
    with pytest.raises(AmesError, match=re.escape("(needed: 5 and 6)")):
        ListSampler(candidates(), length=5, min_positives=6)


def test_batches_hold_the_descriptors_of_their_lists(store):
    batches = list(loader(store).epoch(0))
    assert len(batches) == len(loader(store)) == 4
    seen = [image for batch in batches for image in batch.images[0]]
    assert sorted(seen) == list(range(IMAGES))
    for batch in batches:
        images = torch.from_numpy(batch.images)
        assert torch.equal(batch.query.descriptors[:, 0, 0].long(), images[0])
        assert torch.equal(batch.candidates.descriptors[:, :, 0, 0].long(), images[1:].T)
        assert torch.equal(batch.candidates.counts, 3 + images[1:].T % 4)
        assert torch.equal(batch.labels, (images[1:] % 2 == images[0] % 2).T.float())
        part = batch.part(3, 5)
        assert part.images.tolist() == batch.images[:, 3:5].tolist()
        assert torch.equal(part.candidates.descriptors, batch.candidates.descriptors[3:5])
        assert torch.equal(part.labels, batch.labels[3:5])


def drawn(batches):
    return [batch.images.tolist() for batch in batches]


def test_an_epoch_depends_on_seed_and_number_alone(store):
    first = drawn(loader(store).epoch(0))
    assert first == drawn(loader(store, workers=2).epoch(0))
    assert first[2:] == drawn(loader(store).epoch(0, start=2))
    assert first != drawn(loader(store).epoch(1))
    assert first != drawn(loader(store, seed=1).epoch(0))


def test_processes_share_a_batch(store):
    whole = drawn(loader(store).epoch(0))
    parts = [drawn(loader(store).epoch(0, ranks=Ranks(rank=rank, count=3))) for rank in range(3)]
    joined = [np.concatenate(batch, axis=1).tolist() for batch in zip(*parts, strict=True)]
    assert joined == whole
    with pytest.raises(AmesError, match="a batch of 2 lists cannot be shared by 3 ranks"):
        next(loader(store, lists=2).epoch(0, ranks=Ranks(count=3)))


def test_a_list_s_length_is_one_of_the_settings():
    assert ListSampler(candidates(), length=5).settings() != ListSampler(candidates(), length=6).settings()
    found = candidates().scan()
    shared = ListSampler(candidates(), length=5, scan=found)
    assert shared.settings() == ListSampler(candidates(), length=5).settings()
