"""Test sets made from folders of photos."""

import cv2
import numpy as np
import pytest

from ames.datasets.photo_folder import open_collection
from ames.errors import AmesError


def photo(path, size=(8, 9)):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.zeros((*size, 3), np.uint8))[1].tobytes())


def photos(root, *names):
    for name in names:
        photo(root / name)
    return root


def test_sub_folders_are_objects(tmp_path):
    photos(tmp_path, "a/1.png", "a/deep/2.png", "b/1.png", "b/2.png", "b/3.png", "lone/1.png")
    photos(tmp_path, "top.png", "distractors/1.png", "distractors/2.png")
    collection = open_collection(tmp_path)
    names = {key: [collection.images[i] for i in found] for key, found in collection.objects.items()}
    assert names == {"a": ["a/1.png", "a/deep/2.png"], "b": ["b/1.png", "b/2.png", "b/3.png"]}
    assert len(collection.images) == 9
    assert collection.unreadable == {}


def test_leave_one_out(tmp_path):
    photos(tmp_path, "a/1.png", "a/2.png", "a/3.png", "other.png")
    truth = open_collection(tmp_path).leave_one_out()
    assert truth.imlist == ["a/1.png", "a/2.png", "a/3.png", "other.png"]
    assert truth.qimlist == ["a/1.png", "a/2.png", "a/3.png"]
    assert [query["ok"].tolist() for query in truth.queries] == [[1, 2], [0, 2], [0, 1]]
    assert [query["junk"].tolist() for query in truth.queries] == [[0], [1], [2]]


def test_the_folder_of_distractors_has_a_name(tmp_path):
    photos(tmp_path, "a/1.png", "a/2.png", "rest/1.png", "rest/2.png")
    assert set(open_collection(tmp_path).objects) == {"a", "rest"}
    assert set(open_collection(tmp_path, distractors="rest").objects) == {"a"}


def test_unreadable_images_are_named_and_left_out(tmp_path):
    photos(tmp_path, "a/1.png", "a/2.png")
    (tmp_path / "a" / "0.jpg").write_text("text")
    (tmp_path / "b.jpg").touch()
    collection = open_collection(tmp_path)
    assert collection.images == ["a/1.png", "a/2.png"]
    assert collection.objects == {"a": [0, 1]}
    assert collection.unreadable == {"a/0.jpg": "not an image that OpenCV can decode", "b.jpg": "empty file"}


def test_what_is_no_image_is_named(tmp_path):
    photos(tmp_path, "a/1.png", "a/2.png")
    (tmp_path / "a" / "2.png").rename(tmp_path / "a" / "2.JFIF")
    (tmp_path / "a" / "x.mov").touch()
    collection = open_collection(tmp_path)
    assert collection.images == ["a/1.png", "a/2.JFIF"]
    assert collection.notes == ["1 file is not a readable image and was left out: a/x.mov"]


def test_no_readable_image(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(AmesError, match=r"none of the 1 images can be read \(first: a.jpg: empty file\)"):
        open_collection(tmp_path)


@pytest.mark.parametrize("names", [["a.png", "b.png"], ["a/1.png", "b/1.png"], ["distractors/1.png"] * 2])
def test_no_object_with_two_images(tmp_path, names):
    photos(tmp_path, *names)
    with pytest.raises(AmesError, match="no sub-folder with two or more readable images; expected one"):
        open_collection(tmp_path)
