"""A data set's folder from its lists, by any backbone: what is done stays, what was begun goes on."""

import json

import numpy as np
import pytest

import ames.extraction.factory
from ames.cli.main import main
from ames.datasets.layout import DatasetFolder
from ames.descriptors.local import DescriptorFile, read_globals
from ames.errors import AmesError
from ames.extraction.config import ExtractionConfig
from ames.extraction.factory import build_extractor
from ames.global_search.shortlist import Shortlist
from ames.pipelines.prepare import extract_split
from helpers import photos
from helpers.brightness import Brightness

NAMES = [f"{number:02}.png" for number in range(6)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Lists of two queries and four images; `--backbone brightness`."""
    monkeypatch.setattr(ames.extraction.factory, "make_backbone", lambda name, **_: Brightness())
    for number, name in enumerate(NAMES):
        photos.save(tmp_path / "photos" / name, photos.scene(number, size=(112, 84)))
    path = tmp_path / "toy"
    path.mkdir()
    (path / "test_query.txt").write_text("\n".join(NAMES[:2]))
    (path / "test_gallery.txt").write_text("\n".join(NAMES[2:]))
    truth = {"imlist": NAMES[2:], "qimlist": NAMES[:2]}
    positives = [{"ok": [0], "bbx": [14, 28, 70, 98]}, {"ok": [1], "bbx": [0, 0, 84, 56]}]
    (path / "gnd_toy.json").write_text(json.dumps(truth | {"gnd": positives}))
    return DatasetFolder(path, "brightness")


def prepare(folder, *words):
    root = folder.path.parent / "photos"
    given = ["prepare", folder.path, "--images", root, "--backbone", "brightness", "--workers", 0, *words]
    return main([str(word) for word in given])


def test_a_network_and_boxes(folder, capsys):
    assert prepare(folder, "--desc-num", 7, "--dtype", "float32", "--boxes", "gnd_toy.json") == 0
    query, gallery = DescriptorFile(folder.local("query")), DescriptorFile(folder.local("gallery"))
    assert (query.names, gallery.names) == (NAMES[:2], NAMES[2:])
    assert [file.provenance["boxes"] for file in (query, gallery)] == [True, False]
    for row, (top, bottom) in enumerate(((28, 98), (0, 56))):  # shares of the whole image of 112 rows
        places = query.read([row], 7).positions[0][:, 0]
        assert top / 112 <= places.min() <= places.max() <= bottom / 112
    shortlist = Shortlist.load(folder.shortlist, gallery_size=4)
    vectors = [read_globals(folder.vectors(split)) for split in ("query", "gallery")]
    vectors = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in vectors]
    assert shortlist.ids.tolist() == np.argsort(-(vectors[0] @ vectors[1].T), axis=1).tolist()
    capsys.readouterr()
    assert prepare(folder, "--desc-num", 7, "--dtype", "float32") == 2
    said = capsys.readouterr().err
    assert (
        "query_local.hdf5: exists but was made with different settings (boxes: there true, now false)" in said
    )
    assert said.count("\n") == 1


def test_scales_are_of_both_splits(folder):
    assert prepare(folder, "--desc-num", 7, "--scales", 1, 0.5) == 0
    for split in ("query", "gallery"):
        assert DescriptorFile(folder.local(split)).provenance["scales"] == [1.0, 0.5]


def test_an_interrupted_one_goes_on(folder, monkeypatch):
    calls = []

    def broken(self, images):
        calls.append(len(images))
        if len(calls) == 3:  # the trial image, the queries; then the gallery
            raise KeyboardInterrupt
        return maps(self, images)

    maps = Brightness.maps
    monkeypatch.setattr(Brightness, "maps", broken)
    monkeypatch.setattr("ames.extraction.batched.Lanes", lambda: None)  # as on a GPU: in batches
    assert prepare(folder) == 130
    there = {path.name for path in folder.path.iterdir()}
    assert {"brightness_query_local.hdf5", "brightness_gallery.partial.json"} <= there
    assert not folder.shortlist.exists()
    # Another list of the same length is not what was begun.
    listed = folder.image_list("gallery")
    text = listed.read_text()
    listed.write_text("\n".join(NAMES[:1:-1]))
    assert prepare(folder) == 2
    listed.write_text(text)
    before = folder.local("query").stat().st_mtime_ns
    assert prepare(folder) == 0
    assert folder.local("query").stat().st_mtime_ns == before
    assert not list(folder.path.glob("*partial*"))
    assert len(calls) == 3 + 1 + 1 + 1  # twice the trial image, and the gallery


@pytest.mark.parametrize("name", ["test_query.txt", "test_gallery.txt"])
def test_a_missing_list_is_named_before_anything_is_extracted(folder, capsys, name):
    (folder.path / name).unlink()
    before = sorted(folder.path.iterdir())
    assert prepare(folder) == 2
    assert f"{folder.path / name}: no such list of images; a data set's folder" in capsys.readouterr().err
    assert sorted(folder.path.iterdir()) == before


def test_what_is_done_needs_no_images(folder):
    assert prepare(folder) == 0
    for name in NAMES:
        (folder.path.parent / "photos" / name).unlink()
    assert prepare(folder) == 0
    source = build_extractor(ExtractionConfig(backbone="brightness", overwrite=True))
    with pytest.raises(AmesError, match=r"00\.png"):
        extract_split(folder, "query", source, images=folder.path.parent / "photos")
    assert folder.local("query").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--global", "none"], "a shortlist needs global descriptors"),
        (["--boxes", "nowhere.json"], "nowhere.json"),
        (["--weight-by", "best"], "best"),
        (["--device", "tpu"], "--device tpu: cannot be used here"),
    ],
)
def test_wrong_words(folder, capsys, words, message):
    before = sorted(folder.path.iterdir())
    assert prepare(folder, *words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert sorted(folder.path.iterdir()) == before


def test_a_training_set_has_no_boxes(folder, capsys):
    folder.image_list().write_text("\n".join(f"{name},{i % 2}" for i, name in enumerate(NAMES)))
    assert prepare(folder, "--boxes", "1") == 2
    assert "which has no queries; leave --boxes out" in capsys.readouterr().err
    assert prepare(folder) == 0
    assert DescriptorFile(folder.local()).names == NAMES
