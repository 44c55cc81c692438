"""The curve of vector bytes against mAP: sources of vectors, times of queries, rows, picture, refusals."""

import json

import cv2
import numpy as np
import pytest

from ames.cli.main import main
from ames.datasets.layout import DatasetFolder
from ames.embedders.checkpoints import save_embedders
from ames.evaluation import query_time
from ames.evaluation.evaluate import Scoring
from ames.evaluation.memory_curve import curve, load_contenders
from ames.evaluation.protocols import LEAVE_ONE_OUT
from ames.evaluation.query_time import network_ms, query_ms, spread
from ames.evaluation.sweep import evaluate_initial, metrics
from ames.evaluation.test_set import open_test_set
from ames.evaluation.vector_curve import VectorSource, draw_vectors
from ames.extraction.base import ImageRegion
from ames.extraction.config import ExtractionConfig
from ames.extraction.factory import build_vector_extractor
from ames.global_search.shortlist import Shortlist
from ames.models.load import load
from ames.pipelines.vector_curve import open_truth, parse_pair
from ames.reranking.fusion import Fusion
from helpers import embedders, photos, small_sets


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("curve")
    small_sets.prepared_photos(root / "small")
    embedders.save_pair(root / "aff.pt")
    network = embedders.network(9, dim=24)
    space = save_embedders(root / "teacher.pt", {"gallery": network})
    save_embedders(root / "student.pt", {"query": network}, space=space)
    return root


def ames_curve(data, out, *words):
    pair = f"{data / 'teacher.pt'}:{data / 'student.pt'}"
    start = ["curve", data / "small", "--descriptors", "rootsift", "--embedders", data / "aff.pt", pair]
    return main([str(x) for x in (*start, "-o", out, "--num-rerank", 8, "--query-desc-num", 50, *words)])


def test_rows_are_the_sources_alone_and_re_ranked(data, tmp_path, capsys):
    words = ("--models", "rootsift_ames", "--db-desc-num", 5, 20, "--extra-bytes", 7)
    assert ames_curve(data, tmp_path / "out", *words) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    rows = found["rows"]
    keys = ("vectors", "dim", "fp32_bytes", "fp16_bytes", "model", "db_desc_num")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        (name, dim, 4 * dim, 2 * dim, model, count)
        for name, dim in (("rootsift", 256), ("aff", 16), ("teacher", 24))
        for model, count in (("global only", 0), ("rootsift_ames", 5), ("rootsift_ames", 20))
    ]
    code = load("rootsift_ames").model.code_bytes
    assert [row["bytes"] for row in rows[3:6]] == [39, 39 + 5 * code, 39 + 20 * code]
    names = {"rootsift": "nn_rootsift.npz", "aff": "nn_aff.npz", "teacher": "nn_teacher.npz"}
    assert found["shortlists"] == names
    folder = DatasetFolder(data / "small", "rootsift")
    truth = open_truth(folder)
    (one,) = load_contenders(["rootsift_ames"], backbone="rootsift", fusion=Fusion(0.0, 1.0))
    scorings = [Scoring(query_count=50, database_count=count) for count in (5, 20)]
    for number, file in enumerate(names.values()):
        own = rows[3 * number : 3 * number + 3]
        shortlist = Shortlist.load(folder.path / file, gallery_size=8)
        initial = metrics(evaluate_initial(shortlist, truth, [LEAVE_ONE_OUT]))
        assert {key: own[0][key] for key in initial} == initial
        test = open_test_set(folder, one.model, shortlist=file)
        wanted = curve(test, [one], [LEAVE_ONE_OUT], scorings, num_rerank=8)
        assert [row["map"] for row in own] == [row["map"] for row in wanted]
    assert rows[4]["map"] == 100.0
    times = [(row["network_ms"], row["query_ms"]) for row in rows[::3]]
    assert times[0][0] is None
    assert all(x > 0 for x in (times[0][1], *times[1], *times[2]))
    out = capsys.readouterr().out
    assert "vectors" in out
    picture = cv2.imread(str(tmp_path / "out.png"))
    assert picture.std() > 0


def test_without_models_there_are_global_rankings_alone(data, tmp_path):
    assert ames_curve(data, tmp_path / "out") == 0
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [(row["vectors"], row["bytes"]) for row in rows] == [
        ("rootsift", 512),
        ("aff", 32),
        ("teacher", 48),
    ]


def test_a_set_without_its_photos_has_no_times(data, tmp_path, capsys):
    assert ames_curve(data, tmp_path / "out") == 0  # makes the vectors
    small = data / "small"
    hidden = [path.rename(path.with_suffix(".hidden")) for path in small.glob("*.png")]
    try:
        assert ames_curve(data, tmp_path / "out") == 0
    finally:
        for path in hidden:
            path.rename(path.with_suffix(".png"))
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert {(row["network_ms"], row["query_ms"]) for row in rows} == {(None, None)}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("rootsift.pt", "two vectors are called 'rootsift': rename one of the embedders' files"),
        ("nowhere.pt", "nowhere.pt: no such checkpoint"),
        ("aff.pt:student.pt", "the query side gives 24-d vectors, the gallery side 16-d"),
    ],
)
def test_what_is_refused(data, tmp_path, capsys, monkeypatch, word, message):
    monkeypatch.chdir(data)
    words = ["curve", "small", "--descriptors", "rootsift", "--embedders", word, "-o", str(tmp_path / "x")]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_number_that_no_shortlist_has_is_refused_before_vectors_are_made(
    data, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(data)
    embedders.save_one(data / "late.pt")
    words = ["curve", "small", "--descriptors", "rootsift", "--embedders", "late.pt", "--num-rerank", "9"]
    words += ["--models", "rootsift_ames", "-o", str(tmp_path / "x"), "--query-desc-num", "20"]
    assert main([*words, "--db-desc-num", "5"]) == 2
    assert "num_rerank 9 is outside 1 ... 8, the length of the shortlist" in capsys.readouterr().err
    assert not [*(data / "small").glob("*late*")]


def test_a_pair_of_files_or_one_with_both_sides(tmp_path):
    assert parse_pair("a.pt") == (tmp_path.__class__("a.pt"), tmp_path.__class__("a.pt"))
    assert [str(x) for x in parse_pair("dir/a.pt:b.pt")] == ["dir/a.pt", "b.pt"]
    odd = tmp_path / "a:b.pt"
    odd.write_bytes(b"")
    assert parse_pair(str(odd)) == (odd, odd)


def test_a_source_without_a_figure_is_drawn_too(tmp_path):
    row = {"db_desc_num": 0, "model": "global only", "mean_map": None, "fp16_bytes": 8, "query_ms": None}
    rows = [row | {"vectors": "a"}, row | {"vectors": "$b$", "mean_map": 50.0, "query_ms": 3.14}]
    path = draw_vectors(rows, tmp_path / "x.png", title="t$t")
    assert cv2.imread(str(path)) is not None


def test_times_are_medians_without_the_first_call(tmp_path, monkeypatch):
    embedders.save_one(tmp_path / "one.pt")
    for seed in range(3):
        photos.save(tmp_path / f"{seed}.png", photos.scene(seed))
    regions = [ImageRegion(tmp_path / f"{seed}.png") for seed in range(3)]
    now = iter([0, 9, 10, 10.001, 20, 20.003, 30, 30.002])  # the first one is not counted
    monkeypatch.setattr(query_time.time, "perf_counter", lambda: next(now))
    extractor = build_vector_extractor(ExtractionConfig(embedder=tmp_path / "one.pt", workers=0))
    assert query_ms(extractor, regions) == pytest.approx(2.0)
    monkeypatch.undo()
    assert network_ms(embedders.network(), regions) > 0
    (tmp_path / "0.png").write_bytes(b"text")
    assert query_ms(extractor, regions[:1]) is None
    assert network_ms(embedders.network(), regions[:1]) is None
    assert spread(list(range(10)), 4) == [0, 3, 6, 9]
    assert spread([5], 4) == [5]


def test_a_row_says_what_a_vector_takes(tmp_path):
    found = VectorSource("x", 10, Shortlist(np.zeros((1, 1), int), np.zeros((1, 1), np.float32)), tmp_path)
    assert found.row() == {
        "vectors": "x",
        "dim": 10,
        "fp32_bytes": 40,
        "fp16_bytes": 20,
        "network_ms": None,
        "query_ms": None,
    }
