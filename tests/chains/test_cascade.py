"""Cascades by name, and files that are none."""

import pytest

from ames.chains.cascade import FOLDER, list_cascades, load_cascade
from ames.errors import AmesError
from ames.models.registry import MODELS

GOOD = """descriptors: rootsift
stages:
- {model: chamfer, num_rerank: 50}
- {model: rootsift_ames, num_rerank: 20}
"""


def test_a_file(tmp_path):
    (tmp_path / "mine.yaml").write_text(GOOD)
    cascade = load_cascade(tmp_path / "mine.yaml")
    assert cascade.name == "mine"
    assert [(s.model, s.num_rerank) for s in cascade.stages] == [("chamfer", 50), ("rootsift_ames", 20)]


@pytest.mark.parametrize("name", list_cascades())
def test_the_cascades_of_conf(name):
    cascade = load_cascade(name)
    assert all((stage.codes_of or stage.model) in MODELS for stage in cascade.stages)
    assert all(stage.fusion is not None for stage in cascade.stages)
    assert load_cascade(FOLDER / f"{name}.yaml") == cascade


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("stages", "stage", "mine.yaml: not a cascade: expected descriptors and a list of stages"),
        ("descriptors: rootsift", "descriptors: 3", "descriptors is text, and found has keys"),
        ("descriptors", "descriptor", "mine.yaml: key 'descriptor' does not exist; did you mean descriptors"),
        ("num_rerank: 20", "num_rerank: 60", r"re-ranks \[50, 60\]: no stage may take more"),
        ("num_rerank: 20", "num_rerank: x", "mine.yaml, stage 2: num_rerank is 'x': give a whole number"),
        ("model: chamfer", "modl: chamfer", "mine.yaml, stage 1: setting 'modl' does not exist"),
        ("- {model: chamfer", "- [{model: chamfer", "mine.yaml: not YAML"),
    ],
)
def test_files_that_are_none(tmp_path, old, new, message):
    (tmp_path / "mine.yaml").write_text(GOOD.replace(old, new, 1))
    with pytest.raises(AmesError, match=message):
        load_cascade(tmp_path / "mine.yaml")


def test_names_that_do_not_exist(tmp_path):
    with pytest.raises(AmesError, match=r"cascade 'nonesuch' does not exist; .*file is given by its path"):
        load_cascade("nonesuch")
    with pytest.raises(AmesError, match=r"x.yaml: cannot be read"):
        load_cascade(tmp_path / "x.yaml")
    (tmp_path / "x.yaml").write_text("descriptors: a\nstages: []\n")
    with pytest.raises(AmesError, match="has no stages"):
        load_cascade(tmp_path / "x.yaml")
