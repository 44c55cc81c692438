"""Suites as files: what they say, and what is refused."""

import copy

import pytest
import yaml

from ames.bench.suite import FOLDER, default_methods, folder_suite, list_suites, parse_suite, read_suite
from ames.errors import AmesError

GOOD = {
    "title": "t",
    "datasets": {
        "one": {"folder": "a", "descriptors": "rootsift", "validation": "two"},
        "two": {"folder": "b", "descriptors": "rootsift"},
    },
    "methods": {"global": ["search"], "exact": ["search", "rootsift_ames"]},
    "cascades": {"fast": {"of": "exact", "cheap": [{"model": "chamfer"}], "loss": 0.2}},
}


def test_a_suite():
    suite = parse_suite(GOOD, source="s")
    assert [x.name for x in suite.reported] == ["one"]
    assert suite.baseline == "global"
    assert [x.name for x in suite.methods] == ["global", "exact"]
    assert suite.cascades[0].cheap[0].model == "chamfer"
    assert suite.cascades[0].loss == 0.2
    assert suite.dataset("two").folder == "b"


@pytest.mark.parametrize("name", list_suites())
def test_the_suites_of_conf_can_be_read(name):
    suite = read_suite(name)
    assert suite.methods
    assert read_suite(FOLDER / f"{name}.yaml") == suite


def changed(path, value):
    content = copy.deepcopy(GOOD)
    *places, last = path.split("/")
    inner = content
    for place in places:
        inner = inner[place]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("methds", {}, "s: key 'methds' does not exist; did you mean methods"),
        ("methods", {}, "s: needs datasets and methods, at least one of each"),
        ("datasets", [], "s: datasets: expected keys and values, found list|needs datasets"),
        ("baseline", "exakt", "s: baseline: method 'exakt' does not exist; did you mean exact"),
        (
            "methods/exact",
            ["search", "rootsift_amse"],
            "s: method exact, step 2: step 'rootsift_amse'",
        ),
        ("methods/exact", ["rootsift_ames"], r"s: method exact, step 1 \(rerank\): needs a shortlist or"),
        ("datasets/one/foldr", "x", "s: dataset one: key 'foldr' does not exist; did you mean folder"),
        ("datasets/one/folder", None, r"s: dataset one: give folder, or generate: {landmarks: NUMBER}"),
        ("datasets/one/descriptors", None, "s: dataset one: descriptors is missing"),
        (
            "datasets/one/validation",
            "tow",
            "s: dataset one: validation set 'tow' does not exist",
        ),
        ("datasets/two/validation", "one", "every data set validates another one: none is left"),
        ("datasets/one/seeds", [1], "seeds are of generated landmarks: leave them out"),
        ("datasets/one/distractors", "yes", "distractors is 'yes': give true or false"),
        ("datasets/one/protocols", "hard", "protocols are 'hard': give a list of names"),
        ("cascades/fast/of", "exakt", "s: cascade fast: of: method 'exakt' does not exist"),
        ("cascades/fast/of", "global", "the last step of global re-ranks nothing with a model"),
        ("cascades/fast/loss", -1, "loss is -1: give points of mAP, 0 or more"),
        ("cascades/fast/cheap", [], r"cheap is \[\]: give a list of re-rankings"),
        ("cascades/fast/cheap", [{"modl": "x"}], "s: cascade fast: cheap 1: setting 'modl' does not exist"),
        ("datasets/one/validation", None, "cascades are chosen on a validation set: give each data set one"),
    ],
)
def test_what_a_suite_must_not_say(path, value, message):
    with pytest.raises(AmesError, match=message):
        parse_suite(changed(path, value), source="s")


def test_two_validation_sets_have_two_suites():
    content = copy.deepcopy(GOOD)
    content["datasets"] |= {
        "three": {"folder": "c", "descriptors": "rootsift", "validation": "four"},
        "four": {"folder": "d", "descriptors": "rootsift"},
    }
    with pytest.raises(AmesError, match="one validation set, not on four, two: make two suites"):
        parse_suite(content, source="s")


def test_generated_data_sets():
    content = changed("datasets/one/folder", None)
    content["datasets"]["one"] |= {"generate": {"landmarks": 3}, "seeds": [0, 1]}
    assert parse_suite(content, source="s").dataset("one").seeds == (0, 1)
    content["datasets"]["one"]["generate"] = {"landmarks": "3"}
    with pytest.raises(AmesError, match="generate: landmarks is '3'"):
        parse_suite(content, source="s")
    content["datasets"]["one"] |= {"generate": {}, "seeds": [-1]}
    with pytest.raises(AmesError, match=r"seeds are \[-1\]: give a list of whole numbers"):
        parse_suite(content, source="s")
    content["datasets"]["one"]["seeds"] = [1, 1]
    with pytest.raises(AmesError, match=r"seeds are \[1, 1\]: give a list of whole numbers, each once"):
        parse_suite(content, source="s")


def test_nothing_is_chosen_without_a_validation_set():
    content = {**GOOD, "cascades": {}}
    content["datasets"] = {"one": {"folder": "a", "descriptors": "rootsift", "validation": None}}
    assert parse_suite(content, source="s").dataset("one").validation is None


def test_files_that_are_no_suites(tmp_path):
    with pytest.raises(AmesError, match="suite 'landmark' does not exist; did you mean landmarks"):
        read_suite("landmark")
    with pytest.raises(AmesError, match=r"x.yaml: cannot be read \(No such file"):
        read_suite(tmp_path / "x.yaml")
    (tmp_path / "x.yaml").write_text("a: [")
    with pytest.raises(AmesError, match=r"x.yaml: not YAML"):
        read_suite(tmp_path / "x.yaml")
    (tmp_path / "x.yaml").write_text("- 1")
    with pytest.raises(AmesError, match=r"x.yaml: expected keys and values, found list"):
        read_suite(tmp_path / "x.yaml")


def test_a_folder_is_a_suite(tmp_path):
    with pytest.raises(AmesError, match=r"give --name.*it holds no"):
        folder_suite(tmp_path, None)
    (tmp_path / "rootsift_query_local.hdf5").touch()
    suite = folder_suite(tmp_path, None, tmp_path)
    assert suite.reported[0].descriptors == "rootsift"
    assert suite.reported[0].validation == f"{tmp_path.name} (validation)"
    assert "rootsift_ames_dist" in [x.name for x in suite.methods]
    (tmp_path / "aliked_query_local.hdf5").touch()
    with pytest.raises(AmesError, match="it holds aliked, rootsift"):
        folder_suite(tmp_path, None)
    assert "aliked_elvis" in default_methods("aliked")
    assert yaml.safe_load(yaml.safe_dump(default_methods("aliked"))) == default_methods("aliked")
