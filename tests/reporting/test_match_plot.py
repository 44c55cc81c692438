"""Pictures of matches: where heat and lines lie, their colours, sizes; what is refused."""

import numpy as np
import pytest

from ames.datasets.images import read_image
from ames.errors import AmesError
from ames.reporting.match_plot import Side, draw_match, write_picture

LEFT, TOP = 20, 20  # of the first photo in the picture


def side(shares, size=(300, 400), **options):
    """A grey photo with descriptors in a row from left to right, in the middle of its height."""
    count = len(shares)
    positions = np.array([[0.5, (i + 0.5) / count] for i in range(count)], np.float32)
    pixels = np.full((*size, 3), 120, np.uint8)
    return Side(pixels, positions, np.float32(shares), "näme.jpg", **options)


def places(picture, count):
    """(row, col) in the picture of the descriptors of either photo, both of the same shape."""
    width = (picture.shape[1] - 3 * LEFT) // 2
    row = TOP + round(width * 3 / 4 / 2)
    columns = [round((i + 0.5) / count * width) for i in range(count)]
    return [[(row, left + x) for x in columns] for left in (LEFT, picture.shape[1] - LEFT - width)]


def draw(a, b, links=(), weights=(), caption="score 1"):
    pairs = np.array(links, np.int64).reshape(-1, 2)
    return draw_match(a, b, pairs, np.float32(weights), caption)


def test_heat_is_vermilion_where_shares_raise_the_score_and_blue_where_they_lower_it():
    picture = draw(side([1.0, -1.0, 0.0]), side([0.25, 0.0, 0.0]))
    (raises, lowers, nothing), (weak, *_) = places(picture, 3)
    blue, _, red = picture[raises].astype(int)
    assert red > blue + 100
    blue, _, red = picture[lowers].astype(int)
    assert blue > red + 70
    assert np.ptp(picture[nothing]) == 0  # grey
    blue, _, red = picture[weak].astype(int)  # one scale for both photos
    assert 20 < red - blue < 100


def test_a_line_joins_its_places_the_fainter_the_weaker():
    nothing = side([0.0, 0.0, 0.0])
    bare = draw(nothing, nothing).astype(int)
    for weight, least, most in ((1.0, 60, 255), (0.1, 5, 40)):
        picture = draw(nothing, nothing, [[0, 2]], [weight]).astype(int)
        first, last = places(picture, 3)[0][0], places(picture, 3)[1][2]
        middle = first[0], (first[1] + last[1]) // 4
        for place in (first, middle, last):
            assert least < np.abs(picture[place] - bare[place]).max() <= most
            blue, green, red = picture[place]
            assert min(red, green) > blue
        assert (picture[places(picture, 3)[0][1]] != bare[places(picture, 3)[0][1]]).any()  # on its way
        changed = np.argwhere((picture != bare).any(-1))
        assert np.ptp(changed[:, 0]) < 15  # nothing else is


@pytest.mark.parametrize(
    ("sizes", "width"),
    [
        (((300, 400), (300, 400)), 1600),
        (((30, 40), (600, 200)), 1600),
        (((1000, 200), (900, 180)), 800),  # tall: as wide as the texts need
        (((20, 900), (20, 900)), 1600),
        (((1, 1), (1, 5000)), 1600),
    ],
)
def test_photos_of_any_shape(sizes, width):
    a, b = side([0.5], sizes[0]), side([0.0], sizes[1], box=(-5, 3, 9000, 90))
    picture = draw(a, b, [[0, 0]], [1.0], caption="a long caption, " * 30)
    assert picture.dtype == np.uint8
    assert width - 20 <= picture.shape[1] <= width
    assert picture.shape[0] < 1200


def test_nothing_to_show_is_no_error():
    empty = Side(np.zeros((20, 30, 3), np.uint8), np.zeros((0, 2)), np.zeros(0), "")
    assert draw(empty, empty).any()


def test_the_box_is_drawn():
    picture = draw(side([0.0]), side([0.0], box=(100, 100, 300, 200)))
    scale = (picture.shape[1] - 60) / 2 / 400
    left = picture.shape[1] - LEFT - round(400 * scale)
    assert (picture[TOP + round(150 * scale), left + round(100 * scale)] > 200).all()


def test_written_whole_or_not_at_all(tmp_path):
    picture = draw(side([1.0]), side([1.0]))
    assert write_picture(tmp_path / "new" / "match.PNG", picture) == tmp_path / "new" / "match.PNG"
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "match.PNG"), picture)
    for name, message in (("match.gif", "end with .png"), ("match", "end with"), ("folder.png", "cannot be")):
        (tmp_path / "folder.png").mkdir(exist_ok=True)
        with pytest.raises(AmesError, match=message):
            write_picture(tmp_path / name, picture)
    assert sorted(x.name for x in tmp_path.iterdir()) == ["folder.png", "new"]
