"""Lists of GLDv2 as lists of images: nested paths, landmarks as labels, and what is wrong with a line."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ames.cli.main import main
from ames.datasets.lists import ListedImage, check_all_exist, read_list, read_sizes, read_training_list
from ames.descriptors.local import DescriptorFile
from ames.errors import AmesError
from ames.inspection.inspect import inspect

A, B, C = "0123456789abcdef", "fedcba9876543210", "00ffffffffffffff"
NESTED = [f"{x[0]}/{x[1]}/{x[2]}/{x}.jpg" for x in (A, B, C)]
TRAIN = f'id,url,landmark_id\n{A},http://x/a.jpg,7\n{B},"http://x/b,c.jpg",9\n{C},http://x/d,e.jpg,7\n'


def written(path, text):
    path.write_text(text)
    return path


def test_the_training_list(tmp_path):
    path = written(tmp_path / "train.csv", TRAIN)
    assert read_list(path) == [ListedImage(*x) for x in zip(NESTED, "797", strict=True)]
    assert read_training_list(path).labels.tolist() == [0, 1, 0]
    found = inspect(path)
    assert (found["kind"], found["images"], found["labels"]) == ("list of images", 3, 2)
    assert found["first"] == NESTED[0]


def test_lists_without_labels(tmp_path):
    index = written(tmp_path / "index.csv", f"id\n{A}\n{B}\n")
    assert read_list(index) == [ListedImage(x, None) for x in NESTED[:2]]
    solution = written(tmp_path / "s.csv", f"id,images,Usage\n{A},{B} {C},Public\n{B},None,Ignored\n")
    assert read_list(solution) == [ListedImage(x, None) for x in NESTED[:2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id\nabc\n", "line 2: expected id, with an id of 16 hexadecimal digits"),
        (f"id,url,landmark_id\n{A},x\n", "line 2: expected id,url,landmark_id, with"),
        (f"id\n{A}/../../etc\n", "line 2: expected id"),
        ("id\n", "the list names no image"),
    ],
)
def test_wrong_lines(tmp_path, text, message):
    with pytest.raises(AmesError, match=f"x.csv: {message}"):
        read_list(written(tmp_path / "x.csv", text))


def test_an_image_may_be_called_so(tmp_path):
    assert read_list(written(tmp_path / "x.txt", "id.jpg,1\nother.jpg,2\n"))[0].path == "id.jpg"


def test_the_folder_that_holds_the_images(tmp_path):
    place = tmp_path / "train" / NESTED[0]
    place.parent.mkdir(parents=True)
    place.write_bytes(b"")
    with pytest.raises(
        AmesError, match=rf"none of the 3 .* it lies in {tmp_path / 'train'}: give that folder"
    ):
        check_all_exist(tmp_path, NESTED)
    check_all_exist(tmp_path / "train", NESTED)


def test_sizes(tmp_path):
    path = written(tmp_path / "x.txt", "a.jpg,1,640,480\nb.jpg,2\nc.jpg,3,0,5\n")
    assert read_sizes(path) == {"a.jpg": (640, 480)}


def test_extraction_of_a_list_with_images_missing(tmp_path, capsys):
    path = written(tmp_path / "index.csv", f"id\n{A}\n{B}\n")
    photo = tmp_path / "index" / NESTED[0]
    photo.parent.mkdir(parents=True)
    cv2.imwrite(str(photo), np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    words = ["--images", str(tmp_path / "index"), "--list", str(path), "-o", str(tmp_path / "out")]
    assert main(["extract", *words, "--backbone", "rootsift", "--global", "none", "--workers", "0"]) == 0
    said = capsys.readouterr().out
    assert f"1 of 2 images extracted to {tmp_path / 'out'}_local.hdf5" in said
    assert f"1 unreadable, skipped: {NESTED[1]} (No such file or directory)" in said
    file = DescriptorFile(Path(f"{tmp_path / 'out'}_local.hdf5"))
    assert file.names == NESTED[:2]
    assert file.read([0, 1]).counts[1] == 0
