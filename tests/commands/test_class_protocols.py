"""conf/classes: every file is read, says what the publications say, and a wrong one is one line."""

import pytest

from ames.config.classes import FOLDER, class_protocol, published_sizes, read_description
from ames.datasets.classes.readers import PUBLISHED
from ames.errors import AmesError
from ames.evaluation.class_protocol import ClassProtocol
from helpers.commands import ROOT

NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def test_every_published_set_has_its_sizes():
    assert ROOT / "conf" / "classes" == FOLDER
    sizes = {
        name: published_sizes(name) for name in NAMES if read_description(FOLDER / f"{name}.yaml").reader
    }
    assert set(sizes) == set(PUBLISHED)
    assert sizes["sop"] == {"train": (59551, 11318), "query": (60502, 11316)}
    assert sizes["inshop"] == {"train": (25882, 3997), "query": (14218, 3985), "gallery": (12612, 3985)}
    assert sizes["cub"] == {"train": (5864, 100), "query": (5924, 100)}
    assert sizes["cars196"] == {"train": (8054, 98), "query": (8131, 98)}
    assert sizes["gldv2-clean"] == {"train": (1580470, 81313)}
    assert published_sizes("folder") == {}


@pytest.mark.parametrize(
    ("name", "ks", "rules", "skip_self", "transform"),
    [
        ("cub", (1, 2, 4, 8), ("trapezoid", "at-r"), True, "crop"),
        ("cars196", (1, 2, 4, 8), ("trapezoid", "at-r"), True, "crop"),
        ("sop", (1, 10, 100, 1000), ("trapezoid", "at-r"), True, "crop"),
        ("sop-rrt", (1, 10, 100), (), True, "square"),
        ("inshop", (1, 10, 20, 30), ("at-r",), False, "crop"),
        ("own", (1, 2, 4, 8), ("trapezoid", "at-r"), True, "any"),
        ("own-gallery", (1, 2, 4, 8), ("trapezoid", "at-r"), False, "any"),
    ],
)
def test_protocols(name, ks, rules, skip_self, transform):
    assert class_protocol(name) == ClassProtocol(name, ks, rules, None, skip_self, transform)


def test_a_file_of_ones_own(tmp_path):
    text = "protocol: {recall_at: [1], average_precision: [rectangle], cutoff: 100, skip_self: false}\n"
    (tmp_path / "mine.yaml").write_text(text)
    found = class_protocol(str(tmp_path / "mine.yaml"))
    assert found == ClassProtocol("mine", (1,), ("rectangle",), 100, False, "any")


def test_unknown_names():
    with pytest.raises(AmesError, match="protocol 'sopp' does not exist; did you mean sop"):
        class_protocol("sopp")
    with pytest.raises(AmesError, match=r"gldv2-clean.yaml: describes a data set for training alone"):
        class_protocol("gldv2-clean")
    with pytest.raises(AmesError, match=r"none.yaml: cannot be read \(No such file"):
        class_protocol("none.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "the file has no keys; expected protocol, published, reader"),
        ("a: [", "not YAML"),
        ("protocoll: {}", "key of the file, 'protocoll' does not exist; did you mean protocol?"),
        ("protocol: sop", "protocol has no keys"),
        ("protocol: {cut: 5}", "key of protocol, 'cut' does not exist"),
        ("protocol: {recall_at: [0]}", r"recall_at is \(0,\): give different whole numbers"),
        ("protocol: {recall_at: 1}", "recall_at is 1: give"),
        ("protocol: {average_precision: [[at-r]]}", "average_precision is"),
        ("protocol: {skip_self: 1}", "skip_self is 1: give true or false"),
        ("{protocol: {}, reader: [sop]}", r"reader is \['sop'\]: give a kind of data set, or null"),
        ("{protocol: {}, published: {test: [1, 2]}}", "key of published, 'test' does not exist"),
        ("{protocol: {}, published: {train: [1, 2, 3]}}", r"published train is \[1, 2, 3\]: give \[IMAGES"),
        ("{protocol: {}, published: {train: [1, x]}}", r"published train is \[1, 'x'\]"),
        ("{protocol: {}, published: {train: 5}}", "published train is 5"),
        ("reader: null", "describes a data set for training alone"),
    ],
)
def test_wrong_files_are_one_line(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(AmesError, match=message) as raised:
        class_protocol(str(path))
    assert len(str(raised.value).splitlines()) == 1
    assert str(path) in str(raised.value)


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AmesError, match=r"mine.yaml: not YAML"):
        class_protocol(str(tmp_path / "mine.yaml"))
