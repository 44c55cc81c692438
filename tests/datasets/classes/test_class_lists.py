"""The library's lists of a class-labelled data set: written whole, read back, never replaced by mistake."""

import numpy as np
import pytest

from ames.datasets.classes.class_lists import read_class_list, write_class_lists
from ames.datasets.classes.class_set import ClassSet, ClassSplit
from ames.datasets.lists import read_list, read_training_list
from ames.errors import AmesError

TRAIN = ClassSplit(["a/1.jpg", "b,1.jpg", 'c"1.jpg', "d\u20281.jpg"], ["9", "x", "9", "y, z"])
TEST = ClassSplit(["e.jpg", "f.jpg", "g.jpg"], ["1", "1", "2"])
GALLERY = ClassSplit(["h.jpg", "i.jpg"], ["1", "2"])


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_lists_are_read_back(tmp_path):
    assert write_class_lists(tmp_path / "x", ClassSet(tmp_path, TRAIN, TEST))
    lists = {name: tmp_path / "x" / name for name in ("train.txt", "test_query.txt", "test_gallery.txt")}
    assert lists["test_query.txt"].read_text() == "e.jpg,1\nf.jpg,1\ng.jpg,2\n"
    assert lists["test_gallery.txt"].read_bytes() == lists["test_query.txt"].read_bytes()
    found = read_class_list(lists["train.txt"])
    assert (found.paths, found.labels) == (TRAIN.paths, TRAIN.labels)
    assert [item.path for item in read_list(lists["train.txt"])] == TRAIN.paths
    assert np.array_equal(read_training_list(lists["train.txt"]).labels, [0, 1, 0, 2])


def test_names_with_spaces_at_their_ends_are_read_back(tmp_path):
    split = ClassSplit([" a.jpg", "b.jpg"], ["1", "2 "])
    write_class_lists(tmp_path, ClassSet(tmp_path, split))
    found = read_class_list(tmp_path / "train.txt")
    assert (found.paths, found.labels) == (split.paths, split.labels)


def test_a_gallery_of_its_own_and_training_alone(tmp_path):
    write_class_lists(tmp_path / "x", ClassSet(tmp_path, None, TEST, GALLERY))
    assert sorted(content(tmp_path / "x")) == ["test_gallery.txt", "test_query.txt"]
    assert read_class_list(tmp_path / "x" / "test_gallery.txt").paths == ["h.jpg", "i.jpg"]
    write_class_lists(tmp_path / "y", ClassSet(tmp_path, TRAIN))
    assert sorted(content(tmp_path / "y")) == ["train.txt"]


def test_the_same_call_again_writes_nothing_and_completes_what_is_missing(tmp_path):
    found = ClassSet(tmp_path, TRAIN, TEST)
    write_class_lists(tmp_path, found)
    before, times = content(tmp_path), {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert not write_class_lists(tmp_path, found)
    assert not write_class_lists(tmp_path, found, overwrite=True)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times
    (tmp_path / "test_gallery.txt").unlink()
    assert write_class_lists(tmp_path, found)
    assert content(tmp_path) == before


def test_other_content_is_refused_and_nothing_is_written(tmp_path):
    write_class_lists(tmp_path, ClassSet(tmp_path, TRAIN, TEST))
    before = content(tmp_path)
    other = ClassSet(tmp_path, TRAIN, TEST, GALLERY)
    with pytest.raises(AmesError, match=r"test_gallery.txt: exists and has another content; name another"):
        write_class_lists(tmp_path, other)
    with pytest.raises(AmesError, match=r"train.txt: exists and is not one of this data set"):
        write_class_lists(tmp_path, ClassSet(tmp_path, None, TEST))
    assert content(tmp_path) == before
    assert write_class_lists(tmp_path, other, overwrite=True)
    assert read_class_list(tmp_path / "test_gallery.txt").paths == GALLERY.paths
    assert write_class_lists(tmp_path, ClassSet(tmp_path, None, TEST), overwrite=True)
    assert sorted(content(tmp_path)) == ["test_gallery.txt", "test_query.txt"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg,1\nb.jpg\n", r"image 2 \(b.jpg\) has no label; classes need path,label"),
        ("a.jpg,1\nb.jpg,1\na.jpg,2\n", r"image 3 \(a.jpg\) is image 1, too; remove one"),
        ("\n", "names no image"),
        (None, "no such list of images"),
    ],
)
def test_wrong_lists(tmp_path, text, message):
    if text is not None:
        (tmp_path / "test_query.txt").write_text(text)
    with pytest.raises(AmesError, match=message):
        read_class_list(tmp_path / "test_query.txt")
