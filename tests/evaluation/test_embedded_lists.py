"""Validation of embedders: whose images are measured, and what is refused before a wrong figure is."""

import numpy as np
import pytest

from ames.datasets.lists import write_names
from ames.descriptors.local import write_globals
from ames.embedders.features import FeatureSpec
from ames.errors import AmesError
from ames.evaluation.embedded_search import EmbeddedSearch
from helpers import embedders, photos

SPECS = (FeatureSpec("a_global", "global", 6, 1),)
NAMES = [f"{seed}.png" for seed in range(4)]


def lists(folder, query, gallery):
    folder.mkdir(exist_ok=True)
    for split, names in (("query", query), ("gallery", gallery)):
        lines = [f"{name},{int(name[0]) // 2}" for name in names]
        (folder / f"test_{split}.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path):
    lists(tmp_path, NAMES, NAMES)
    for seed in range(3):
        photos.save(tmp_path / f"{seed}.png", photos.scene(seed, size=(40, 40)))
    return tmp_path


def features(folder, names, rows=4):
    vectors = np.random.default_rng(0).standard_normal((rows, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write_globals(folder / "a_gallery_global.hdf5", vectors, names=names)


def test_stored_features_of_another_order_are_no_figure(folder):
    test, mixer = EmbeddedSearch.open(folder, ()), embedders.mixer(SPECS)
    features(folder, NAMES[::-1])
    said = (
        r"a_gallery_global.hdf5: not of the images of .*test_gallery.txt: image 1 is '3.png', there '0.png'"
    )
    with pytest.raises(AmesError, match=said):
        test.vectors(mixer, "gallery")
    features(folder, None, rows=3)
    with pytest.raises(AmesError, match=r"3 images, but 4 in .*test_gallery.txt; extract the list again"):
        test.vectors(mixer, "gallery")
    features(folder, NAMES)
    assert test.vectors(mixer, "gallery").shape == (4, embedders.DIM)


def test_another_root_than_the_images_s_is_no_figure(folder):
    test = EmbeddedSearch.open(folder, (), images=folder / "elsewhere")
    with pytest.raises(AmesError, match="elsewhere: none of the 4 listed images exists"):
        test.vectors(embedders.network(), "query")


def test_labels_need_lists_that_are_equal_or_apart(folder):
    lists(folder, NAMES[:2], NAMES[1:])
    with pytest.raises(AmesError, match=r"1 image of test_gallery.txt, too \(first: 1.png\)"):
        EmbeddedSearch.open(folder, ())
    lists(folder, NAMES[:1], NAMES[1:])
    test = EmbeddedSearch.open(folder, ())
    queries, gallery = np.eye(3, dtype=np.float32)[:1], np.eye(3, dtype=np.float32)[[1, 0, 2]]
    assert test.measure(queries, gallery)["val_recall_1"] == 0  # 0.png finds 2.png; 1.png is right
    assert test.measure(queries, gallery[[1, 0, 2]])["val_recall_1"] == 100
    write_names(folder / "test_query.txt", NAMES[:1])
    with pytest.raises(AmesError, match="ground truth"):
        EmbeddedSearch.open(folder, ())
