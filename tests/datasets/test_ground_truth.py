"""Ground truth: round trip through JSON, and the message of each thing that can be wrong with a file."""

import copy
import json
import pickle

import numpy as np
import pytest

from ames.datasets.ground_truth import check_names, ids, load_ground_truth, save_ground_truth
from ames.errors import AmesError

RAW = {
    "imlist": ["a", "b", "ç"],
    "qimlist": ["q0", "q1"],
    "gnd": [
        {"bbx": [1.5, 2.0, 30.0, 40.0], "easy": [0, 2], "hard": [], "junk": [1]},
        {"bbx": [0, 0, 5, 5], "easy": [], "hard": [1], "junk": []},
    ],
}


def written(tmp_path, change=None):
    raw = copy.deepcopy(RAW)
    if change is not None:
        change(raw)
    path = tmp_path / "gnd.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    return path


def test_load(tmp_path):
    truth = load_ground_truth(written(tmp_path))
    assert truth.imlist == ["a", "b", "ç"]
    assert truth.qimlist == ["q0", "q1"]
    assert truth.queries[0]["easy"].tolist() == [0, 2]
    assert all(array.dtype == np.int64 for query in truth.queries for array in query.values())
    assert set(truth.queries[0]) == {"easy", "hard", "junk"}
    assert truth.boxes.tolist() == [[1.5, 2, 30, 40], [0, 0, 5, 5]]


def test_round_trip_leaves_only_the_file(tmp_path):
    truth = load_ground_truth(written(tmp_path))
    path = save_ground_truth(tmp_path / "new" / "copy.json", truth)
    assert json.loads(path.read_text(encoding="utf-8")) == RAW
    assert [file.name for file in path.parent.iterdir()] == ["copy.json"]


def test_boxes_are_optional(tmp_path):
    truth = load_ground_truth(written(tmp_path, lambda raw: [query.pop("bbx") for query in raw["gnd"]]))
    assert truth.boxes is None
    assert load_ground_truth(save_ground_truth(tmp_path / "copy.json", truth)).boxes is None


def test_ids():
    query = {"easy": np.array([4, 2]), "hard": np.array([], dtype=np.int64), "junk": np.array([1])}
    joined = ids(query, ("junk", "easy", "hard"))
    assert joined.tolist() == [1, 4, 2]
    assert joined.dtype == ids(query, ()).dtype == np.int64
    with pytest.raises(AmesError, match="no key 'ok': its keys are easy, hard, junk"):
        ids(query, ("ok",))


def put(*keys, value):
    def change(raw):
        for key in keys[:-1]:
            raw = raw[key]
        raw[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: [raw.pop("gnd"), raw.pop("qimlist")], "lacks the key gnd"),
        (put("imlist", value="abc"), "imlist must be a list of image names"),
        (put("qimlist", value=[1, 2]), "qimlist must be a list of image names"),
        (put("qimlist", value=["q"]), "gnd has 2 queries but qimlist has 1 names"),
        (put("gnd", value=[1, 2]), "gnd must be a list with one dict per query"),
        (lambda raw: raw["gnd"][1].pop("junk"), "query 1 and query 0 differ in having the key 'junk'"),
        (put("gnd", 1, "hard", value=[0, 3]), "query 1, hard: 3 is outside of imlist, which has 3 names"),
        (put("gnd", 1, "hard", value=[-1]), "query 1, hard: -1 is outside"),
        (put("gnd", 0, "easy", value=[0.5]), "query 0, easy: 0.5 is not a whole number"),
        (put("gnd", 0, "easy", value=["0"]), "query 0, easy: must be a flat list"),
        (put("gnd", 0, "easy", value=[[0], [1, 2]]), "query 0, easy: must be a flat list"),
        (put("gnd", 0, "easy", value=1), "query 0, easy: must be a flat list"),
        (put("gnd", 1, "bbx", value=[1, 2, 3]), "query 1, bbx: must be a box"),
        (put("gnd", 1, "bbx", value=[5, 0, 1, 5]), "x1 < x2"),
        (put("gnd", 1, "bbx", value=None), "query 1, bbx: must be a box"),
    ],
)
def test_errors_name_the_file_and_the_place(tmp_path, change, message):
    with pytest.raises(AmesError, match=message) as error:
        load_ground_truth(written(tmp_path, change))
    assert "gnd.json: " in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gnd.json", b"{", "not a JSON file"),
        ("gnd.json", b"\x80\x04\x95", "not a JSON file"),
        ("gnd.json", b"[]", "must be a dict with imlist, qimlist and gnd"),
        ("gnd.json", None, "cannot read the ground truth: No such file"),
        ("gnd.pkl", b"", "not a pickle, or a damaged one"),
    ],
)
def test_errors_of_foreign_files(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(AmesError, match=message) as error:
        load_ground_truth(tmp_path / name)
    assert name in str(error.value)


def test_errors_of_saving(tmp_path):
    truth = load_ground_truth(written(tmp_path))
    with pytest.raises(AmesError, match=r"give a name that ends in \.json"):
        save_ground_truth(tmp_path / "gnd.pkl", truth)
    truth.queries[0]["easy"] = np.array([7])
    with pytest.raises(AmesError, match="7 is outside of imlist"):
        save_ground_truth(tmp_path / "other.json", truth)
    truth.queries.pop()
    with pytest.raises(AmesError, match="2 boxes for 1 queries"):
        save_ground_truth(tmp_path / "other.json", truth)
    assert not (tmp_path / "other.json").exists()


# ---- published pickles ------------------------------------------------------------------------------


def test_a_published_pickle_is_the_json_file(tmp_path):
    raw = copy.deepcopy(RAW)
    raw["gnd"][0]["easy"] = np.array([0, 2])
    (tmp_path / "gnd.pkl").write_bytes(pickle.dumps(raw))
    found = load_ground_truth(tmp_path / "gnd.pkl", gallery_size=3, query_size=2)
    path = save_ground_truth(tmp_path / "gnd.json", found)
    assert json.loads(path.read_text(encoding="utf-8")) == RAW


def test_a_file_without_names(tmp_path):
    """As GLDv2's: `gnd` with `ok` alone."""
    path = tmp_path / "gnd_gldv2-test.pkl"
    path.write_bytes(pickle.dumps({"gnd": [{"ok": [5, 0]}, {"ok": []}]}))
    found = load_ground_truth(path)
    assert (found.imlist, found.qimlist) == ([], ["0", "1"])
    assert found.queries[0]["ok"].tolist() == [5, 0]
    again = load_ground_truth(save_ground_truth(tmp_path / "x.json", found), gallery_size=6)
    assert again.imlist == ["0", "1", "2", "3", "4", "5"]
    with pytest.raises(AmesError, match="query 0, ok: 5 is outside of imlist, which has 5 names"):
        load_ground_truth(path, gallery_size=5)
    with pytest.raises(AmesError, match="gnd has 2 queries, but there are 3"):
        load_ground_truth(path, query_size=3)
    path.write_bytes(pickle.dumps({"gnd": [{"ok": [-1]}]}))
    with pytest.raises(AmesError, match="-1 is below 0"):
        load_ground_truth(path)


def test_a_gallery_of_another_size(tmp_path):
    with pytest.raises(AmesError, match="imlist has 3 names, but the gallery 4 images"):
        load_ground_truth(written(tmp_path), gallery_size=4)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (["a.jpg", "b.PNG"], ["a", "b"]),
        (["jpg/all.souls_1.jpg", "jpg/b.jpg"], ["all.souls_1", "b"]),
        (["x/0.jpg", "y/0.jpg"], ["x/0.jpg", "y/0.jpg"]),
        (["a.jpg", "b.jpg"], ["0", "1"]),  # the ground truth names none
        ([], []),
    ],
)
def test_names_that_agree(found, wanted):
    check_names(found, wanted, source="file", truth="gnd")


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (["b.jpg", "a.jpg"], ["a", "b"]),
        (["a.jpg", "c.jpg"], ["a", "b"]),
        (["x/0.jpg", "y/0.jpg"], ["y/0.jpg", "x/0.jpg"]),
        (["a.v1.jpg", "b.jpg"], ["a", "b"]),
    ],
)
def test_names_in_another_order_or_of_others(found, wanted):
    with pytest.raises(
        AmesError, match=r"file: image \d is '.*', but '.*' in gnd: both must have the same"
    ) as error:
        check_names(found, wanted, source="file", truth="gnd")
    assert "\n" not in str(error.value)
