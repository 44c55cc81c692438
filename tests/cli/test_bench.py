"""``ames bench`` as a person calls it."""

import json

import pytest
import yaml

from ames.cli.main import main
from helpers import chain_sets


@pytest.fixture
def data(tmp_path):
    chain_sets.made(tmp_path / "set", queries=4)
    return tmp_path


def suite(folder, **changes):
    content = {
        "datasets": {"set": {"folder": "set", "descriptors": "rootsift"}},
        "methods": {"global": ["search"], "SuperGlobal": ["search", "superglobal"]},
    }
    (folder / "s.yaml").write_text(yaml.safe_dump(content | changes, sort_keys=False))
    return str(folder / "s.yaml")


def test_a_suite(data, capsys):
    words = ["bench", suite(data), "--data", str(data), "-o", str(data / "out")]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "SuperGlobal" in out
    assert "no validation set: lambda and gamma are those that each model brings" in out
    assert str(data / "out" / "bench.md") in out
    figures = json.loads((data / "out" / "bench.json").read_text())["datasets"]["set"]
    assert [x["method"] for x in figures] == ["global", "SuperGlobal"]
    assert main([*words, "--quiet"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonesuch"], "ames bench: suite 'nonesuch' does not exist"),
        (["s.yaml", "--name", "rootsift"], "--name, --validation and --benchmark belong to a folder"),
        (["set", "--name", "dinov2"], "there is neither dinov2_query_local.hdf5 nor dinov2_query_cls.hdf5"),
        (["set", "--name", "rootsift", "-o", "s.yaml"], "s.yaml: not a folder; give another --out"),
        (["set", "--name", "rootsift"], r"rootsift_elvis, step 2 (rerank): "),
        (["set", "--name", "rootsift", "--benchmark", "nonesuch"], "benchmark 'nonesuch' does not exist"),
        (["s.yaml", "--precision", "fp8"], "precision 'fp8' is none of fp32"),
    ],
)
def test_wrong_input_is_one_line(data, monkeypatch, capsys, words, message):
    monkeypatch.chdir(data)
    suite(data)
    assert main(["bench", *words]) == 2
    lines = [x for x in capsys.readouterr().err.splitlines() if x]
    assert len(lines) == 1, lines
    assert message in lines[0]
    assert not (data / "bench" / "cells").exists()
