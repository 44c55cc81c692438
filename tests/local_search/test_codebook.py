"""Codebooks: k-means as good as the released one, exact assignment, files, what they are drawn from."""

import numpy as np
import pytest
import torch

from ames.descriptors.local import DescriptorFile, create_local
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.local_search.codebook import Codebook, draw_descriptors, nearest_words, train_codebook
from golden import asmk

FIGURES = asmk.FIGURES["codebook"]


def test_words_are_as_near_as_those_of_the_released_k_means():
    """Of unit vectors, as the other cases."""
    x = asmk.unit(asmk.drawn((FIGURES["vectors"], FIGURES["dim"]), FIGURES["seed"]))
    found = Codebook.train(x, FIGURES["words"])
    error = ((x - found.centroids[found.assign(x)[:, 0]]) ** 2).sum(1).mean()
    assert error == pytest.approx(FIGURES["quantization_error"], rel=0.05)


def test_the_same_call_gives_the_same_words():
    x = asmk.drawn((200, 6), 1)
    first, again, other = (Codebook.train(x, 10, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.centroids, again.centroids)
    assert (first.centroids != other.centroids).any()
    assert first.meta == {"words": 10, "dim": 6, "seed": 3, "iterations": 10, "trained_on": {}}


def test_words_are_the_nearest_by_distance():
    x, c = asmk.drawn((50, 7), 1), 3 * asmk.drawn((20, 7), 2)
    distances = ((x[:, None] - c[None]) ** 2).sum(2)
    found = Codebook(c).assign(x, 4)
    np.testing.assert_array_equal(found, np.argsort(distances, 1)[:, :4])
    assert Codebook(c).assign(x[:0], 4).shape == (0, 4)
    with pytest.raises(AmesError, match="21 words a descriptor were asked for: the codebook has 20"):
        Codebook(c).assign(x, 21)
    with pytest.raises(AmesError, match="descriptors are 6-d, the codebook takes 7-d"):
        Codebook(c).assign(x[:, :6])


def test_words_on_other_devices_are_the_same():
    """Where FAISS is not used: the way is torch's, of any device."""

    class Elsewhere(torch.Tensor):
        device = torch.device("meta")

    x, c = torch.from_numpy(asmk.drawn((50, 7), 1)), torch.from_numpy(asmk.drawn((20, 7), 2))
    found = nearest_words(x.as_subclass(Elsewhere), c, 4).as_subclass(torch.Tensor)
    np.testing.assert_array_equal(found, nearest_words(x, c, 4))


def test_saved_and_loaded(tmp_path):
    made = Codebook.train(asmk.drawn((30, 6), 1), 5, trained_on={"file": "x"})
    path = made.save(tmp_path / "x.npz")
    found = Codebook.load(path)
    np.testing.assert_array_equal(found.centroids, made.centroids)
    assert found.meta == made.meta
    with pytest.raises(AmesError, match=r"ends in \.npz"):
        made.save(tmp_path / "x.bin")


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(AmesError, match="no such file"):
        Codebook.load(path)
    path.write_bytes(b"some bytes")
    with pytest.raises(AmesError, match=r"x\.npz: broken, or not a codebook"):
        Codebook.load(path)
    np.savez(path, centroids=np.ones((2, 3)), meta=np.array("{}"))
    with pytest.raises(AmesError, match=r"x\.npz: no codebook"):
        Codebook.load(path)
    np.savez(path, centroids=np.array([object()]), meta=np.array('{"kind": "codebook of visual words"}'))
    with pytest.raises(AmesError, match=r"x\.npz: broken"):
        Codebook.load(path)
    for wrong in (np.ones(3), np.ones((2, 0)), np.ones((2, 3), int), np.full((2, 3), np.nan)):
        np.savez(path, centroids=wrong, meta=np.array('{"kind": "codebook of visual words"}'))
        with pytest.raises(AmesError, match=r"x\.npz: centroids"):
            Codebook.load(path)


def written(path, images, slots, packed=False):
    """A file of images of 0, 1, 2 ... descriptors; the first number of each is the image's."""
    with create_local(path, images=images, slots=slots, width=4, dtype="float32") as write:
        for row in range(images):
            x = torch.full((min(row, slots), 4), float(row))
            write(row, LocalFeatures.from_descriptors(x))
    return DescriptorFile(path)


def test_drawn_from_a_file(tmp_path):
    file = written(tmp_path / "x.hdf5", 9, 5)
    every = draw_descriptors(file)
    assert every[:, 0].tolist() == [row for row in range(9) for _ in range(min(row, 5))]
    few = draw_descriptors(file, images=4, count=2, seed=1)[:, 0]
    assert len(set(few)) in (3, 4)  # image 0 has none
    assert max(np.bincount(few.astype(int))) == 2
    np.testing.assert_array_equal(few, draw_descriptors(file, images=4, count=2, seed=1)[:, 0])
    found = train_codebook(file, 3, images=8, count=2)
    assert found.meta["trained_on"]["images"] == 8
    assert found.meta["trained_on"]["descriptors"] == len(draw_descriptors(file, images=8, count=2))


def test_what_words_cannot_be_made_of(tmp_path):
    file = written(tmp_path / "x.hdf5", 3, 5)
    with pytest.raises(AmesError, match=r"x\.hdf5: 3 descriptors of 3 images are too few for 4 words"):
        train_codebook(file, 4)
    with pytest.raises(AmesError, match="3 descriptors are too few for 4 words"):
        Codebook.train(np.ones((3, 2)), 4)
    with pytest.raises(AmesError, match="NaN or infinity"):
        Codebook.train(np.full((3, 2), np.nan), 1)
    with pytest.raises(AmesError, match="0 words"):
        Codebook.train(np.ones((3, 2)), 0)
    with create_local(tmp_path / "y.hdf5", images=1, slots=2, width=4) as write:
        write(0, LocalFeatures.from_descriptors(torch.full((2, 4), torch.nan)))
    with pytest.raises(AmesError, match=r"y\.hdf5: descriptors hold NaN"):
        draw_descriptors(DescriptorFile(tmp_path / "y.hdf5"))
