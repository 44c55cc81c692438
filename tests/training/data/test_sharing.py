"""Ranks that train together: together they read the global batch, each of them a part of it."""

import numpy as np
import pytest
import torch

from ames.descriptors.local import DescriptorFile, create_local
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.training.data.candidates import LabelledNeighbours
from ames.training.data.loader import TripletLoader
from ames.training.data.neighbours import Neighbours
from ames.training.data.sampler import TripletSampler
from ames.training.distributed import Ranks

IMAGES = 30


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Image i has descriptors of value i, 1 to 6 of them."""
    path = tmp_path_factory.mktemp("store") / "local.hdf5"
    with create_local(path, images=IMAGES, slots=8, width=4) as write_row:
        for i in range(IMAGES):
            write_row(i, LocalFeatures.from_descriptors(torch.full((1 + i % 6, 4), float(i))))
    return DescriptorFile(path)


def loader(store, negatives=1, **changes):
    ids = np.stack([np.roll(np.arange(IMAGES), -i) for i in range(IMAGES)])
    candidates = LabelledNeighbours(Neighbours.from_arrays(ids, np.ones(ids.shape)), np.arange(IMAGES) % 2)
    sampler = TripletSampler(candidates, negatives=negatives)
    return TripletLoader(sampler, store, **{"triplets": 7, "count": 8, "seed": 4} | changes)


@pytest.mark.parametrize("negatives", [1, 3])
@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_the_parts_are_the_global_batch(store, ranks, negatives):
    whole = list(loader(store, negatives).epoch(0))
    sharing = [loader(store, negatives, workers=rank % 2) for rank in range(ranks)]
    assert {len(one) for one in sharing} == {len(whole)} == {4}
    assert all(one.settings() == loader(store, negatives).settings() for one in sharing)
    epochs = [one.epoch(0, ranks=Ranks(rank=rank, count=ranks)) for rank, one in enumerate(sharing)]
    for expected, *parts in zip(whole, *epochs, strict=True):
        assert np.array_equal(np.concatenate([part.images for part in parts], axis=1), expected.images)
        sizes = [part.images.shape[1] for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert [part.first for part in parts] == np.cumsum([0, *sizes])[:-1].tolist()
        assert sum(part.share for part in parts) == pytest.approx(1)
        assert max(part.longest for part in parts) == expected.longest
        query, database = expected.pairs()
        for part in parts:
            ours = part.trimmed(expected.longest).pairs()
            for mine, all_of_it in zip(ours, (query, database), strict=True):
                assert torch.equal(mine.descriptors, all_of_it.descriptors[part.positions])
                assert torch.equal(mine.valid, all_of_it.valid[part.positions])
            assert torch.equal(part.labels, expected.labels[part.positions])


def test_a_part_is_as_long_as_its_own_images_need(store):
    parts = [list(loader(store).epoch(0, ranks=Ranks(rank=rank, count=7))) for rank in range(7)]
    longest = {part.longest for rank in parts for part in rank}
    assert len(longest) > 1
    for part in (part for rank in parts for part in rank):
        assert part.longest == max(1 + image % 6 for image in part.images.reshape(-1))


def test_more_ranks_than_triplets(store):
    with pytest.raises(AmesError, match="a batch of 7 triplets cannot be shared by 8 ranks"):
        loader(store).epoch(0, ranks=Ranks(count=8))


@pytest.mark.parametrize(("rank", "ranks"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_that_is_none(rank, ranks):
    with pytest.raises(AmesError, match=f"rank {rank} of {ranks}"):
        Ranks(rank=rank, count=ranks)
