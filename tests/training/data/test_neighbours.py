"""Neighbours read from where they are stored: the same as a shortlist in memory, mapped, and the errors."""

import pickle

import numpy as np
import pytest

from ames.errors import AmesError
from ames.global_search.shortlist import Shortlist
from ames.io import pickles
from ames.training.data.neighbours import Neighbours

IMAGES, ENTRIES = 40, 12


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    ids = np.stack([rng.permutation(IMAGES)[:ENTRIES] for _ in range(IMAGES)])
    ids[3, 5:] = -1
    similarities = np.sort(rng.uniform(-0.2, 1, ids.shape))[:, ::-1].astype(np.float32)
    similarities[3, 5:] = np.nan
    return ids, similarities


def stored(folder, kind, ids, similarities, monkeypatch=None):
    if kind == "npz":
        return Shortlist(ids, similarities).save(folder / "nn.npz")
    if kind == "compressed":
        np.savez_compressed(folder / "nn.npz", ids=ids, similarities=similarities)
        return folder / "nn.npz"
    if kind == "mapped":
        monkeypatch.setattr(pickles, "_LARGE", 0)
    content = np.stack((similarities, ids)).astype(np.float64)
    (folder / "nn.pkl").write_bytes(pickle.dumps(content, protocol=3))  # small ones lie in a frame since 4
    return folder / "nn.pkl"


def is_mapped(array):
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False


@pytest.mark.parametrize("kind", ["npz", "compressed", "pickle", "mapped"])
@pytest.mark.parametrize("columns", [5, 300])
def test_rows_are_those_of_the_shortlist(tmp_path, monkeypatch, kind, columns):
    ids, similarities = arrays()
    near = Neighbours.open(
        stored(tmp_path, kind, ids, similarities, monkeypatch), images=IMAGES, columns=columns
    )
    assert is_mapped(near._ids) == is_mapped(near._similarities) == (kind in ("npz", "mapped"))
    for index in (np.array([7, 3, 7, 39]), slice(30, 40), np.array([], int)):
        found, values = near.rows(index)
        assert (found.dtype, values.dtype) == (np.int64, np.float32)
        assert np.array_equal(found, ids[index, :columns])
        assert np.array_equal(values, similarities[index, :columns], equal_nan=True)
    assert (near.images, near.columns) == (IMAGES, min(columns, ENTRIES))


@pytest.mark.parametrize(
    ("row", "ids", "similarity", "message"),
    [
        (5, 40, 0.5, "names image 40 of 40: is it of another data set"),
        (5, -2, 0.5, "holds the id -2"),
        (5, 1.5, 0.5, "id 1.5 of the shortlist is not a whole number"),
        (37, 3, np.nan, "similarity of image 37, entry 1 is nan"),
        (37, 3, 1e300, "similarity of image 37, entry 1 is inf"),
    ],
)
def test_values_are_checked_when_they_are_read(tmp_path, row, ids, similarity, message):
    content = np.stack(arrays()[::-1]).astype(np.float64)
    content[:, row, 1] = similarity, ids
    path = tmp_path / "nn.pkl"
    path.write_bytes(pickle.dumps(content))
    near = Neighbours.open(path, images=IMAGES)
    near.rows(np.delete(np.arange(IMAGES), row))
    with pytest.raises(AmesError, match=message) as error:
        near.rows(np.array([0, row]))
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def failing(path, message, images=IMAGES, **options):
    with pytest.raises(AmesError, match=message) as error:
        Neighbours.open(path, images=images, **options)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_none(tmp_path):
    ids, similarities = arrays()
    path = stored(tmp_path, "npz", ids, similarities)
    failing(path, "shortlist of 40 images, but 41 are in the list", images=41)
    failing(path, "0 neighbours of an image", columns=0)
    failing(tmp_path / "absent.npz", "there is no such shortlist file")
    failing(tmp_path / "absent.pkl", "no such file")
    content = path.read_bytes()
    for name, damaged in (("cut", content[:-200]), ("empty", b""), ("text", b"no archive")):
        broken = tmp_path / f"{name}.npz"
        broken.write_bytes(damaged)
        failing(broken, "broken, or not an .npz file")
    place = content.index(b"(40, 12)")
    (tmp_path / "shape.npz").write_bytes(content[:place] + b"(41, 12)" + content[place + 8 :])
    failing(tmp_path / "shape.npz", "broken")
    np.savez(path, ids=ids)
    failing(path, "lacks similarities")
    np.savez(path, ids=ids.astype(np.float32), similarities=similarities)
    failing(path, "must be integers, not float32")
    np.savez(path, ids=ids.astype(object), similarities=similarities)
    failing(path, "broken")
    np.savez(path, ids=ids, similarities=similarities[:, 1:])
    failing(path, r"one shape \[images, entries\]")
    (tmp_path / "nn.pkl").write_bytes(pickle.dumps(ids))
    failing(tmp_path / "nn.pkl", "not a shortlist")
