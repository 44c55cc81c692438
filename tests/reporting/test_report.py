"""The report: what is on the page, that it stands alone, and that bad input never breaks it."""

import base64
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from ames.errors import AmesError
from ames.reporting.html import Hit, Strip, write_report
from ames.reporting.tables import format_table
from helpers.image_files import turned_avif, with_orientation

ROWS = [
    {"model": "global", "medium": 70.04, "queries": 70, "note": None},
    {"model": "AMES <binary>", "medium": np.float32(8.96), "queries": np.int64(7), "note": "x"},
    {"model": "none", "medium": float("nan"), "queries": None, "extra": 1},
]


class Page(HTMLParser):
    """Checks that elements are closed in order, and gathers their attributes and text."""

    def __init__(self, path):
        super().__init__()
        self.open, self.elements, self.words = [], [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data.strip())

    def all(self, tag, **attributes):
        return [a for t, a in self.elements if t == tag and attributes.items() <= a.items()]

    def thumbnails(self):
        data = re.findall(r"url\(data:image/jpeg;base64,([^)]*)\)", self.source)
        return [cv2.imdecode(np.frombuffer(base64.b64decode(d), np.uint8), cv2.IMREAD_COLOR) for d in data]


def picture(path, color, shape=(300, 400)):
    cv2.imwrite(str(path), np.full((*shape, 3), color, np.uint8))
    return path


@pytest.fixture
def strips(tmp_path):
    red, blue = picture(tmp_path / "red.png", (0, 0, 255)), picture(tmp_path / "blue.jpg", (255, 0, 0))
    hits = [Hit(red, "right", 0.91234, "red"), Hit(blue, "wrong", -2, "blue"), Hit(red, "junk", 0.1, "again")]
    return [Strip(blue, "query 1", [("global, AP 50.0", hits), ("AMES binary, AP 100.0", hits[::-1])])]


def test_page_shows_table_notes_and_strips(tmp_path, strips):
    path = write_report(
        tmp_path / "out" / "report.html", title="Toy", rows=ROWS, strips=strips, notes=["k = 2"]
    )
    page = Page(path)
    for text in ("Toy", "AMES <binary>", "70.0", "9.0", "k = 2", "query 1", "global, AP 50.0", "1 · 0.912"):
        assert text in page.words
    assert "2 · -2.000" in page.words
    assert page.words.count("✓") == page.words.count("junk") == 2
    assert [len(page.all("li", **{"class": label})) for label in ("right", "wrong", "junk")] == [2, 2, 2]
    assert len(page.all("div", **{"aria-label": "right: red"})) == 2
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_page_stands_alone_and_holds_each_picture_once(tmp_path, strips):
    copy = tmp_path / "copy.png"
    copy.write_bytes((tmp_path / "red.png").read_bytes())
    strips.append(Strip(copy, "the same picture in another file", []))
    page = Page(write_report(tmp_path / "report.html", title="Toy", rows=ROWS, strips=strips))
    assert [image.shape for image in page.thumbnails()] == [(90, 120, 3)] * 2
    assert not page.all("script")
    assert not page.all("link")
    assert not re.search(r"(https?:|src=|href=|@import)", page.source)


def test_arrays_are_rgb_or_grey(tmp_path):
    red = np.zeros((50, 240, 3), np.uint8)
    red[..., 0] = 255
    images = [red, red[..., 0] // 2, red.copy()]
    strips = [Strip(image, "q", [("nothing found", [])]) for image in images]
    first, second = Page(
        write_report(tmp_path / "report.html", title="", rows=[], strips=strips)
    ).thumbnails()
    assert first.shape == (25, 120, 3)
    assert first[12, 60] == pytest.approx([0, 0, 255], abs=8)
    assert second[12, 60] == pytest.approx([127] * 3, abs=8)


def test_small_and_narrow_pictures(tmp_path):
    small = picture(tmp_path / "small.png", (1, 2, 3), (20, 30))
    narrow = picture(tmp_path / "ünïcode.png", (1, 2, 3), (2000, 8))
    page = Page(
        write_report(
            tmp_path / "r.html", title="", rows=[], strips=[Strip(small, "", []), Strip(narrow, "", [])]
        )
    )
    assert [image.shape[:2] for image in page.thumbnails()] == [(20, 30), (120, 1)]


def test_pictures_are_upright(tmp_path):
    try:
        avif = cv2.imencode(".avif", np.zeros((300, 400, 3), np.uint8))[1].tobytes()
    except cv2.error:
        pytest.skip("this OpenCV writes no AVIF")
    jpeg = cv2.imencode(".jpg", np.zeros((1200, 1600, 3), np.uint8))[1].tobytes()  # read at a quarter of it
    (tmp_path / "a").write_bytes(turned_avif(avif, (b"irot", 1)))
    (tmp_path / "b").write_bytes(with_orientation(jpeg, 6))
    strips = [Strip(tmp_path / name, "q", []) for name in "ab"]
    page = Page(write_report(tmp_path / "report.html", title="", rows=[], strips=strips))
    assert [image.shape for image in page.thumbnails()] == [(120, 90, 3)]  # one, for both are the same


def test_unreadable_pictures_become_placeholders(tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    names = ("absent.jpg", "text.jpg", "empty.jpg", ".")
    hits = [Hit(tmp_path / name, "wrong", float("nan"), name) for name in names]
    queries = [
        tmp_path / "absent.jpg",
        np.zeros((4, 4)),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
    ]
    strips = [Strip(query, "q", [("r", hits)]) for query in queries]
    page = Page(write_report(tmp_path / "report.html", title="", rows=[], strips=strips))
    assert page.thumbnails() == []
    assert page.source.count("background:#999") == 1


def test_text_is_escaped(tmp_path):
    evil = "\"'><script>alert(1)</script>{title}&"
    hits = [Hit(tmp_path / "absent", "right", 1.0, evil)]
    strips = [Strip(tmp_path / "absent", evil, [(evil, hits)])]
    page = Page(
        write_report(tmp_path / "r.html", title=evil, rows=[{evil: evil}], strips=strips, notes=[evil])
    )
    assert not page.all("script")
    assert page.words.count(evil) == 8  # title, heading, table (2), note, strip, ranking, result
    assert len(page.all("li", title=evil)) == 1


def test_a_result_without_a_score_has_a_dash(tmp_path):
    """Behind those that were re-ranked, and of list-wise models."""
    red = picture(tmp_path / "red.png", (0, 0, 255))
    hits = [Hit(red, "right", 0.5, "a"), Hit(red, "wrong", float("nan"), "b")]
    page = Page(
        write_report(tmp_path / "r.html", title="T", rows=[], strips=[Strip(red, "q", [("c", hits)])])
    )
    assert [x for x in page.words if "·" in x and x[0].isdigit()] == ["1 · 0.500", "2 · –"]


def test_hit_rejects_other_labels(tmp_path):
    with pytest.raises(AmesError, match="result 'a' has label 'good': choose one of right, wrong, junk"):
        Hit(tmp_path, "good", 0.0, "a")


def test_a_report_that_cannot_be_written(tmp_path):
    with pytest.raises(AmesError, match="cannot be written"):
        write_report(tmp_path, title="", rows=[], strips=[])


def test_a_page_replaces_pages_and_nothing_else(tmp_path):
    photo, page = picture(tmp_path / "photo.png", (0, 0, 255)), tmp_path / "page.html"
    content = photo.read_bytes()
    with pytest.raises(AmesError, match=r"photo.png: exists, and is no page; give another name"):
        write_report(photo, title="T", rows=[], strips=[])
    assert photo.read_bytes() == content
    page.touch()
    for title in ("first", "second"):
        write_report(page, title=title, rows=[], strips=[])
    assert "second" in page.read_text()


def test_plain_text_table():
    assert format_table(ROWS).splitlines() == [
        "model          medium  queries  note",
        "global           70.0       70  -",
        "AMES <binary>     9.0        7  x",
        "none                -        -  -",
    ]
    assert format_table([]) == ""
    assert format_table([{"a": True, "b": "two\nlines"}]) == "a     b\nTrue  two lines"
