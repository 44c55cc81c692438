"""A benchmark on disk: figures of a shortlist by every rule, and what must agree."""

import json

import numpy as np
import pytest

from ames.cli.main import main
from ames.config.benchmarks import benchmark
from ames.datasets.ground_truth import GroundTruth, save_ground_truth
from ames.datasets.layout import DatasetFolder
from ames.errors import AmesError
from ames.evaluation.benchmark_files import evaluate_benchmark
from ames.evaluation.recognition import choose_rule, predict, recognition_figures
from ames.global_search.shortlist import Shortlist

GALLERY = [3, 3, 5, 5, 8, 8, 8, 9]  # classes


def met(path, query_classes, seed):
    """A set of the form of The Met: -1 is a distractor query."""
    path.mkdir()
    rng = np.random.default_rng(seed)
    names = {"query": [f"q{seed}_{i}.jpg" for i in range(len(query_classes))]}
    names["gallery"] = [f"g{i}.jpg" for i in range(len(GALLERY))]
    (path / "test_gallery.txt").write_text("".join(f"g{i}.jpg,{c}\n" for i, c in enumerate(GALLERY)))
    lines = [
        f"{name},{c}\n" if c >= 0 else f"{name}\n"
        for name, c in zip(names["query"], query_classes, strict=True)
    ]
    (path / "test_query.txt").write_text("".join(lines))
    truth = [{"ok": np.flatnonzero(np.array(GALLERY) == c)} for c in query_classes]
    folder = DatasetFolder(path, "x")
    save_ground_truth(folder.ground_truth, GroundTruth(truth, names["gallery"], names["query"]))
    similarities = rng.random((len(query_classes), len(GALLERY))).astype(np.float32)
    order = np.argsort(-similarities, axis=1)
    Shortlist(order, np.take_along_axis(similarities, order, 1)).save(folder.shortlist)
    return folder


@pytest.fixture
def sets(tmp_path):
    return met(tmp_path / "test", [3, -1, 8, 9, -1, 5], 0), met(tmp_path / "val", [8, 5, -1, 3], 1)


def test_figures_and_recognition(sets):
    test, val = sets
    found = evaluate_benchmark(test, benchmark("met"), validation=val)
    rankings = {folder: Shortlist.load(folder.shortlist) for folder in sets}
    hits = [
        bool(set(row[:1].tolist()) & set(query["ok"].tolist()))
        for row, query in zip(rankings[test].ids, found.ground_truth.queries, strict=True)
        if len(query["ok"])
    ]
    assert found.figures["top100"]["R@1"] == pytest.approx(100 * np.mean(hits))
    classes = {c: i for i, c in enumerate([3, 5, 8, 9])} | {-1: -1}
    gallery = np.array([classes[c] for c in GALLERY])
    queries = [np.array([classes[c] for c in own]) for own in ([3, -1, 8, 9, -1, 5], [8, 5, -1, 3])]
    rule = choose_rule(
        rankings[val].ids, rankings[val].similarities, gallery, queries[1], benchmark("met").recognition
    )
    own = rankings[test]
    assert found.recognition == recognition_figures(
        predict(own.ids, own.similarities, gallery, rule), queries[0], rule
    )


def test_the_command(sets, capsys, tmp_path):
    test, val = sets
    words = ["evaluate-benchmark", str(test.path), "--benchmark", "met", "--name", "x"]
    assert main(words) == 0
    assert "GAP needs --validation" in capsys.readouterr().out
    assert main([*words, "--validation", str(val.path), "-o", str(tmp_path / "f.json")]) == 0
    out = capsys.readouterr().out
    assert "GAP-" in out
    assert "2 of 6 queries have no positive" in out
    figures = json.loads((tmp_path / "f.json").read_text())
    found = evaluate_benchmark(test, benchmark("met"), validation=val)
    assert figures["figures"] == found.figures
    assert figures["recognition"]["gap"] == found.recognition.gap


def test_what_does_not_agree(sets, tmp_path):
    test, val = sets
    rule = benchmark("met")
    with pytest.raises(AmesError, match="no shortlist exists"):
        evaluate_benchmark(DatasetFolder(test.path, "y"), rule)
    truth = json.loads(val.ground_truth.read_text())
    truth["imlist"][0] = "other.jpg"
    val.ground_truth.write_text(json.dumps(truth))
    with pytest.raises(AmesError, match=r"test_gallery.txt: image 0 is 'g0.jpg', but 'other.jpg' in"):
        evaluate_benchmark(test, rule, validation=val)
    found = Shortlist.load(test.shortlist)
    Shortlist(found.ids[:2], found.similarities[:2]).save(test.shortlist)
    with pytest.raises(AmesError, match=r"nn_x.npz: 2 queries, but 6 in .*gnd_test.json"):
        evaluate_benchmark(test, rule)
    (test.path / "test_query.txt").write_text("q.jpg\n")
    with pytest.raises(AmesError, match=r"test_query.txt: 1 images, but 6 in .*: make the lists again"):
        evaluate_benchmark(test, rule)
