"""AVIF and HEIC: turned once, sizes, what is missing."""

import io
import sys

import cv2
import numpy as np
import pytest

from ames.datasets import heif
from ames.datasets.image_headers import is_image, size_of
from ames.datasets.images import UnreadableImage, decode
from helpers.image_files import turned_avif

SIZE = (40, 60)


def corner():
    """White in the upper left corner alone."""
    image = np.zeros((*SIZE, 3), np.uint8)
    image[:10, :10] = 255
    return image


def seen(image):
    """The shape, and in which corner it is white."""
    places = {"UL": (3, 3), "UR": (3, -4), "LL": (-4, 3), "LR": (-4, -4)}
    return image.shape, [name for name, place in places.items() if image[place].min() > 150]


@pytest.fixture(scope="module")
def avif():
    try:
        return cv2.imencode(".avif", corner())[1].tobytes()
    except cv2.error:
        pytest.skip("this OpenCV writes no AVIF")


@pytest.mark.parametrize(
    ("properties", "shape", "where"),
    [
        ([], (40, 60, 3), "UL"),
        ([(b"irot", 0)], (40, 60, 3), "UL"),
        ([(b"irot", 1)], (60, 40, 3), "LL"),
        ([(b"irot", 2)], (40, 60, 3), "LR"),
        ([(b"irot", 3)], (60, 40, 3), "UR"),
        ([(b"imir", 0)], (40, 60, 3), "LL"),
        ([(b"imir", 1)], (40, 60, 3), "UR"),
        ([(b"irot", 1), (b"imir", 0)], (60, 40, 3), "UL"),
        ([(b"irot", 1), (b"imir", 1)], (60, 40, 3), "LR"),
        ([(b"imir", 0), (b"irot", 1)], (60, 40, 3), "LR"),  # in their order
        ([(b"clap", (60, 2, 40, 2, -30, 2, -20, 2)), (b"irot", 3)], (30, 20, 3), "UR"),  # a quarter of it
        ([(b"clap", (61, 1, 40, 1, 0, 1, 0, 1))], (40, 60, 3), "UL"),  # not within the image
    ],
)
def test_an_avif_is_turned_as_its_boxes_say(avif, properties, shape, where):
    data = turned_avif(avif, *properties)
    assert seen(decode(data)) == (shape, [where])
    turned = any(kind == b"irot" and number % 2 for kind, number in properties)
    assert size_of(data) == (shape[1::-1] if turned else shape[:2])
    assert is_image(data[:128])


def test_an_avif_s_exif_turns_nothing(avif):
    """Readers go by the boxes, and writers that turn by EXIF leave it in the file."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    free = (len(exif) + 8).to_bytes(4, "big") + b"free" + exif
    assert seen(decode(avif + free)) == ((40, 60, 3), ["UL"])


def test_an_avif_without_its_end(avif):
    assert decode(avif + b"what follows is not looked at").shape == (40, 60, 3)
    for share in (0.2, 0.5, 0.9, 0.99):
        with pytest.raises(UnreadableImage, match="cut off"):
            decode(avif[: int(share * len(avif))])


def test_an_avif_of_too_many_pixels(avif):
    wide = avif.replace(b"ispe\0\0\0\0\0\0\0\x3c", b"ispe\0\0\0\0\0\x98\x96\x80")
    with pytest.raises(UnreadableImage, match="10000000 x 40 pixels, more than 200,000,000"):
        decode(wide)


def test_no_garbage_breaks_the_reading_of_boxes(avif):
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(avif[: int(rng.integers(32, len(avif)))])
        for _ in range(8):
            broken[int(rng.integers(32, len(broken) + 1)) - 1] = int(rng.integers(256))
        size_of(bytes(broken))
        heif.is_cut_off(bytes(broken))
        heif.upright(corner(), bytes(broken))


def test_a_heic_without_what_reads_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnreadableImage, match=r"HEIC, .* pip install 'ames-retrieval\[heif\]'"):
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))


@pytest.fixture(scope="module")
def written():
    """Writes a HEIC of an image, and of a turning in EXIF's numbers as its boxes."""
    library = pytest.importorskip("pillow_heif")

    def write(image, orientation=1, mode="BGR"):
        tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation]) + bytes(6)
        exif = b"Exif\0\0" + tiff
        file = io.BytesIO()
        heic = library.from_bytes(mode, image.shape[1::-1], image.tobytes())
        heic.save(file, quality=-1, exif=exif)
        return file.getvalue()

    return write


@pytest.mark.parametrize(
    ("orientation", "shape", "where"),
    [
        (1, (40, 60, 3), "UL"),
        (3, (40, 60, 3), "LR"),
        (4, (40, 60, 3), "LL"),
        (6, (60, 40, 3), "UR"),
        (7, (60, 40, 3), "LR"),
        (8, (60, 40, 3), "LL"),
    ],
)
def test_a_heic_is_turned_once(written, orientation, shape, where):
    data = written(corner(), orientation)
    assert seen(decode(data)) == (shape, [where])
    assert size_of(data) == SIZE
    assert is_image(data[:128])


def test_a_heic_s_pixels_are_uint8_bgr(written):
    colours = np.empty((64, 64, 3), np.uint8)
    colours[:] = (200, 90, 30)  # blue most
    found = decode(written(colours))
    assert found.dtype == np.uint8
    assert abs(found.astype(int) - colours).max() < 6
    grey = decode(written(np.full((64, 64), 90, np.uint8), mode="L"))
    assert grey.shape == (64, 64, 3)
    assert abs(grey.astype(int) - 90).max() < 4
    deep = decode(written(np.full((64, 64, 3), 90 * 257, np.uint16), mode="BGR;16"))
    assert deep.dtype == np.uint8
    assert abs(deep.astype(int) - 90).max() < 4
    clear = decode(written(np.dstack([colours, colours[..., :1]]), mode="BGRA"))
    assert clear.shape == (64, 64, 3)


def test_a_heic_keeps_the_other_promises(written):
    data = written(corner())
    for share in (0.2, 0.5, 0.9, 0.99):
        with pytest.raises(UnreadableImage, match="cut off"):
            decode(data[: int(share * len(data))])
    with pytest.raises(UnreadableImage, match="pixels, more than 2,399"):
        decode(data, max_pixels=2399)
    with pytest.raises(UnreadableImage, match="HEIC that pillow-heif cannot decode"):
        decode(data[:40] + bytes(len(data) - 40))
