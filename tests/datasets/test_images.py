"""Images and lists on disk, good ones and every kind of bad one."""

import time

import cv2
import numpy as np
import pytest

from ames.datasets.finding import find_images
from ames.datasets.image_headers import is_cut_off, size_of
from ames.datasets.images import UnreadableImage, read_image
from ames.datasets.lists import (
    ListedImage,
    check_all_exist,
    read_list,
    read_training_list,
    write_names,
)
from ames.errors import AmesError
from helpers.image_files import cmyk_jpeg, with_orientation


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
    for orientation, shape in ((1, (40, 60, 3)), (3, (40, 60, 3)), (6, (60, 40, 3)), (8, (60, 40, 3))):
        (tmp_path / "turned.jpg").write_bytes(with_orientation(encoded(), orientation))
        assert read_image(tmp_path / "turned.jpg").shape == shape


def test_what_is_seen_of_a_turned_image(tmp_path):
    image = np.zeros((40, 60, 3), np.uint8)
    image[:8, :8] = 255  # upper left; "rotate by 90 degrees clockwise" brings it to the upper right
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    (tmp_path / "turned.jpg").write_bytes(with_orientation(jpeg, 6))
    found = read_image(tmp_path / "turned.jpg")
    assert found[4, -4].min() > 200
    assert found[4, 4].max() < 50


def test_printers_colours(tmp_path):
    (tmp_path / "x.jpg").write_bytes(cmyk_jpeg(255, 0, 0, 0))
    found = read_image(tmp_path / "x.jpg")
    assert found.shape == (16, 16, 3)
    blue, green, red = found.reshape(-1, 3).mean(0)
    assert red < 60
    assert min(blue, green) > 150
    (tmp_path / "x.jpg").write_bytes(cmyk_jpeg(0, 0, 0, 255))
    assert read_image(tmp_path / "x.jpg").max() < 60
    (tmp_path / "x.jpg").write_bytes(cmyk_jpeg(0, 0, 0, 0))
    assert read_image(tmp_path / "x.jpg").min() > 230


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_sixteen_bits_become_eight(tmp_path, suffix, channels):
    image = np.random.default_rng(0).integers(0, 255, (20, 30, *channels), dtype=np.uint8)
    deep = image.astype(np.uint16) * 257
    (tmp_path / f"x{suffix}").write_bytes(cv2.imencode(suffix, deep)[1].tobytes())
    found = read_image(tmp_path / f"x{suffix}")
    assert found.dtype == np.uint8
    expected = image if channels else np.repeat(image[..., None], 3, -1)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_of_an_animation_the_first_frame(tmp_path, suffix):
    if not hasattr(cv2, "imencodeanimation"):
        pytest.skip("this OpenCV writes no animations")
    first = np.full((30, 40, 4), 255, np.uint8)
    first[:, :20, :3] = 0
    animation = cv2.Animation()
    animation.frames = [first, np.dstack([255 - first[..., :3], first[..., 3]])]
    animation.durations = np.array([100, 100])
    data = cv2.imencodeanimation(suffix, animation)[1].tobytes()
    (tmp_path / f"x{suffix}").write_bytes(data)
    found = read_image(tmp_path / f"x{suffix}")
    assert found.shape == (30, 40, 3)
    assert found[:, :18].max() < 60
    assert found[:, 22:].min() > 200
    assert size_of(data) == (30, 40)


@pytest.mark.parametrize("shape", [(1, 1), (2, 20_000), (20_000, 2)])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_images_of_unusual_sizes(tmp_path, shape, suffix):
    image = np.full((*shape, 3), 77, np.uint8)
    (tmp_path / f"x{suffix}").write_bytes(cv2.imencode(suffix, image)[1].tobytes())
    assert read_image(tmp_path / f"x{suffix}").shape == image.shape


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".jpg", []),
        (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        (".jpg", [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]),
        (".png", []),
        (".webp", []),
        (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),  # without loss: another kind of header
        (".bmp", []),
        (".tif", []),
        (".gif", []),
    ],
)
def test_a_file_without_its_end_is_never_half_an_image(tmp_path, suffix, options):
    image = cv2.resize(np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8), (160, 120))
    data = cv2.imencode(suffix, image, options)[1].tobytes()
    if cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is None:
        pytest.skip("this OpenCV does not read the format")
    assert size_of(data) == (120, 160)
    assert not is_cut_off(data)
    (tmp_path / "x").write_bytes(data + b"what follows is not looked at")
    assert read_image(tmp_path / "x").shape == (120, 160, 3)
    for share in (0.2, 0.5, 0.9, 0.99):
        (tmp_path / "x").write_bytes(data[: int(share * len(data))])
        with pytest.raises(
            UnreadableImage, match="cut off" if suffix in (".jpg", ".png", ".webp") else "not an image"
        ):
            read_image(tmp_path / "x")


def test_a_thumbnail_s_end_is_not_the_image_s(tmp_path):
    jpeg, thumbnail = encoded(), encoded(size=(8, 8))
    block = b"\xff\xe1" + (len(thumbnail) + 8).to_bytes(2, "big") + b"Exif\0\0" + thumbnail
    whole = jpeg[:2] + block + jpeg[2:]
    assert size_of(whole) == (40, 60)
    assert not is_cut_off(whole)
    assert is_cut_off(whole[:-200])


def test_a_bound_on_pixels(tmp_path):
    """Read off the header: nothing is decoded, so that a small file cannot fill the memory."""
    header = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + b"IHDR" + (60_000).to_bytes(4, "big") * 2
    (tmp_path / "bomb.png").write_bytes(header + b"\x08\x02\0\0\0")
    with pytest.raises(UnreadableImage, match="60000 x 60000 pixels, more than 200,000,000"):
        read_image(tmp_path / "bomb.png")
    (tmp_path / "x.jpg").write_bytes(encoded())
    assert read_image(tmp_path / "x.jpg", max_pixels=2400).shape == (40, 60, 3)
    with pytest.raises(UnreadableImage, match="60 x 40 pixels, more than 2,399"):
        read_image(tmp_path / "x.jpg", max_pixels=2399)


def test_the_bound_holds_for_formats_whose_header_is_not_known(tmp_path):
    content = b"P6 60 40 255\n" + bytes(60 * 40 * 3)
    assert size_of(content) is None
    (tmp_path / "x.jpg").write_bytes(content)
    assert read_image(tmp_path / "x.jpg", max_pixels=2400).shape == (40, 60, 3)
    with pytest.raises(UnreadableImage, match="60 x 40 pixels, more than 2,399"):
        read_image(tmp_path / "x.jpg", max_pixels=2399)


@pytest.mark.parametrize("filling", [b"\0", b"\xff", b"\xff\xd0", b"\xff\x01"])
def test_what_lies_between_a_jpegs_markers_is_passed_over_at_once(filling):
    jpeg = encoded()
    filled = jpeg[:20] + filling * 4_000_000 + jpeg[20:]  # behind the first segment
    start = time.process_time()
    assert size_of(filled) == (40, 60)
    assert not is_cut_off(filled)
    assert is_cut_off(filled[:-200])
    assert time.process_time() - start < 1  # byte by byte it takes several


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif", ".gif"])
def test_no_garbage_breaks_the_reading_of_headers(suffix):
    rng = np.random.default_rng(0)
    data = encoded(suffix)
    for _ in range(200):
        broken = bytearray(data[: int(rng.integers(4, len(data)))])
        for _ in range(5):
            broken[int(rng.integers(4, max(len(broken), 5)) % len(broken))] = int(rng.integers(256))
        size_of(bytes(broken))
        is_cut_off(bytes(broken))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty file"),
        (b"some text", "not an image"),
        (encoded()[:100], "cut off"),
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
    names += ["a\u2028b.jpg", "a\x0cb.jpg", "a\x85b.jpg"]  # no ends of lines, though splitlines says so
    write_names(tmp_path / "list.txt", names)
    assert [item.path for item in read_list(tmp_path / "list.txt")] == names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such list of images"),
        (b"", "the list names no image"),
        (b"\n  \n", "the list names no image"),
        (b"\xff\xfe\x00a", "not a text file"),
        ("a.jpg\nb.jpg\n".encode("utf-16-le"), "not a text file .zero bytes in it"),
        (b'a.jpg\n"b.jpg\nc.jpg\n\nd.jpg\n', "line 2: a double quote that is not closed"),
        (b'a.jpg\n"b.jpg\nc.jpg\n"d".jpg\n', "line 2: a double quote that is not closed"),
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
    labels = read_training_list(tmp_path / "list.txt").labels
    assert labels.dtype == np.int64
    assert labels[0] == labels[2]
    assert len(set(labels.tolist())) == 3


def test_training_needs_labels(tmp_path):
    (tmp_path / "list.txt").write_text("a,1\nb\n")
    with pytest.raises(AmesError, match=r"image 2 \(b\) has no label"):
        read_training_list(tmp_path / "list.txt")


def test_find_images(tmp_path):
    for name in ("b.JPG", "a/z.png", "a/y.txt", ".hidden.jpg", ".cache/c.jpg", "a/._d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "folder.jpg" / "e.jpeg").touch()
    assert find_images(tmp_path).names == ["a/z.png", "b.JPG", "folder.jpg/e.jpeg"]


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
    with pytest.raises(AmesError, match=r"none of the 2 listed images exists \(first: b.jpg\)"):
        check_all_exist(tmp_path, ["b.jpg", "c.jpg"])
    with pytest.raises(AmesError, match="none of the 1 listed images exists"):
        check_all_exist(tmp_path, [5000 * "x"])  # a name that the system refuses


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
