"""conf/benchmark: every file is read, says what the publications say, and a wrong one is one line."""

import pytest
from omegaconf import OmegaConf

from ames.config.benchmarks import FOLDER, benchmark, benchmark_names
from ames.config.classes import class_protocol, published_sizes
from ames.config.evaluation import protocols
from ames.datasets.benchmarks.readers import READERS
from ames.errors import AmesError
from ames.evaluation.protocols import EASY, GLDV2, HARD, MEDIUM, Protocol
from helpers.commands import ROOT

NAMES = [
    *(
        "cars196",
        "cub",
        "gldv2-test",
        "ilias",
        "inshop",
        "instre",
        "instre-s1",
        "instre-s2",
        "met",
        "met-val",
    ),
    *("mini-ilias", "msls-val", "pitts250k", "pitts30k", "product1m", "roxford5k", "roxford5k+1m", "rp2k"),
    *("rparis6k", "rparis6k+1m", "sop", "sop-1k", "tokyo247", "vpr"),
]


def test_the_benchmarks():
    assert ROOT / "conf" / "benchmark" == FOLDER
    assert benchmark_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_file_says_what_it_must(name):
    found = benchmark(name)
    assert found.name == name
    assert found.title
    assert found.source
    assert set(found.files) <= READERS[found.reader].files
    assert READERS[found.reader].files - READERS[found.reader].optional <= set(found.files)
    assert found.protocol().name == found.primary_protocol
    assert {protocol.duplicates for protocol in found.protocols} == {"refuse"}
    unknown = found.queries is None or found.gallery is None
    assert not unknown or found.unsure or name == "vpr"  # a missing number is explained


def test_the_published_rules():
    for name in ("roxford5k", "rparis6k", "roxford5k+1m", "rparis6k+1m"):
        rules = [(p.name, p.positives, p.junk, p.cutoff, p.ap) for p in benchmark(name).protocols]
        assert rules == [(p.name, p.positives, p.junk, p.cutoff, p.ap) for p in (EASY, MEDIUM, HARD)]
        assert benchmark(name).query_box == "crop"
    assert benchmark("gldv2-test").protocols == GLDV2
    top100 = Protocol("top100", ("ok",), (), 100, "rectangle", recall_at=(1, 10, 100))
    assert benchmark("instre").protocol() == benchmark("product1m").protocol() == top100
    assert benchmark("met").protocols[0].recall_at == (1, 5, 10)
    for name in ("sop-1k", "rp2k"):
        assert benchmark(name).skip_self
        assert benchmark(name).protocol().junk == ("junk",)
    for name in ("vpr", "pitts30k", "pitts250k", "tokyo247", "msls-val"):
        rule = benchmark(name).protocol()
        assert (rule.recall_at, rule.empty_recall) == ((1, 5, 10, 20), "miss")
    assert [p.cutoff for p in benchmark("ilias").protocols] == [1000, 100]


@pytest.mark.parametrize("name", ["sop", "inshop", "cub", "cars196"])
def test_rules_of_classes_are_said_once(name):
    found, rule, sizes = benchmark(name), class_protocol(name), published_sizes(name)
    assert found.skip_self == rule.skip_self
    assert found.transform == rule.transform
    assert found.queries == sizes["query"][0]
    assert found.gallery == sizes["query" if rule.skip_self else "gallery"][0]
    assert [(p.ap, p.recall_at) for p in found.protocols] == [
        (name, rule.recall_at) for name in rule.average_precision
    ]


def test_sizes():
    sizes = {name: (benchmark(name).queries, benchmark(name).gallery) for name in NAMES}
    assert sizes["roxford5k"] == (70, 4993)
    assert sizes["rparis6k"] == (70, 6322)
    assert sizes["gldv2-test"] == (1129, 761757)
    assert sizes["instre"] == (1250, 27293)
    notes = benchmark("roxford5k").size_notes(70, 4000)
    assert notes == [
        "gallery: 4,000 images were read, 4,993 are published: this is a subset, or another version"
    ]
    assert benchmark("vpr").size_notes(1, 1) == []


def test_a_file_of_ones_own(tmp_path):
    text = (FOLDER / "vpr.yaml").read_text().replace("[1, 5, 10, 20]", "[1, 2]")
    (tmp_path / "mine.yaml").write_text(text)
    assert benchmark(str(tmp_path / "mine.yaml")).protocol().recall_at == (1, 2)
    with pytest.raises(AmesError, match="benchmark 'roxford' does not exist; did you mean roxford5k"):
        benchmark("roxford")


START = "title: t\nsource: s\nprimary: {protocol: a, figure: mAP}\n"
RULE = "reader: folder\nprotocols: [{name: a, positives: [ok]}]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "the file has no keys; expected classes, duplicates"),
        (START + RULE + "titel: x", "key of the file, 'titel' does not exist; did you mean title?"),
        (RULE, "source is None: give a text"),
        ("title: t\nsource: s\n" + RULE, "primary has no keys; expected figure, protocol"),
        (START + RULE.replace("folder", "folders"), "reader 'folders' does not exist; did you mean folder?"),
        (START + RULE + "files: {truth: x}", "key of files, 'truth' does not exist"),
        (START + RULE + "files: {folder: 5}", "files: folder is 5: give the name of a file"),
        (START + RULE + "skip_self: 1", "skip_self is 1: give true or false"),
        (START + RULE + "skip_self: true", "skip_self: protocol 'a' has no 'junk' in its junk"),
        (
            START + RULE + "published: {queries: 0}",
            "published queries is 0: give a number of images, or null",
        ),
        (
            START + RULE + "published: {query: 1}",
            "key of published, 'query' does not exist; did you mean queries",
        ),
        (START + RULE + "unsure: all", "unsure is 'all': give a list of sentences"),
        (START + RULE + "recall_at: [2, 1]", r"recall_at \(2, 1\): give different whole numbers"),
        (START + RULE + "recall_at: 1", "recall_at 1: give different"),
        (START + RULE + "empty: zero", "empty 'zero': give skip or miss"),
        (START + RULE + "query_box: cut", "query_box 'cut' is none of none, crop"),
        (START + RULE + "recognition: {neighbours: 1}", "give neighbours and temperatures, as lists"),
        (START + RULE + "recognition: {neighbours: [0], temperatures: [1]}", "neighbours that vote are 0"),
        (START + RULE + "recognition: {neighbour: [1]}", "key of recognition, 'neighbour' does not exist"),
        (START + "reader: folder\nprotocols: []", r"protocols is \[\]: give a list of names"),
        (START + "reader: folder\nprotocols: [b]", "protocol 'b': give a name and positives"),
        (
            START + "reader: folder\nprotocols: [{positives: [ok]}]",
            "protocol None: give a name and positives",
        ),
        (
            START + "reader: folder\nprotocols: [{name: a, positive: [ok]}]",
            "key of a protocol, 'positive' does",
        ),
        (START + "reader: folder\nprotocols: [easy]", "primary protocol 'a' is none of easy"),
        (START + "reader: folder\nprotocols: [easy, easy]", "two protocols have one name"),
        (START + RULE.replace("[ok]", "[ok], cutoff: 5"), "primary figure 'mAP' is none of mAP@5"),
        (
            START + "classes: sop\nskip_self: true",
            "skip_self beside classes: the rule is that of conf/classes",
        ),
        (START + "classes: [sop]", r"classes is \['sop'\]: give the name of a file of conf/classes"),
        (START + "classes: sopp", "protocol 'sopp' does not exist; did you mean sop"),
    ],
)
def test_wrong_files_are_one_line(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(AmesError, match=message) as raised:
        benchmark(str(path))
    assert len(str(raised.value).splitlines()) == 1


def test_a_data_set_points_at_its_benchmark():
    """``protocols`` of a data set of src/evaluate.py."""
    listed = [{"benchmark": "instre"}, "easy"]
    dataset = OmegaConf.create({"name": "x", "protocols": listed})
    assert protocols(dataset) == [*benchmark("instre").protocols, EASY]
    dataset = OmegaConf.create({"name": "x", "protocols": [{"benchmark": "instrs"}]})
    with pytest.raises(AmesError, match="benchmark 'instrs' does not exist; did you mean instre"):
        protocols(dataset)
    dataset = OmegaConf.create({"name": "x", "protocols": [{"benchmark": "instre"}, {"benchmark": "ilias"}]})
    with pytest.raises(AmesError, match="two protocols are called 'top100'"):
        protocols(dataset)
