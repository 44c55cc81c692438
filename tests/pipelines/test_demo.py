"""The demo on a small folder of photos, with small models: table, page, reuse, and photos that change."""

import json
import shutil

import pytest
import torch

from ames.backbones import rootsift
from ames.errors import AmesError
from ames.models import registry
from ames.models.ames import AMES
from ames.models.checkpoints import save_weights
from ames.pipelines.demo import OwnPhotos, _methods, run_demo
from helpers import photos
from helpers.listwise import ToyList

METHODS = ["global only", *["Chamfer, float"] * 2, *["AMES"] * 2, "AMES binary", "perfect re-ranking"]


def album(root):
    """Three objects of three views, distractors, a picture without keypoints, two that cannot be read."""
    for number, name in enumerate(("tower", "bridge, old", "ümlaut")):
        for view in range(3):
            photos.save(root / name / f"{view}.png", photos.scene(number, view))
    for number in range(4):
        photos.save(root / "distractors" / f"{number}.png", photos.scene(20 + number))
    photos.save(root / "top.png", photos.plain())
    (root / "tower" / "empty.jpg").touch()
    (root / "bad.jpg").write_text("text")
    (root / "notes.pdf").write_text("text")
    return root


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    found = {}
    for name, binarized in (("model", False), ("binary_model", True)):
        model = AMES(
            local_dim=128, model_dim=16, num_encoder_layers=1, dim_feedforward=16, binarized=binarized
        )
        found[name] = folder / f"{name}.safetensors"
        save_weights(
            found[name],
            model,
            provenance={"backbone": "rootsift", "blend": {"lamb": 0.5, "temp": 1.0}},
        )
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory, models):
    root = tmp_path_factory.mktemp("demo")
    album(root / "photos")
    report = run_demo(root / "out", OwnPhotos(root / "photos"), workers=0, num_rerank=8, **models)
    return root, report


@pytest.fixture
def copy(finished, tmp_path):
    """The finished demo, to be changed at will."""
    shutil.copytree(finished[0], tmp_path / "demo")
    return tmp_path / "demo"


def again(root, models, *, num_rerank=8, **roles):
    return run_demo(
        root / "out", OwnPhotos(root / "photos", **roles), num_rerank=num_rerank, workers=0, **models
    )


def test_the_table_has_a_row_for_each_method(finished):
    results = json.loads((finished[0] / "out" / "results.json").read_text())
    assert [row["method"] for row in results["rows"]] == METHODS
    for row in results["rows"]:
        assert 0 <= row["mAP"] <= 100
        assert 0 <= row["mP@10"] <= 100
    best = results["rows"][-1]["mAP"]
    assert all(row["mAP"] <= best + 1e-6 for row in results["rows"])
    assert [row["bytes/image"] for row in results["rows"][-4:-1]] == [200 * 32, 50 * 32, 50 * 2]


def test_a_list_wise_model_takes_the_full_one_s_rows(finished, models, tmp_path, monkeypatch):
    monkeypatch.setitem(registry.CLASSES, "ToyList", ToyList.__module__)
    toy, about = ToyList(local_dim=128, window=4, price=1e-4), {"blend": {"lamb": 0.2, "temp": 5.0}}
    save_weights(tmp_path / "toy.safetensors", toy, provenance=about)
    shutil.copytree(finished[0], tmp_path / "demo")
    again(tmp_path / "demo", models | {"model": tmp_path / "toy.safetensors"})
    rows = json.loads((tmp_path / "demo" / "out" / "results.json").read_text())["rows"]
    assert [row["method"] for row in rows[3:5]] == ["ToyList", "ToyList"]
    assert all(row["mAP"] > rows[0]["mAP"] - 20 for row in rows[3:5])  # eight candidates in windows of four
    assert [row["mAP"] for row in rows[:3]] == [
        row["mAP"] for row in json.loads((finished[0] / "out" / "results.json").read_text())["rows"][:3]
    ]


def test_chamfer_finds_the_other_views(finished):
    """The photos are easy: what extraction, search and scoring hand on is enough to find them all."""
    rows = json.loads((finished[0] / "out" / "results.json").read_text())["rows"]
    assert rows[1]["mAP"] > 95


def test_the_notes_name_what_could_not_be_read(finished):
    notes = "\n".join(json.loads((finished[0] / "out" / "results.json").read_text())["notes"])
    assert "14 images of" in notes
    assert "tower 3" in notes
    assert "bridge, old 3" in notes
    assert "2 images could not be read and were left out: bad.jpg: not an image" in notes
    assert "tower/empty.jpg: empty file" in notes
    assert "1 file is not a readable image and was left out: notes.pdf" in notes


def test_the_page_shows_queries_before_and_after(finished):
    root, report = finished
    assert report == root / "out" / "report.html"
    page = report.read_text(encoding="utf-8")
    assert page.count("<section>") == 9  # every query: there are fewer than the strips it may show
    assert page.count("<h3>") == 18
    assert page.count("<h3>AMES binary: AP") == 9
    assert "perfect re-ranking" in page
    assert "bridge, old/1.png" in page
    assert ">nan" not in page


def test_a_second_run_extracts_nothing_and_says_the_same(copy, models, monkeypatch):
    before = json.loads((copy / "out" / "results.json").read_text())

    def refuse(*_, **__):
        raise AssertionError("extracted again")

    # The folder has moved, its photos are the same: no reason to do anything again.
    monkeypatch.setattr("ames.extraction.process_pool.PoolExtractor.chunks", refuse)
    monkeypatch.setattr("ames.global_search.build.search_blocks", refuse)
    again(copy, models)
    after = json.loads((copy / "out" / "results.json").read_text())
    for first, second in zip(before["rows"], after["rows"], strict=True):
        assert first | {"seconds": 0} == second | {"seconds": 0}


def replaced(folder):
    photos.save(folder / "tower" / "0.png", photos.scene(77))


def added(folder):
    photos.save(folder / "tower" / "9.png", photos.scene(0, 5))


def removed(folder):
    (folder / "tower" / "0.png").unlink()


def moved(folder):
    (folder / "tower" / "2.png").rename(folder / "distractors" / "2b.png")


def spoiled(folder):
    (folder / "tower" / "0.png").write_bytes(b"")


@pytest.mark.parametrize("change", [replaced, added, removed, moved, spoiled])
def test_photos_that_changed_are_noticed(copy, models, change):
    files = {path: path.read_bytes() for path in (copy / "out").rglob("*") if path.is_file()}
    change(copy / "photos")
    with pytest.raises(AmesError, match=r"photos: made from other photos than .* holds now") as error:
        again(copy, models)
    assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in (copy / "out").rglob("*") if path.is_file()} == files
    shutil.rmtree(copy / "out" / "photos")  # as the message says
    again(copy, models)


def test_another_role_of_a_sub_folder_is_noticed_too(copy, models):
    with pytest.raises(AmesError, match="made from other photos"):
        again(copy, models, distractors="tower")


def test_fewer_results_re_ranked_than_shown(copy, models):
    page = again(copy, models, num_rerank=2).read_text(encoding="utf-8")
    assert "AMES binary" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"local_dim": 64},
            "a full-precision model of 64-d descriptors; expected a full-precision one of 128-d",
        ),
        ({"binarized": True}, "a binary model of 128-d descriptors; expected a full-precision one"),
    ],
)
def test_models_that_do_not_fit(tmp_path, models, arguments, message):
    sizes = {"local_dim": 128, "model_dim": 16, "num_encoder_layers": 1, "dim_feedforward": 16}
    save_weights(tmp_path / "x.safetensors", AMES(**sizes | arguments))
    with pytest.raises(AmesError, match=message):
        run_demo(tmp_path / "out", OwnPhotos(tmp_path), **models | {"model": tmp_path / "x.safetensors"})
    assert not (tmp_path / "out").exists()


def test_a_model_of_another_backbone(tmp_path, models):
    model = AMES(local_dim=128, model_dim=16, num_encoder_layers=1, dim_feedforward=16)
    save_weights(tmp_path / "x.safetensors", model, provenance={"backbone": "dinov2"})
    with pytest.raises(AmesError, match="trained on dinov2 descriptors, not on rootsift"):
        run_demo(tmp_path / "out", OwnPhotos(tmp_path), **models | {"model": tmp_path / "x.safetensors"})


def test_a_backbone_without_shipped_models(tmp_path):
    with pytest.raises(
        AmesError, match="backbone dinov2: no models are shipped for it; the demo takes aliked or rootsift"
    ):
        run_demo(tmp_path / "out", OwnPhotos(tmp_path), backbone="dinov2")
    assert not (tmp_path / "out").exists()


def test_descriptors_of_another_version_are_noticed(copy, models, monkeypatch):
    monkeypatch.setattr(rootsift, "_SAMPLING", 0.5)
    with pytest.raises(
        AmesError, match=r"photos: made by another version of ames; delete this folder or give"
    ):
        again(copy, models)


def test_both_kinds_of_shipped_models_are_measured_the_default_last():
    methods = [method.name for method in _methods("aliked", None, None)]
    assert methods == [
        *["Chamfer, float"] * 2,
        *["AMES"] * 2,
        *["ELViS"] * 2,
        "AMES binary",
        "ELViS binary",
    ]
