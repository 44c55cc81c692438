"""Sizes of images: as ``read_image`` has them, from lists and from files."""

import cv2
import numpy as np
import pytest

from ames.datasets.image_sizes import file_sizes, listed_sizes, upright_size
from ames.datasets.images import UnreadableImage, read_image
from ames.errors import AmesError
from helpers.image_files import with_orientation


def encoded(suffix=".jpg"):
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    return cv2.imencode(suffix, image)[1].tobytes()


@pytest.mark.parametrize("orientation", range(10))
def test_a_jpeg_is_as_large_as_it_is_read(tmp_path, orientation):
    path = tmp_path / "x.jpg"
    path.write_bytes(with_orientation(encoded(), orientation))
    assert upright_size(path) == read_image(path).shape[:2]
    assert upright_size(path) == ((60, 40) if 5 <= orientation <= 8 else (40, 60))


def test_of_a_jpeg_the_headers_suffice(tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(with_orientation(encoded(), 6)[:800])
    assert upright_size(path) == (60, 40)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".tif"])
def test_other_formats(tmp_path, suffix):
    (tmp_path / "x").write_bytes(encoded(suffix))
    assert upright_size(tmp_path / "x") == (40, 60)


@pytest.mark.parametrize("exif", [b"", b"II*\0", b"II*\0\x08\0\0\0\xff\xff", b"no TIFF at all, none"])
def test_a_damaged_exif_turns_nothing(tmp_path, exif):
    content = b"Exif\0\0" + exif
    segment = b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content
    path = tmp_path / "x.jpg"
    path.write_bytes(encoded()[:2] + segment + encoded()[2:])
    assert upright_size(path) == (40, 60)


def test_what_is_no_image_has_no_size(tmp_path):
    (tmp_path / "text.jpg").write_bytes(b"this is text")
    for name in ("text.jpg", "missing.jpg", "with\0zero.jpg"):
        with pytest.raises(UnreadableImage):
            upright_size(tmp_path / name)


def test_sizes_of_files(tmp_path):
    (tmp_path / "a.jpg").write_bytes(with_orientation(encoded(), 8))
    (tmp_path / "b.png").write_bytes(encoded(".png"))
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    found = file_sizes(tmp_path, ["b.png", "a.jpg", "bad.jpg"])
    assert found.tolist() == [[40, 60], [60, 40], [1, 1]]
    assert found.dtype == np.float32
    assert file_sizes(tmp_path, ["a.jpg", "missing.jpg"]) is None


def test_sizes_of_a_list(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text('a.jpg,1,1024,768\n\n"b, c.jpg",,740,1024')
    assert listed_sizes(path).tolist() == [[768, 1024], [1024, 740]]
    path.write_text("a.jpg,1\nb.jpg,2\n")
    assert listed_sizes(path) is None


@pytest.mark.parametrize(
    "line", ["b.jpg,1", "b.jpg,1,640", "b.jpg,1,640,x", "b.jpg,1,0,480", "b.jpg,1,nan,9"]
)
def test_a_list_has_all_sizes_or_none(tmp_path, line):
    path = tmp_path / "list.txt"
    path.write_text(f"a.jpg,1,1024,768\n{line}\n")
    with pytest.raises(
        AmesError, match=r"list.txt: line 2: no width and height; give path,label,width,height"
    ):
        listed_sizes(path)
