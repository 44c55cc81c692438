"""Images and lists on disk, good ones and every kind of bad one."""

import cv2
import numpy as np
import pytest

from ames.data.images import (
    ListedImage,
    UnreadableImage,
    check_all_exist,
    find_images,
    read_image,
    read_labels,
    read_list,
    read_training_list,
    write_names,
)
from ames.errors import AmesError


def encoded(suffix=".jpg", size=(40, 60)):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    return cv2.imencode(suffix, image)[1].tobytes()


@pytest.mark.parametrize("name", ["a.png", "ä ö.jpg", "b.webp", "c.bmp", "d.tif"])
def test_images_are_read_whatever_their_name_and_format(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(encoded(path.suffix))
    image = read_image(path)
    assert image.shape == (40, 60, 3)
    assert image.dtype == np.uint8


def test_grey_and_transparent_images_have_three_channels(tmp_path):
    for name, channels in (("grey.png", ()), ("alpha.png", (4,))):
        pixels = np.zeros((8, 9, *channels), np.uint8)
        (tmp_path / name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        assert read_image(tmp_path / name).shape == (8, 9, 3)


def test_images_are_turned_upright(tmp_path):
    jpeg = encoded()
    # An EXIF block that says "rotated by 90 degrees" (orientation 6), put behind the start marker.
    tiff = b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + b"\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    block = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (tmp_path / "turned.jpg").write_bytes(jpeg[:2] + block + jpeg[2:])
    assert read_image(tmp_path / "turned.jpg").shape == (60, 40, 3)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty file"),
        (b"some text", "not an image"),
        (encoded()[:100], "not an image"),
        (None, "No such"),
    ],
)
def test_unreadable_images_say_why(tmp_path, content, why):
    if content is not None:
        (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage, match=why):
        read_image(tmp_path / "x.jpg")


def test_a_folder_is_no_image(tmp_path):
    (tmp_path / "x.jpg").mkdir()
    with pytest.raises(UnreadableImage, match="directory"):
        read_image(tmp_path / "x.jpg")


def test_lists(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes('\ufeffa.jpg,7,640,480\r\n\r\n  b c/d.jpg,tower\n"e, f.jpg",8\ng.jpg'.encode())
    assert read_list(path) == [
        ListedImage("a.jpg", "7"),
        ListedImage("b c/d.jpg", "tower"),
        ListedImage("e, f.jpg", "8"),
        ListedImage("g.jpg", None),
    ]


def test_names_come_back_whatever_is_in_them(tmp_path):
    names = ["a.jpg", "Paris, 2019.jpg", '"x".jpg', 'in "quotes", so.jpg', " spaces .jpg", "ç/é.jpg", "1,2,3"]
    write_names(tmp_path / "list.txt", names)
    assert [item.path for item in read_list(tmp_path / "list.txt")] == names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such list of images"),
        (b"", "the list names no image"),
        (b"\n  \n", "the list names no image"),
        (b"\xff\xfe\x00a", "not a text file"),
    ],
)
def test_lists_that_are_none(tmp_path, content, message):
    if content is not None:
        (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(AmesError, match=message) as error:
        read_list(tmp_path / "list.txt")
    assert "list.txt: " in str(error.value)
    assert "\n" not in str(error.value)


def test_equal_labels_are_equal_numbers(tmp_path):
    (tmp_path / "list.txt").write_text("a,tower\nb,7\nc,tower\nd,07\n")
    labels = read_labels(tmp_path / "list.txt")
    assert labels.dtype == np.int64
    assert labels[0] == labels[2]
    assert len(set(labels.tolist())) == 3


def test_training_needs_labels(tmp_path):
    (tmp_path / "list.txt").write_text("a,1\nb\n")
    with pytest.raises(AmesError, match=r"image 2 \(b\) has no label"):
        read_labels(tmp_path / "list.txt")


def test_find_images(tmp_path):
    for name in ("b.JPG", "a/z.png", "a/y.txt", ".hidden.jpg", ".cache/c.jpg", "a/._d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "folder.jpg" / "e.jpeg").touch()
    assert find_images(tmp_path) == ["a/z.png", "b.JPG", "folder.jpg/e.jpeg"]


def test_folders_without_images(tmp_path):
    with pytest.raises(AmesError, match="no images"):
        find_images(tmp_path)
    with pytest.raises(AmesError, match="no such folder"):
        find_images(tmp_path / "missing")


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b"two\nlines.jpg"])
def test_names_that_no_list_can_hold_are_refused(tmp_path, name):
    try:
        (tmp_path / name.decode("utf-8", "surrogateescape")).touch()
    except OSError:
        pytest.skip("this file system refuses such names itself")
    with pytest.raises(AmesError, match="is not a name that a list can hold; rename it") as error:
        find_images(tmp_path)
    assert "\n" not in str(error.value)
    str(error.value).encode()


def test_a_wrong_root_is_told_from_missing_images(tmp_path):
    (tmp_path / "a.jpg").touch()
    check_all_exist(tmp_path, ["b.jpg", "a.jpg"])
    with pytest.raises(AmesError, match=r"none of the 2 listed images is there \(first: b.jpg\)"):
        check_all_exist(tmp_path, ["b.jpg", "c.jpg"])


def test_a_path_twice_in_a_training_list_is_one_image(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text('a.jpg,3\n\n"b, c.jpg",4\na.jpg,3\n')
    found = read_training_list(path)
    assert found.labels.tolist() == [0, 1, 0]
    assert found.first.tolist() == [0, 1, 0]
    path.write_text('a.jpg,3\n\n"b, c.jpg",4\na.jpg,5\n')
    with pytest.raises(AmesError, match=r"a.jpg has the label 3 in line 1 and 5 in line 4") as error:
        read_training_list(path)
    assert "\n" not in str(error.value)
