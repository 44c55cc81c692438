"""Shortlists: validation, round trip, and the message of each broken file."""

import numpy as np
import pytest

from ames.data.shortlist import Shortlist
from ames.errors import AmesError

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


def test_top():
    shortlist = Shortlist(IDS, SIMILARITIES, {"dataset": "toy"})
    assert shortlist.top(2).ids.tolist() == [[3, 0], [1, 2]]
    assert shortlist.top(2).similarities.shape == (2, 2)
    assert shortlist.top(2).meta == {"dataset": "toy"}
    assert shortlist.top(99).ids.shape == (2, 3)
    with pytest.raises(AmesError, match="asked for 0 entries"):
        shortlist.top(0)


@pytest.mark.parametrize(
    ("ids", "similarities", "message"),
    [
        (IDS.astype(np.float32), SIMILARITIES, "must be integers, not float32"),
        (IDS, SIMILARITIES.astype(bool), "must be float32, not bool"),
        (IDS[:1], SIMILARITIES, r"not \[1, 3\] and \[2, 3\]"),
        (IDS[0], SIMILARITIES[0], r"not \[3\] and \[3\]"),
        (IDS - 1, SIMILARITIES, "id -2: ids start at 0, and -1 is no entry"),
        (np.abs(IDS), SIMILARITIES, "similarity of query 1, entry 2 is nan"),
        (IDS, np.where(IDS == 0, np.inf, SIMILARITIES), "similarity of query 0, entry 1 is inf"),
    ],
)
def test_errors_of_validation(ids, similarities, message):
    with pytest.raises(AmesError, match=message):
        Shortlist(ids, similarities)


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
    failing_load(tmp_path / "nn.pkl", "there is no such file")

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
