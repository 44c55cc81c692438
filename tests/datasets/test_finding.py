"""Which files of a folder are images, and what is said of the others."""

import os

import cv2
import numpy as np
import pytest

from ames.datasets.finding import find_images, is_image_file
from ames.datasets.images import UnreadableImage, decode
from ames.errors import AmesError
from helpers.image_files import tiff


def written(suffix):
    image = np.full((40, 60) if suffix == ".pgm" else (40, 60, 3), 90, np.uint8)
    return cv2.imencode(suffix, image)[1].tobytes()


FORMATS = [".jpg", ".png", ".webp", ".bmp", ".tif", ".gif", ".avif", ".jp2", ".ppm", ".pgm", ".pam", ".ras"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_image_is_one_whatever_its_name(tmp_path, suffix):
    try:
        content = written(suffix)
    except cv2.error:
        pytest.skip("this OpenCV does not write the format")
    names = ["no ending", "x.JFIF", "x.dat", f"x{suffix.upper()}"]
    for name in names:
        (tmp_path / name).write_bytes(content)
    assert find_images(tmp_path) == (sorted(names), [])
    assert decode(content).shape == (40, 60, 3)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"BM is how this text begins, and it goes on for a while",
        b"P5 is how this text begins",
        b"PF\n2 2\n-1\n" + bytes(48),  # floating-point pixels
        b"%PDF-1.7",
        b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(50),  # a film
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(50),  # a camera's raw file
        b"\xff\x0a\xfa\x1f",  # JPEG XL
        tiff({254: 1, 256: 4, 257: 4, 330: 99}),  # a camera's raw file, a preview first
        tiff({254: 0, 256: 4, 257: 4, 50706: 1}),
    ],
)
def test_what_is_none(tmp_path, content):
    (tmp_path / "x.dat").write_bytes(content)
    assert not is_image_file(tmp_path / "x.dat")
    with pytest.raises(UnreadableImage):
        decode(content)


def test_a_raw_file_is_no_image_of_the_size_of_its_preview():
    for tags in ({254: 1}, {50706: 1}):
        with pytest.raises(UnreadableImage, match="a camera's raw file, or another TIFF"):
            decode(tiff({256: 4, 257: 4, **tags}))


def test_pixels_without_a_known_white_are_not_black():
    pixels = cv2.imencode(".pfm", np.full((4, 5, 3), 0.5, np.float32))[1].tobytes()
    with pytest.raises(UnreadableImage, match="numbers of no known range"):
        decode(pixels)


def test_what_is_left_out_is_named_and_counted(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("x.jpg", "a/y.jpg", ".hidden.pdf", "Thumbs.db", "a/desktop.ini"):
        (tmp_path / name).write_bytes(written(".jpg"))
    assert find_images(tmp_path).notes() == []
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    assert find_images(tmp_path).notes() == ["1 file is not a readable image and was left out: notes.pdf"]
    (tmp_path / "a" / "x.mov").touch()
    found = find_images(tmp_path)
    assert found.names == ["a/y.jpg", "x.jpg"]
    assert found.notes() == ["2 files are not readable images and were left out: a/x.mov, notes.pdf"]


def test_many_are_counted_by_their_endings(tmp_path):
    (tmp_path / "x.jpg").touch()
    for number in range(1200):
        (tmp_path / f"{number:04}.JSON").touch()
    for name in ("readme", "b.mov", "c.mov", "d.txt", "e.aae", "f.pdf", "g.xmp"):
        (tmp_path / name).touch()
    (note,) = find_images(tmp_path).notes()
    counts, first = note.removeprefix("1,207 files are not readable images and were left out: ").split(
        "; first: "
    )
    assert counts.startswith("1,200 .json, 2 .mov, 1 ")
    assert counts.endswith(", 2 others")
    assert first == "0000.JSON, 0001.JSON, 0002.JSON, 0003.JSON, 0004.JSON, ..."


def test_odd_names_are_one_line(tmp_path):
    (tmp_path / "x.jpg").touch()
    (tmp_path / "two\nlines.pdf").touch()
    (note,) = find_images(tmp_path).notes()
    assert note.endswith(r"left out: 'two\nlines.pdf'")


def test_links(tmp_path):
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "a" / "x.jpg").touch()
    (tmp_path / "images" / "linked.jpg").symlink_to(tmp_path / "images" / "a" / "x.jpg")
    (tmp_path / "images" / "round").symlink_to(tmp_path / "images")
    (tmp_path / "images" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    found = find_images(tmp_path / "images")
    assert found.names == ["a/x.jpg", "linked.jpg"]
    assert found.notes() == [
        "1 file is not a readable image and was left out: gone.jpg",
        "1 folder was not looked into, a link or not readable: round/",
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    (tmp_path / "x.jpg").touch()
    os.mkfifo(tmp_path / "y.jpg")
    assert find_images(tmp_path) == (["x.jpg"], ["y.jpg"])


def test_without_an_image_the_error_says_what_there_is(tmp_path):
    (tmp_path / "notes.pdf").touch()
    with pytest.raises(
        AmesError, match=r"no images in it or below; 1 file is not a readable image .*: notes.pdf"
    ):
        find_images(tmp_path)
