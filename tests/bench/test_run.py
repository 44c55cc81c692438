"""A whole benchmark on small sets: its figures, its files, and what happens after an interruption."""

import csv
import io
import json
import shutil

import numpy as np
import pytest

from ames.bench import cells
from ames.bench import run as module
from ames.bench.run import run_suite
from ames.bench.suite import parse_suite
from ames.chains.chain import parse_chain
from ames.datasets.layout import DatasetFolder
from ames.errors import AmesError
from ames.evaluation.chains import evaluate_chain, open_chain_set, with_fusions
from ames.evaluation.protocols import REVISITED
from ames.global_search.exact import search
from helpers import chain_sets

CONTENT = {
    "title": "small",
    "datasets": {
        "test": {"folder": "test", "descriptors": "rootsift", "validation": "val"},
        "val": {"folder": "val", "descriptors": "rootsift"},
    },
    "methods": {
        "global": ["search"],
        "alpha-QE": ["search", {"alpha-qe": {"neighbours": 2}}],
        "Chamfer 5 × 5": ["search", {"chamfer": {"num_rerank": 60, "query_desc_num": 5, "db_desc_num": 5}}],
    },
    "cascades": {
        "fast_one": {
            "of": "Chamfer 5 × 5",
            "loss": 30,
            "cheap": [{"model": "chamfer", "query_desc_num": 1, "db_desc_num": 1}],
        }
    },
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    chain_sets.made(path / "test", queries=6)
    chain_sets.made(path / "val", queries=5, seed=1)
    return path


def run(root, out, **changes):
    said = []
    content = {**CONTENT, **changes}
    return run_suite(parse_suite(content, source="s"), out, data=root, say=said.append), said


def test_the_figures_are_those_of_the_chains(root, tmp_path):
    report, _ = run(root, tmp_path, cascades={})
    test, val = (open_chain_set(DatasetFolder(root / x, "rootsift")) for x in ("test", "val"))
    base = evaluate_chain(parse_chain("c", ["search"]), test, REVISITED).results
    for row in report.rows["test"]:
        chain = with_fusions(parse_chain("c", CONTENT["methods"][row["method"]]), val, REVISITED)
        found = evaluate_chain(chain, test, REVISITED).results
        for protocol, result in found.items():
            figures = row["protocols"][protocol.name]["mAP"]
            assert figures["mean"] == pytest.approx(result.map, abs=1e-3)
            assert figures["low"] <= result.map <= figures["high"]
            if row["method"] == "global":
                assert figures["above_baseline"] is None
            else:
                wanted = np.nanmean(result.aps - base[protocol].aps)
                assert figures["above_baseline"]["mean"] == pytest.approx(wanted, abs=1e-3)
    assert report.rows["test"][2]["bytes"] == 24 + 5 * 4 * 8
    assert report.rows["test"][2]["ms"] > 0


def test_the_files(root, tmp_path):
    report, said = run(root, tmp_path)
    assert {x.name for x in report.files} == {
        "bench.md",
        "bench.json",
        "bench.csv",
        "bench.tex",
        "bench-test.png",
    }
    content = json.loads((tmp_path / "bench.json").read_text())
    assert content["datasets"]["test"] == report.rows["test"]
    assert content["machine"]["cores"] >= 1
    assert set(content["chains"]) == {*CONTENT["methods"], "fast_one"}
    assert content["chains"]["Chamfer 5 × 5"][1]["rerank"]["lamb"] >= 0  # the choice of the validation set
    lines = list(csv.DictReader(io.StringIO((tmp_path / "bench.csv").read_text())))
    assert len(lines) == 4 * 3
    wanted = ("alpha-QE", "medium", "mAP")
    medium = next(x for x in lines if (x["method"], x["protocol"], x["figure"]) == wanted)
    assert float(medium["mean"]) == report.rows["test"][1]["protocols"]["medium"]["mAP"]["mean"]
    markdown = (tmp_path / "bench.md").read_text()
    assert markdown.count("\n| ") == 4 + 2
    assert "95 %, paired bootstrap over the objects" in markdown
    latex = (tmp_path / "bench.tex").read_text()
    assert r"Chamfer 5 $\times$ 5 &" in latex
    assert r"fast\_one" in latex
    assert latex.count(r" \\") == 5
    assert (tmp_path / "cascades" / "fast_one.yaml").is_file()
    assert not (tmp_path / "cells" / "scores").exists()
    assert sum(line.startswith("test: ") for line in said) == 4


def test_a_published_benchmark_says_its_figures(tmp_path):
    chain_sets.made(tmp_path / "places", keys={"ok": 4}, queries=7)
    datasets = {"places": {"folder": "places", "descriptors": "rootsift", "benchmark": "vpr"}}
    report, _ = run(tmp_path, tmp_path / "out", datasets=datasets, cascades={})
    test = open_chain_set(DatasetFolder(tmp_path / "places", "rootsift"))
    ranking = search(test.files.query_vectors.all(), test.files.gallery_vectors.all()).ids
    hits = [
        bool(set(row[:5].tolist()) & set(query["ok"].tolist()))
        for row, query in zip(ranking, test.ground_truth.queries, strict=True)
    ]
    assert 0 < sum(hits) < 7
    figures = report.rows["places"][0]["protocols"]["25m"]
    assert figures["R@5"]["mean"] == pytest.approx(100 * sum(hits) / 7, abs=1e-3)
    assert list(report.tables["places"][0])[:2] == ["method", "R@1"]  # the first figure of conf/benchmark


def test_what_is_measured_is_kept(root, tmp_path, monkeypatch):
    """After an interruption, and when a method is added."""
    measured, measure = [], cells.Bench._measure

    def noted(self, part, chain):
        if len(measured) == 2 and not (tmp_path / "go").exists():
            raise KeyboardInterrupt
        measured.append(chain.name)
        return measure(self, part, chain)

    monkeypatch.setattr(cells.Bench, "_measure", noted)
    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path, cascades={})
    assert measured == ["global", "alpha-QE"]
    assert not (tmp_path / "bench.json").exists()
    (tmp_path / "go").touch()
    first, _ = run(root, tmp_path, cascades={})
    assert measured == ["global", "alpha-QE", "Chamfer 5 × 5"]
    methods = {**CONTENT["methods"], "SuperGlobal": ["search", "superglobal"]}
    second, said = run(root, tmp_path, cascades={}, methods=methods)
    assert measured[3:] == ["SuperGlobal"]
    assert second.rows["test"][:3] == first.rows["test"]
    assert said == [x for x in said if "SuperGlobal" in x]
    other = {**CONTENT["methods"], "alpha-QE": ["search", {"alpha-qe": {"neighbours": 3}}]}
    run(root, tmp_path, cascades={}, methods=other)
    assert measured[4:] == ["alpha-QE"]


def test_a_cascade_is_found_again_when_it_was_asked_otherwise(root, tmp_path, monkeypatch):
    found, find = [], module.find_cascade

    def noted(spec, *rest, **more):
        found.append(spec.loss)
        return find(spec, *rest, **more)

    monkeypatch.setattr(module, "find_cascade", noted)
    run(root, tmp_path)
    run(root, tmp_path)
    assert found == [30]
    other = {"fast_one": {**CONTENT["cascades"]["fast_one"], "loss": 60}}
    report, _ = run(root, tmp_path, cascades=other)
    assert found == [30, 60]
    assert any("fast_one" in line and "of the time of" in line for line in report.notes["test"])


def test_a_set_does_not_validate_itself(root, tmp_path):
    datasets = {**CONTENT["datasets"], "val": {"folder": "test", "descriptors": "rootsift"}}
    with pytest.raises(
        AmesError, match="dataset test: is validated on its own queries under protocol 'easy'"
    ):
        run(root, tmp_path, datasets=datasets)


def test_lists_in_another_order_are_refused(root, tmp_path):
    shutil.copytree(root / "test", tmp_path / "data" / "test")
    lines = [f"q{i},,64,48\n" for i in reversed(range(6))]
    (tmp_path / "data" / "test" / "test_query.txt").write_text("".join(lines))
    datasets = {"test": {"folder": "test", "descriptors": "rootsift"}}
    with pytest.raises(AmesError, match=r"test_query.txt: image 0 is 'q5', but 'q0' in .*gnd_test.json"):
        run(tmp_path / "data", tmp_path / "out", datasets=datasets, cascades={})


def test_names_that_would_share_files_are_refused(root, tmp_path):
    cascades = dict.fromkeys(("fast one", "Fast-one"), CONTENT["cascades"]["fast_one"])
    with pytest.raises(AmesError, match="cascades 'fast one' and 'Fast-one': their files have one name"):
        run(root, tmp_path, cascades=cascades)
    datasets = {"../out": {"folder": "test", "descriptors": "rootsift"}}
    with pytest.raises(AmesError, match=r"dataset '../out': names files: give a name without /"):
        run(root, tmp_path, datasets=datasets, cascades={})


def test_a_damaged_time_of_extraction_is_measured_again(root, tmp_path):
    run(root, tmp_path, cascades={})
    for text in ("{", "[1]"):
        (tmp_path / "cells" / "test-extraction.json").write_text(text)
        run(root, tmp_path, cascades={})


def test_mistakes_are_found_before_anything_is_measured(root, tmp_path, monkeypatch):
    monkeypatch.setattr(cells.Bench, "cell", lambda *given: pytest.fail("measured"))
    late = {**CONTENT["methods"], "last": ["search", "superglobal", "alpha-qe"]}
    with pytest.raises(AmesError, match=r"last, step 3 \(alpha-qe\): needs a shortlist with cosines"):
        run(root, tmp_path, methods=late)
    wide = {**CONTENT["methods"], "last": ["search", "rootsift_ames"]}
    with pytest.raises(AmesError, match=r"last, step 2 \(rerank\): .*descriptors are 8-d, but rootsift_ames"):
        run(root, tmp_path, methods=wide)
    datasets = {"test": {"folder": "nowhere", "descriptors": "rootsift"}}
    with pytest.raises(AmesError, match="nowhere: no such folder; dataset test is below --data"):
        run(root, tmp_path, datasets=datasets, cascades={})


def test_a_list_that_disagrees_with_the_files(root, tmp_path):
    shutil.copytree(root / "test", tmp_path / "data" / "test")
    path = tmp_path / "data" / "test" / "gnd_test.json"
    truth = json.loads(path.read_text())
    truth["imlist"].append("one more")
    path.write_text(json.dumps(truth))
    datasets = {"test": {"folder": "test", "descriptors": "rootsift"}}
    with pytest.raises(AmesError, match=r"gallery_local.hdf5: 150 images, but 151 in .*gnd_test.json"):
        run(tmp_path / "data", tmp_path / "out", datasets=datasets, cascades={})
