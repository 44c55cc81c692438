"""Shortlists: validation, round trip, and the message of each broken file."""

import pickle
import warnings

import numpy as np
import pytest
import torch

from ames.errors import AmesError
from ames.global_search import shortlist as shortlist_module
from ames.global_search.shortlist import Shortlist, count_repeated

IDS = np.array([[3, 0, 2], [1, 2, -1]])
SIMILARITIES = np.array([[0.9, 0.5, 0.1], [0.8, 0.2, np.nan]], dtype=np.float32)


def test_round_trip(tmp_path):
    meta = {"dataset": "toy", "gallery_size": 4}
    path = Shortlist(IDS, SIMILARITIES, meta).save(tmp_path / "new" / "s.npz", meta={"descriptors": "dinov2"})
    loaded = Shortlist.load(path, gallery_size=4)
    assert np.array_equal(loaded.ids, IDS)
    assert np.array_equal(loaded.similarities, SIMILARITIES, equal_nan=True)
    assert loaded.ids.dtype == np.int64
    assert loaded.similarities.dtype == np.float32
    assert loaded.meta == {"dataset": "toy", "gallery_size": 4, "descriptors": "dinov2"}
    assert [file.name for file in path.parent.iterdir()] == ["s.npz"]


def test_large_ids_survive(tmp_path):
    ids = np.array([[2**24 + 1, 2**40 + 1]])
    path = Shortlist(ids, np.zeros((1, 2))).save(tmp_path / "s.npz")
    assert np.array_equal(Shortlist.load(path).ids, ids)


def test_empty_and_narrow_types():
    assert Shortlist(np.empty((0, 5), dtype=np.int32), np.empty((0, 5))).ids.dtype == np.int64
    assert Shortlist(IDS.astype(np.int32), SIMILARITIES.astype(np.float64)).similarities.dtype == np.float32


@pytest.mark.parametrize(
    ("ids", "similarities", "message"),
    [
        (IDS.astype(np.float32), SIMILARITIES, "must be integers, not float32"),
        (IDS, SIMILARITIES.astype(bool), "must be float32, not bool"),
        (IDS[:1], SIMILARITIES, r"not \[1, 3\] and \[2, 3\]"),
        (IDS[0], SIMILARITIES[0], r"not \[3\] and \[3\]"),
        (IDS - 1, SIMILARITIES, "id -2: ids start at 0, and -1 is no entry"),
        (np.abs(IDS), SIMILARITIES, "similarity of query 1, entry 2 is nan"),
        (np.array([[0, 1, 2], [2, 1, 2]]), np.ones((2, 3)), "query 1 names gallery image 2 more than once"),
        (IDS, np.where(IDS == 0, np.inf, SIMILARITIES), "similarity of query 0, entry 1 is inf"),
    ],
)
def test_errors_of_validation(ids, similarities, message):
    with pytest.raises(AmesError, match=message):
        Shortlist(ids, similarities)


def test_entries_of_none_may_repeat_and_inspection_may_look_at_what_does():
    ids = np.array([[3, -1, -1], [2**40, 1, 0]])
    assert Shortlist(ids, np.ones((2, 3))).ids.tolist() == ids.tolist()
    twice = np.array([[3, 3, 3], [1, -1, 1]])
    assert Shortlist(twice, np.ones((2, 3)), distinct=False).ids.tolist() == twice.tolist()
    assert count_repeated(twice) == 3
    assert count_repeated(np.empty((4, 0), np.int64)) == 0


def test_a_repeated_image_far_down_is_placed(tmp_path, monkeypatch):
    monkeypatch.setattr(shortlist_module, "_IDS_AT_ONCE", 100)
    ids = np.tile(np.arange(7), (5000, 1))
    ids[4321, 6] = 2
    np.savez(tmp_path / "s.npz", ids=ids, similarities=np.ones(ids.shape), meta=np.array("{}"))
    failing_load(tmp_path / "s.npz", "query 4321 names gallery image 2 more than once")
    assert count_repeated(Shortlist.load(tmp_path / "s.npz", distinct=False).ids) == 1


def test_a_bad_similarity_far_down_is_placed():
    ids = np.zeros((5000, 1), dtype=np.int64)
    similarities = np.zeros((5000, 1))
    similarities[4999] = np.nan
    with pytest.raises(AmesError, match="query 4999, entry 0"):
        Shortlist(ids, similarities)


def failing_load(path, message, **arguments):
    with pytest.raises(AmesError, match=message) as error:
        Shortlist.load(path, **arguments)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_errors_of_loading(tmp_path):
    path = Shortlist(IDS, SIMILARITIES).save(tmp_path / "s.npz")
    failing_load(path, "id 3 but the gallery has 3 images", gallery_size=3)
    failing_load(tmp_path / "absent.npz", "there is no such shortlist file")
    failing_load(tmp_path / "nn.pkl", "no such file")

    content = path.read_bytes()
    for name, damaged in (
        ("cut", content[:-40]),
        ("empty", b""),
        ("text", b"no archive"),
        ("pickle", b"\x80\x04N."),
    ):
        broken = tmp_path / f"{name}.npz"
        broken.write_bytes(damaged)
        failing_load(broken, "broken, or not an .npz file")
    flipped = bytearray(content)
    flipped[content.index(IDS.tobytes())] ^= 1
    (tmp_path / "flipped.npz").write_bytes(flipped)
    failing_load(tmp_path / "flipped.npz", "broken")


def test_errors_of_foreign_archives(tmp_path):
    path = tmp_path / "s.npz"
    np.savez(path, ids=IDS, other=IDS)
    failing_load(path, "lacks similarities, meta")
    np.savez(path, ids=IDS, similarities=SIMILARITIES, meta=np.array("nothing"))
    failing_load(path, "meta of the shortlist is not a JSON dict")
    np.savez(path, ids=IDS.astype(object), similarities=SIMILARITIES, meta=np.array("{}"))
    failing_load(path, "broken")
    np.savez(path, ids=IDS.astype(np.float32), similarities=SIMILARITIES, meta=np.array("{}"))
    failing_load(path, "must be integers")
    with open(path, "wb") as file:
        np.save(file, IDS)
    failing_load(path, "broken, or not an .npz file")


def test_error_of_saving(tmp_path):
    with pytest.raises(AmesError, match=r"give a name that ends in \.npz"):
        Shortlist(IDS, SIMILARITIES).save(tmp_path / "s.pkl")


# ---- published pickles ------------------------------------------------------------------------------


def pickled(path, content):
    path.write_bytes(pickle.dumps(content))
    return path


def published(dtype, ids=((2, 0, 1), (1, 2, 0))):
    similarities = np.array([[0.75, 0.5, 0.25], [1, 0.5, -0.125]])
    return np.stack((similarities, np.array(ids))).astype(dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f8"])
@pytest.mark.parametrize(
    "kind", [np.asarray, lambda x: torch.from_numpy(x.astype(x.dtype.newbyteorder("=")))]
)
def test_a_published_pickle(tmp_path, kind, dtype):
    path = pickled(tmp_path / "nn_dinov2.pkl", kind(published(dtype)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Shortlist.load(path, gallery_size=3)
    assert found.ids.dtype == np.int64
    assert found.ids.tolist() == [[2, 0, 1], [1, 2, 0]]
    assert found.similarities.dtype == np.float32
    assert found.similarities.tolist() == [[0.75, 0.5, 0.25], [1, 0.5, -0.125]]
    failing_load(path, "id 2 but the gallery has 2 images", gallery_size=2)


def test_the_first_columns_alone(tmp_path):
    for path in (
        pickled(tmp_path / "s.pkl", published("float64")),
        Shortlist(IDS, SIMILARITIES).save(tmp_path / "s.npz"),
    ):
        found = Shortlist.load(path, columns=2)
        assert found.ids.shape == found.similarities.shape == (2, 2)
        assert Shortlist.load(path, columns=99).ids.shape == (2, 3)
        assert found.ids.base is None  # the rest is not kept
        failing_load(path, "0 columns of the shortlist were asked for", columns=0)


def test_ids_are_exact_or_refused(tmp_path):
    path = tmp_path / "s.pkl"
    pickled(path, published("float32", [[2**24 - 1, 0, 1], [0, 1, 2]]))
    assert Shortlist.load(path).ids[0, 0] == 2**24 - 1
    pickled(path, published("float64", [[2**24 + 1, 0, 1], [0, 1, 2]]))
    assert Shortlist.load(path).ids[0, 0] == 2**24 + 1
    pickled(path, published("float32", [[2**24 + 1, 0, 1], [0, 1, 2]]))
    failing_load(
        path, "id 16777216 of the shortlist is stored as float32, which is exact only below 16777216"
    )
    pickled(path, published("float16", [[2049, 0, 1], [0, 1, 2]]))
    failing_load(path, "exact only below 2048")
    for bad in (0.5, np.nan, np.inf):
        pickled(path, published("float64", [[0, bad, 1], [0, 1, 2]]))
        failing_load(path, f"the id {bad} of the shortlist is not a whole number")
    pickled(path, published("float64", [[0, -2, 1], [0, 1, 2]]))
    failing_load(path, "id -2: ids start at 0")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((3, 2, 4)), r"expected an array \(2, queries, entries\), found float64 \(3, 2, 4\)"),
        (np.zeros((2, 4)), "found float64"),
        (np.zeros((2, 3, 4), complex), "found complex128"),
        ({"gnd": []}, "found a dict"),
        (np.float64(3), "found a float64"),
    ],
)
def test_pickles_of_other_content(tmp_path, content, message):
    failing_load(pickled(tmp_path / "s.pkl", content), message)


def test_a_damaged_pickle(tmp_path):
    path = pickled(tmp_path / "s.pkl", published("float64"))
    path.write_bytes(path.read_bytes()[:-20])
    failing_load(path, "not a pickle, or a damaged one")
