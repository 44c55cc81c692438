"""Batches of AFF: images, their features and their labels, whatever the workers and processes."""

import numpy as np
import pytest
import torch

from ames.embedders.features import StoredFeatures
from ames.errors import AmesError
from ames.training.data.aff import AffLoader
from ames.training.distributed import Ranks
from helpers.small_aff import IMAGES, LABELS, aff_loader, photo_loader, stored, write_aff, write_features


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_aff(tmp_path_factory.mktemp("aff"))


class Silent(Ranks):
    """One of several processes whose others have as many images and nothing to say."""

    def all_reduce_sum(self, values):
        return [self.count * x for x in values]


def epoch(loader, number=0, start=0, ranks=None):
    return [*loader.epoch(number, start, ranks or Ranks())]


def same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.rows.tolist() == y.rows.tolist()
        assert torch.equal(x.labels, y.labels)
        assert (x.classes is None) == (y.classes is None)
        assert x.classes is None or torch.equal(x.classes, y.classes)
        assert torch.equal(x.pixels, y.pixels)
        for name in x.features:
            assert torch.equal(x.features[name].descriptors, y.features[name].descriptors)
        assert (x.seed, x.left_out) == (y.seed, y.left_out)


def test_a_batch_has_the_features_pixels_and_labels_of_its_rows(folder):
    loader, files, seen = aff_loader(folder), stored(folder), []
    photos = photo_loader(folder).epoch(1)
    for batch, images in zip(epoch(loader, 1), photos, strict=True):
        seen += batch.rows.tolist()
        assert batch.labels.tolist() == LABELS[batch.rows].tolist()
        wanted = files.read(batch.rows)
        for name, x in batch.features.items():
            assert torch.equal(x.descriptors, wanted[name].descriptors)
            assert torch.equal(x.valid, wanted[name].valid)
        assert batch.rows.tolist() == images.rows.tolist()
        assert torch.equal(batch.pixels, loader.inputs.tensor(images.pixels))
        assert (batch.classes, batch.left_out) == (None, 0)
    assert sorted(seen) == [*range(IMAGES)]
    assert len(loader) == 3


def test_each_epoch_and_seed_has_another_order_and_batches_their_own_seeds(folder):
    orders, seeds = [], []
    for number, seed in ((0, 0), (1, 0), (0, 1)):
        batches = epoch(aff_loader(folder, stage="gallery", seed=seed), number)
        orders.append(np.concatenate([x.rows for x in batches]).tolist())
        seeds += [x.seed for x in batches]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]
    assert len({*seeds}) == 9
    ranks = [epoch(aff_loader(folder, stage="gallery"), ranks=Silent(rank=r, count=2)) for r in range(2)]
    assert {x.seed for x in ranks[0]}.isdisjoint(x.seed for x in ranks[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_the_start_change_nothing(folder, workers):
    whole = epoch(aff_loader(folder, share=0.7), 2)
    same(epoch(aff_loader(folder, share=0.7, workers=workers), 2), whole)
    same(epoch(aff_loader(folder, share=0.7, workers=workers), 2, 1), whole[1:])


@pytest.mark.parametrize("stage", ["joint", "gallery"])
def test_processes_share_a_batch_and_its_classes(folder, stage):
    whole = epoch(aff_loader(folder, stage=stage, share=0.5))
    parts = [
        epoch(aff_loader(folder, stage=stage, share=0.5), ranks=Silent(rank=r, count=2)) for r in range(2)
    ]
    for batch, *halves in zip(whole, *parts, strict=True):
        assert np.concatenate([x.rows for x in halves]).tolist() == batch.rows.tolist()
        assert torch.equal(torch.cat([x.labels for x in halves]), batch.labels)
        assert all(torch.equal(x.classes, batch.classes) for x in halves)
        assert (batch.pixels is None) == (stage == "gallery")
        if stage == "joint":
            assert torch.equal(torch.cat([x.pixels for x in halves]), batch.pixels)


def test_labels_count_among_the_sampled_classes(folder):
    for batch in epoch(aff_loader(folder, share=0.7, batch=4)):
        assert len(batch.classes) == 4  # of 6; a batch of 4 has no more of its own
        assert batch.classes[batch.labels].tolist() == LABELS[batch.rows].tolist()


def test_an_image_that_cannot_be_read_is_left_out_with_its_features(folder):
    bad = {3: "cut.jpg", 20: "empty.jpg"}
    good = epoch(aff_loader(folder, share=0.5))
    for batch, whole in zip(epoch(aff_loader(folder, bad, share=0.5)), good, strict=True):
        kept = ~np.isin(whole.rows, [*bad])
        assert batch.rows.tolist() == whole.rows[kept].tolist()
        assert torch.equal(batch.labels, whole.labels[torch.from_numpy(kept)])
        assert torch.equal(batch.classes, whole.classes)
        assert len(batch.features["a_global"].valid) == len(batch.pixels) == kept.sum()
        assert batch.left_out == (~kept).sum()
    assert not [x for x in epoch(aff_loader(folder, bad, stage="gallery")) if len(x.rows) < 8]


def test_settings_tell_lists_features_and_seeds_apart(folder, tmp_path):
    settings = aff_loader(folder).settings()
    assert settings == aff_loader(folder, workers=2).settings()
    write_aff(tmp_path)
    assert settings == aff_loader(tmp_path).settings()
    write_features(tmp_path, seed=1)
    for other in (
        aff_loader(tmp_path),  # files of the same names and sizes
        aff_loader(folder, seed=1),
        aff_loader(folder, share=0.5),
        aff_loader(folder, batch=6),
        aff_loader(folder, stage="gallery"),
        aff_loader(folder, stage="network"),
    ):
        assert other.settings() != settings


def test_what_does_not_go_together_is_one_line(folder):
    with pytest.raises(AmesError, match=r"a_global.hdf5: 24 images, but 20 in the training list"):
        AffLoader(LABELS[:20], batch=8, stored=stored(folder))
    with pytest.raises(AmesError, match="batches of 8 of 24 photos, but of 8 of 20 labels"):
        AffLoader(LABELS[:20], batch=8, photos=photo_loader(folder))
    with pytest.raises(AmesError, match="batches of 8 of 24 photos, but of 6 of 24 labels"):
        AffLoader(LABELS, batch=6, photos=photo_loader(folder))
    with pytest.raises(AmesError, match="stored features or both: none are given"):
        AffLoader(LABELS, batch=8)
    with pytest.raises(AmesError, match=r"class_share 0 is outside \(0, 1\]"):
        aff_loader(folder, share=0)
    with pytest.raises(AmesError, match="a batch of 8 images cannot be shared by 9 ranks"):
        epoch(aff_loader(folder, stage="gallery"), ranks=Ranks(count=9))


def test_a_batch_larger_than_the_list_is_all_of_it(folder):
    (batch,) = epoch(aff_loader(folder, stage="gallery", batch=100))
    assert len(batch.rows) == IMAGES
    one = StoredFeatures({"a_global": folder / "a_global.hdf5"})
    assert len(AffLoader(LABELS, batch=100, stored=one)) == 1
