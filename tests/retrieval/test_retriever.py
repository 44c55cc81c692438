"""A collection of photos: built, searched, changed, built again; what is refused."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from ames.errors import AmesError
from ames.extraction.extractor import Extractor
from ames.models.checkpoints import save_checkpoint
from ames.models.load import load_model
from ames.reranking.fusion import Fusion
from ames.retrieval import collection
from ames.retrieval.retriever import Retriever
from helpers import photos

SCENES = range(6)


@pytest.fixture
def made(tmp_path):
    """A built collection of six scenes, with one file that is no image, and the folder around it."""
    for seed in SCENES:
        photos.save(tmp_path / "photos" / "a" / f"{seed}.jpg", photos.scene(seed))
    (tmp_path / "photos" / "text.jpg").write_bytes(b"no image")
    return Retriever.build(tmp_path / "index", tmp_path / "photos"), tmp_path


def test_a_view_of_a_scene_finds_it_in_every_form(made):
    index, folder = made
    query = photos.scene(3, view=1)
    photos.save(folder / "query.png", query)
    by_path = index.search(folder / "query.png", k=3)
    assert by_path[0].name == "a/3.jpg"
    assert by_path[0].id == index.database.names.index("a/3.jpg")
    assert [hit.score for hit in by_path] == sorted((hit.score for hit in by_path), reverse=True)
    fusion = index.reranker.fusion
    for hit in by_path:  # the score is the blend of its parts
        logit = np.float32(hit.local)
        assert hit.score == pytest.approx(float(fusion.fuse(np.float32(hit.global_), logit)), abs=1e-6)
    rgb = query[..., ::-1]
    assert index.search(rgb, k=3) == by_path
    assert index.search(Extractor("rootsift")(rgb), k=3) == by_path
    assert index.search(rgb, k=3, budget_ms=1e6) == by_path
    assert index.search(rgb, k=3, num_rerank=9).scored == 6  # all that can be read
    pil = pytest.importorskip("PIL.Image").fromarray(np.ascontiguousarray(rgb))
    assert index.search(pil, k=3) == by_path


def test_added_and_deleted_photos(made):
    index, folder = made
    for seed in (20, 21):
        photos.save(folder / "more" / f"{seed}.jpg", photos.scene(seed))
    assert index.add(folder / "more") == 2
    assert index.add(folder / "more") == 0  # all of it exists already
    photos.save(folder / "more" / "23.jpg", photos.scene(23))
    assert index.add(folder / "more") == 1  # a folder that has grown
    assert index.delete(Path("23.jpg")) == 1
    assert index.search(photos.scene(21, view=1)[..., ::-1], k=1)[0].name == "21.jpg"
    photos.save(folder / "22.jpg", photos.scene(22))
    assert index.add([folder / "22.jpg"]) == 1
    again = Retriever.open(folder / "index")
    assert len(again) == len(index) == 10
    assert index.delete("21.jpg") == 1
    assert "21.jpg" not in [hit.name for hit in index.search(photos.scene(21, view=1)[..., ::-1])]
    (folder / "bad.jpg").write_bytes(b"x")
    with pytest.raises(AmesError, match=r"bad.jpg: not an image .*; nothing was added"):
        index.add([folder / "22.jpg", folder / "bad.jpg"])
    assert len(index) == 9


def test_the_same_call_again_says_that_it_is_done(made, caplog):
    index, folder = made
    before = {path: path.stat().st_mtime_ns for path in (folder / "index").iterdir()}
    again = Retriever.build(folder / "index", folder / "photos")
    assert len(again) == len(index)
    assert {path: path.stat().st_mtime_ns for path in (folder / "index").iterdir()} == before
    assert not (folder / "index.building").exists()
    photos.save(folder / "photos" / "new.jpg", photos.scene(9))
    with pytest.raises(AmesError, match=r"built with other photos \(open it and add some\)"):
        Retriever.build(folder / "index", folder / "photos")
    with pytest.raises(AmesError, match="built with another desc_num; give a new folder"):
        Retriever.build(folder / "index", folder / "photos", desc_num=20)


def test_unreadable_photos_are_named_and_found_by_nothing(tmp_path, caplog):
    photos.save(tmp_path / "photos" / "1.jpg", photos.scene(1))
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"no image")
    with caplog.at_level(logging.WARNING):
        index = Retriever.build(tmp_path / "index", tmp_path / "photos")
    assert "1 unreadable, skipped: bad.jpg" in caplog.text
    assert [hit.name for hit in index.search(photos.scene(1, view=1)[..., ::-1])] == ["1.jpg"]
    assert index.search(photos.plain()) == []  # a query without keypoints


@pytest.mark.parametrize("last", ["compress", "save"])
def test_an_interrupted_build_resumes(tmp_path, monkeypatch, last):
    for seed in SCENES:
        photos.save(tmp_path / "photos" / f"{seed}.jpg", photos.scene(seed))

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if last == "compress":
            patched.setattr("ames.retrieval.photos.compress", stop)
        else:
            patched.setattr(collection.Collection, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            Retriever.build(tmp_path / "index", tmp_path / "photos")
    with pytest.raises(
        AmesError, match=r"its building goes on, or was interrupted: call the same ames index"
    ):
        Retriever.open(tmp_path / "index")
    photo = tmp_path / "photos" / "0.jpg"
    content, photo_time = photo.read_bytes(), photo.stat().st_mtime_ns
    index = Retriever.build(tmp_path / "index", tmp_path / "photos")
    assert (photo.read_bytes(), photo.stat().st_mtime_ns) == (content, photo_time)
    assert not (tmp_path / "index.building").exists()
    assert index.search(photos.scene(5, view=1)[..., ::-1], k=1)[0].name == "5.jpg"


def test_a_full_precision_model_and_chamfer(tmp_path):
    for seed in SCENES:
        photos.save(tmp_path / "photos" / f"{seed}.jpg", photos.scene(seed))
    query = photos.scene(2, view=1)[..., ::-1]
    full = Retriever.build(tmp_path / "full", tmp_path / "photos", "rootsift_ames", desc_num=30)
    assert (full.database.codes, full.database.slots) == ("float16", 30)
    assert full.search(query, k=1)[0].name == "2.jpg"
    with pytest.raises(AmesError, match="model chamfer: name the backbone of its photos"):
        Retriever.build(tmp_path / "c", tmp_path / "photos", "chamfer")


def test_a_collection_stays_the_model_s_whatever_is_installed_later(tmp_path, monkeypatch):
    photos.save(tmp_path / "photos" / "1.jpg", photos.scene(1))
    first = Retriever.build(tmp_path / "index", tmp_path / "photos")
    monkeypatch.setenv("AMES_BACKBONE", "aliked")
    again = Retriever.build(tmp_path / "index", tmp_path / "photos")
    assert again.reranker.name == first.reranker.name


def test_files_of_others_are_never_touched(tmp_path):
    photos.save(tmp_path / "photos" / "1.jpg", photos.scene(1))
    precious = tmp_path / "index.building" / "precious.txt"
    precious.parent.mkdir()
    precious.write_text("mine")
    with pytest.raises(AmesError, match=r"index.building: holds other files \(precious.txt\): move them"):
        Retriever.build(tmp_path / "index", tmp_path / "photos")
    assert precious.read_text() == "mine"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.txt").write_text("mine")
    with pytest.raises(AmesError, match=r"other: holds other files \(x.txt\); give a new folder"):
        Retriever.build(tmp_path / "other", tmp_path / "photos")
    assert not (tmp_path / "other.building").exists()
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["x.txt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"desc_num": 0}, "desc_num 0 is not a whole number of 1 or more"),
        ({"desc_num": "x"}, "desc_num 'x' is not a whole number"),
        ({"factory": "SQ0"}, "global factory 'SQ0': a size of 0"),
        ({"factory": "nonsense"}, "global factory 'nonsense'"),
        ({"factory": 4}, "global factory is a int: give FAISS' text"),
        ({"device": "gpu"}, "device gpu: cannot be used here"),
        (
            {"model": "chamfer", "backbone": "rootsift"},
            "Chamfer makes codes of torch.float32",
        ),
        ({"model": 5}, "model is a int: give a name or the path"),
        ({"images": None}, "a photo of a collection is a file: give paths, not a NoneType"),
        ({"images": ["1.jpg", "1.jpg"]}, "1.jpg: listed twice; each photo has one name"),
        ({"folder": "."}, "folder '.': give the name of a folder"),
        ({"folder": None}, "folder is a NoneType: give a path"),
    ],
)
def test_a_build_that_is_refused_leaves_nothing(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    photos.save(tmp_path / "photos" / "1.jpg", photos.scene(1))
    given = {"folder": "index", "images": "photos"} | options
    with pytest.raises(AmesError, match=message):
        Retriever.build(**given)
    left = {path.name for path in tmp_path.iterdir()} - {"photos"}
    assert left == set()
    index = Retriever.build(tmp_path / "index", tmp_path / "photos", desc_num=20)
    assert len(index) == 1
    assert not (tmp_path / "index.building").exists()


def test_a_checkpoint_without_a_fusion_needs_one_at_once(tmp_path):
    for seed in SCENES:
        photos.save(tmp_path / "photos" / f"{seed}.jpg", photos.scene(seed))
    save_checkpoint(tmp_path / "my.pt", load_model("rootsift_ames_dist"))
    model = tmp_path / "my.pt"
    with pytest.raises(AmesError, match=r"my.pt brings no lambda and gamma: give fusion=Fusion"):
        Retriever.build(tmp_path / "index", tmp_path / "photos", model, backbone="rootsift")
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "my.pt"}
    fusion = Fusion(0.3, 0.5)
    built = Retriever.build(
        tmp_path / "index", tmp_path / "photos", model, backbone="rootsift", fusion=fusion
    )
    assert built.reranker.fusion == Retriever.open(tmp_path / "index").reranker.fusion == fusion
    assert built.search(photos.scene(4, view=1)[..., ::-1], k=1)[0].name == "4.jpg"
    model.rename(tmp_path / "moved.pt")
    with pytest.raises(AmesError, match=r"index: its model is no longer at .*my.pt: give model=PATH"):
        Retriever.open(tmp_path / "index")
    assert Retriever.open(tmp_path / "index", tmp_path / "moved.pt").reranker.fusion == fusion


def test_what_is_refused(made):
    index, folder = made
    with pytest.raises(AmesError, match=r"k 101 is outside 1 ... 100"):
        index.search(folder / "photos" / "a" / "1.jpg", k=101)
    with pytest.raises(AmesError, match=r"nowhere.jpg: No such file"):
        index.search(folder / "nowhere.jpg")
    with pytest.raises(AmesError, match="features of one photo"):
        index.search(Extractor("rootsift")([folder / "photos" / "a" / "1.jpg"]))
    with pytest.raises(AmesError, match="no image 'x' in it; nothing was deleted"):
        index.delete("x")
    for call, message in (
        (lambda: index.delete(None), "names to delete are text"),
        (lambda: index.delete([3]), "names to delete are text"),
        (
            lambda: index.add([np.zeros((3, 3))]),
            "a collection is a file: give paths, not a ndarray",
        ),
        (lambda: index.add(np.zeros((3, 3, 3), np.uint8)), "a photo of a collection is a file"),
        (lambda: index.search(3), "photos: a int; give a path|photo 0: a int; give a path"),
        (lambda: index.search("a\0.jpg"), "embedded null byte"),
        (lambda: index.search(photos.scene(1), k=2.5), "k 2.5 is not a whole number"),
        (lambda: index.search(photos.scene(1), k="5"), "k '5' is not a whole number"),
        (lambda: index.search_features(np.zeros(256), np.zeros((3, 128))), "local descriptors are a ndarray"),
        (lambda: Retriever.open(folder / "nowhere"), "nowhere: no such folder"),
        (lambda: Retriever.open(None), "folder is a NoneType"),
        (lambda: Retriever.open(folder / "index", device="gpu"), "device gpu: cannot be used here"),
    ):
        with pytest.raises(AmesError, match=message):
            call()
    with pytest.raises(AmesError, match=r"made by another projection \(rootsift_ames_dist"):
        Retriever.open(folder / "index", "rootsift_ames")
    (folder / "index" / collection.NAME).write_text(json.dumps({"model": 3}))
    with pytest.raises(AmesError, match=r"retriever.json: damaged"):
        Retriever.open(folder / "index")
    (folder / "index" / collection.NAME).unlink()
    with pytest.raises(AmesError, match=r"not made by Retriever.build: give the model"):
        Retriever.open(folder / "index")
    plain = Retriever.open(folder / "index", "rootsift_ames_dist")
    with pytest.raises(AmesError, match=r"nothing says how photos are read: search with the features"):
        plain.search(cv2.imread(str(folder / "photos" / "a" / "1.jpg")))
    assert plain.search(Extractor("rootsift")(folder / "photos" / "a" / "1.jpg"), k=1)[0].name == "a/1.jpg"


def test_a_search_does_not_load_what_only_changes_need(made):
    """Each takes a tenth of a second and more of the first answer."""
    _, folder = made
    photos.save(folder / "query.jpg", photos.scene(1, view=1))
    program = (
        "import sys, ames; print(ames.Retriever.open('index').search('query.jpg', k=1)[0].name);"
        "print(*sorted({x.split('.')[0] for x in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True
    )
    name, loaded = done.stdout.splitlines()
    assert name == "a/1.jpg"
    assert not {"h5py", "hydra", "omegaconf", "transformers", "matplotlib", "jinja2"} & set(loaded.split())
