"""``ames class-lists`` and ``ames evaluate-classes``: what they write and print, and what they refuse."""

import json

import numpy as np
import pytest

from ames.cli.class_sets import KINDS
from ames.config.classes import class_protocol
from ames.datasets.classes import readers
from ames.datasets.classes.class_lists import read_class_list
from ames.descriptors.local import write_globals
from ames.evaluation.class_metrics import evaluate_classes
from helpers import class_archives as archives
from helpers import photos
from helpers.class_archives import write
from helpers.commands import ROOT
from helpers.commands import refused_by_ames as refused
from helpers.commands import run_ames as run
from helpers.documents import commands


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_kinds_are_those_of_the_readers():
    assert KINDS == readers.KINDS


def test_lists_of_an_archive(tmp_path, capsys):
    archives.sop(tmp_path / "SOP")
    assert run("class-lists", "sop", tmp_path / "SOP", "-o", tmp_path / "sop") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "train: 2 images of 1 class were read, 59,551 of 11,318 are published: this is a subset, or another "
        "version"
    )
    assert lines[2:] == [
        "train: 2 images of 1 class",
        "query: 3 images of 2 classes",
        "gallery: the queries; each is searched for among the others",
        f"{tmp_path / 'sop'}: lists of paths below {tmp_path / 'SOP'}",
    ]
    assert (
        tmp_path / "sop" / "train.txt"
    ).read_text() == "bicycle_final/1_0.JPG,1\nbicycle_final/1_1.JPG,1\n"
    before = content(tmp_path / "sop")
    assert before["test_query.txt"] == before["test_gallery.txt"]
    assert run("class-lists", "sop", tmp_path / "SOP", "-o", tmp_path / "sop") == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"{tmp_path / 'sop'}: has these lists already, below {tmp_path / 'SOP'}"
    )
    assert content(tmp_path / "sop") == before


def test_other_lists_are_refused(tmp_path, capsys):
    words = ["class-lists", "inshop", archives.inshop(tmp_path / "I"), "-o", tmp_path / "x"]
    assert run("class-lists", "cub", archives.cub(tmp_path / "C"), "-o", tmp_path / "x") == 0
    before = content(tmp_path / "x")
    refused(capsys, "train.txt: exists and has another content; name another folder, or give", *words)
    assert content(tmp_path / "x") == before
    assert run(*words, "--overwrite") == 0
    assert read_class_list(tmp_path / "x" / "test_gallery.txt").labels == ["id_02", "id_03"]


def test_own_labels(tmp_path, capsys):
    for name in "abcd":
        write(tmp_path / "photos" / name / "1.jpg", "x")
        write(tmp_path / "photos" / name / "2.jpg", "x")
    words = ["class-lists", "folder", tmp_path / "photos"]
    assert run(*words, "-o", tmp_path / "x", "--train-share", "0.25", "--seed", "3") == 0
    assert len(read_class_list(tmp_path / "x" / "train.txt")) == 2
    assert run(*words, "-o", tmp_path / "y", "--train-share", "0") == 0
    assert sorted(content(tmp_path / "y")) == ["test_gallery.txt", "test_query.txt"]
    refused(
        capsys, "share of classes that train is 3.0: give 0 to 1", *words, "-o", "z", "--train-share", "3"
    )
    words = ["class-lists", "cub", archives.cub(tmp_path / "C"), "-o", tmp_path / "z", "--seed", "1"]
    refused(capsys, "cub has published splits", *words)
    refused(capsys, "invalid choice: 'birds'", "class-lists", "birds", tmp_path, "-o", tmp_path / "z")
    refused(capsys, "no such file", "class-lists", "sop", tmp_path, "-o", tmp_path / "z")
    assert not (tmp_path / "z").exists()


@pytest.fixture
def birds(tmp_path):
    """Lists of CUB's test birds, and vectors of a network and of a smaller one."""
    run("class-lists", "cub", archives.cub(tmp_path / "C"), "-o", tmp_path / "cub")
    names = read_class_list(tmp_path / "cub" / "test_query.txt").paths
    rng = np.random.default_rng(0)
    vectors = {name: rng.standard_normal((3, 8)).astype(np.float32) for name in ("net", "small")}
    for x in vectors.values():
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    for name, split in (("net", "query"), ("net", "gallery"), ("small", "query")):
        write_globals(tmp_path / "cub" / f"{name}_{split}_global.hdf5", vectors[name], names=names)
    return tmp_path / "cub", vectors


@pytest.mark.parametrize("query", ["net", "small"])
def test_figures(birds, capsys, query):
    folder, vectors = birds
    words = ["evaluate-classes", folder, "--name", "net", "--protocol", "cub", "-o", folder / "x" / "f.json"]
    assert run(*words, *(["--query-name", query] if query != "net" else [])) == 0
    labels = [0, 0, 1]
    right = evaluate_classes(vectors[query], vectors["net"], labels, labels, class_protocol("cub"))
    found = json.loads((folder / "x" / "f.json").read_text())
    assert found["recall"] == {str(k): value for k, value in right.recall.items()}
    assert found["map"] == right.map
    assert (found["query"], found["gallery"], found["without_positive"]) == (query, "net", 1)
    assert found["images"] == {"query": 3, "gallery": 3}
    assert found["protocol"]["skip_self"] is True
    out = capsys.readouterr().out
    head, values = (line.split() for line in out.splitlines() if line.startswith(("query ", query)))
    assert head == ["query", "gallery", "R@1", "R@2", "R@4", "R@8", "mAP", "mAP@R"]
    assert values[2:] == [f"{x:.2f}" for x in [*right.recall.values(), *right.map.values()]]
    assert "3 queries, 3 gallery images, each searched for among the others; protocol cub (%)" in out
    assert "1 query has no image of the class to find: a miss in recall, left out of mAP" in out
    assert "test transform 'crop', which is not checked" in out


def test_wrong_words(birds, capsys):
    folder, _ = birds
    words = ["evaluate-classes", folder, "--name", "net", "--protocol"]
    refused(capsys, "protocol 'cubb' does not exist; did you mean cub", *words, "cubb")
    refused(capsys, "which would find themselves: protocol 'inshop' removes none", *words, "inshop")
    refused(capsys, "the following arguments are required: --name", "evaluate-classes", folder)
    refused(capsys, "no such list of images", "evaluate-classes", folder / "x", *words[2:], "cub")


def test_no_figure_is_null(birds, tmp_path, capsys):
    folder, _ = birds
    for split in ("query", "gallery"):
        path = folder / f"test_{split}.txt"
        rows = read_class_list(path).paths
        path.write_text("".join(f"{name},{number}\n" for number, name in enumerate(rows)))
    words = ["evaluate-classes", folder, "--name", "net", "--protocol", "own", "-o", tmp_path / "f.json"]
    assert run(*words) == 0
    assert json.loads((tmp_path / "f.json").read_text())["map"] == {"trapezoid": None, "at-r": None}
    assert capsys.readouterr().out.splitlines()[-3].split()[-2:] == ["-", "-"]


def test_the_commands_for_own_labels_run(tmp_path, monkeypatch, capsys):
    """docs/class_datasets.md: from photos in sub-folders to figures."""
    for number in range(4):
        for view in range(2):
            photos.save(tmp_path / "PHOTOS" / f"object {number}" / f"{view}.png", photos.scene(number, view))
    page = (ROOT / "docs" / "class_datasets.md").read_text()
    section = page[page.index("## Own labels") : page.index("## Protocols")]
    monkeypatch.chdir(tmp_path)
    found = [words[1:] for words in commands(section)]
    for words in found:
        assert run(*words, *(["--workers", 0] if words[0] == "extract" else [])) == 0
    assert len(found) == 4
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["recall"]["1"] == figures["map"]["trapezoid"] == figures["map"]["at-r"] == 100
    assert figures["images"] == {"query": 4, "gallery": 4}
    capsys.readouterr()
