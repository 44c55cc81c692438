"""Test sets of images with classes on disk: what is opened, and one line for files of other images."""

import numpy as np
import pytest

from ames.descriptors.local import write_globals
from ames.errors import AmesError
from ames.evaluation.class_files import open_class_test_set
from ames.evaluation.class_protocol import ClassProtocol

ALONE = ClassProtocol("alone")
APART = ClassProtocol("apart", skip_self=False)
NAMES, LABELS = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"], ["x", "x", "y", "y"]
VECTORS = np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 0.6, 0.8], [0, 0, 1]], np.float32)


def made(folder, *, apart=False):
    """Lists and vectors of the network ``net``; apart: two queries and two gallery images."""
    halves = {"query": [0, 2], "gallery": [1, 3]}
    for split in ("query", "gallery"):
        rows = halves[split] if apart else range(4)
        text = "".join(f"{NAMES[row]},{LABELS[row]}\n" for row in rows)
        (folder / f"test_{split}.txt").write_text(text)
        names = [NAMES[row] for row in rows]
        write_globals(folder / f"net_{split}_global.hdf5", VECTORS[list(rows)], names=names)
    return folder


def refused(message, folder, name="net", protocol=ALONE, **more):
    with pytest.raises(AmesError, match=message) as raised:
        open_class_test_set(folder, name, protocol, **more)
    assert len(str(raised.value).splitlines()) == 1


def test_each_image_among_the_others(tmp_path):
    found = open_class_test_set(made(tmp_path), "net", ALONE).evaluate(ALONE)
    assert found.first.tolist() == [0, 0, 0, 0]
    assert found.recall[1] == 100


def test_queries_apart(tmp_path):
    test = open_class_test_set(made(tmp_path, apart=True), "net", APART)
    assert (test.query.paths, test.gallery.paths) == (["a.jpg", "c.jpg"], ["b.jpg", "d.jpg"])
    assert test.evaluate(APART).recall[1] == 100


def test_queries_of_another_network(tmp_path):
    made(tmp_path)
    write_globals(tmp_path / "small_query_global.hdf5", VECTORS[[3, 1, 2, 3]], names=NAMES)
    found = open_class_test_set(tmp_path, "net", ALONE, query_name="small").evaluate(ALONE)
    assert found.first.tolist() == [2, 0, 0, 0]  # the first query lies where d.jpg is


def test_files_of_classification_networks_and_without_names(tmp_path):
    made(tmp_path)
    for split in ("query", "gallery"):
        (tmp_path / f"net_{split}_global.hdf5").rename(tmp_path / f"net_{split}_cls.hdf5")
    write_globals(tmp_path / "net_query_cls.hdf5", VECTORS)
    assert open_class_test_set(tmp_path, "net", ALONE).evaluate(ALONE).recall[1] == 100


def test_files_of_other_images(tmp_path):
    made(tmp_path)
    refused(r"none_query_global.hdf5", tmp_path, "none")
    write_globals(tmp_path / "net_query_global.hdf5", VECTORS[:3], names=NAMES[:3])
    refused(r"net_query_global.hdf5: 3 vectors, but 4 images in .*test_query.txt; extract", tmp_path)
    write_globals(tmp_path / "net_query_global.hdf5", VECTORS, names=["a.jpg", "c.jpg", "b.jpg", "d.jpg"])
    refused("not of the images of .*test_query.txt: image 2 is c.jpg, there b.jpg; extract", tmp_path)
    write_globals(tmp_path / "net_query_global.hdf5", VECTORS[:, :2], names=NAMES)
    refused("2-d vectors, those of .*net_gallery_global.hdf5 are 3-d: they are of different", tmp_path)
    write_globals(tmp_path / "net_query_global.hdf5", np.full_like(VECTORS, np.nan), names=NAMES)
    with pytest.raises(AmesError, match=r"net_query_global.hdf5: the vector of image 0 is not finite"):
        open_class_test_set(tmp_path, "net", ALONE).evaluate(ALONE)


def test_lists_of_another_protocol(tmp_path):
    made(tmp_path)
    message = (
        "4 images of test_gallery.txt, too .first: a.jpg., which would find themselves: protocol 'apart'"
    )
    refused(message, tmp_path, protocol=APART)
    made(tmp_path, apart=True)
    refused("test_query.txt: not the images of test_gallery.txt: protocol 'alone' searches", tmp_path)


def test_wrong_lists(tmp_path):
    made(tmp_path)
    (tmp_path / "test_query.txt").write_text("a.jpg\n")
    refused(r"test_query.txt: image 1 \(a.jpg\) has no label", tmp_path)
    (tmp_path / "test_query.txt").unlink()
    refused("test_query.txt: no such list of images", tmp_path)
