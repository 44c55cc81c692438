"""Pickles of the asmk package: features, training features and codebooks, read without executing anything."""

import json
import os
import pickle

import numpy as np
import pytest
import torch

from ames.cli.main import main
from ames.descriptors.local import DescriptorFile
from ames.errors import AmesError
from ames.inspection import asmk_files
from ames.inspection.conversion import Options
from ames.inspection.convert import convert
from ames.inspection.inspect import inspect

rng = np.random.default_rng(0)
VECS = rng.standard_normal((7, 4)).astype(np.float32)
QVECS = rng.standard_normal((3, 4)).astype(np.float32)
IMIDS, QIMIDS = np.array([0, 0, 0, 1, 3, 3, 3]), np.array([0, 1, 1])  # image 2 has no vector
FEATURES = {"vecs": VECS, "imids": IMIDS, "qvecs": QVECS, "qimids": QIMIDS}
CODEBOOK = {
    "type": "Codebook",
    "params": {"size": 5},
    "state": {"centroids": rng.standard_normal((5, 4)).astype(np.float32)},
}


def pickled(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_features(tmp_path, protocol):
    source = pickled(tmp_path / "roxford5k_how_r18.pkl", FEATURES, protocol)
    path, what = convert(source, how=Options(dtype="float32"))
    other = tmp_path / "roxford5k_how_r18_query_local.hdf5"
    assert path == tmp_path / "roxford5k_how_r18_gallery_local.hdf5"
    assert what == f"4 images of {source.name}; {other}: 2 images of {source.name}"
    gallery, query = DescriptorFile(path), DescriptorFile(other)
    local = gallery.read([0, 1, 2, 3])
    assert local.counts.tolist() == [3, 1, 0, 3]
    assert np.array_equal(local.descriptors[0], VECS[:3])
    assert np.array_equal(local.descriptors[1, :1], VECS[3:4])
    assert np.array_equal(local.descriptors[3], VECS[4:])
    assert (local.positions, local.scale, local.weight) == (None, None, None)
    assert np.array_equal(query.read([1]).descriptors[0], QVECS[1:])
    assert (gallery.names, gallery.provenance["converted_from"]) == (None, "asmk")
    assert convert(source, how=Options(dtype="float32"))[1].count("; exists already") == 2


def test_the_first_vectors_of_an_image(tmp_path, caplog):
    source = pickled(tmp_path / "x.pkl", {"vecs": torch.from_numpy(VECS), "imids": torch.from_numpy(IMIDS)})
    path, _ = convert(source, tmp_path / "y", how=Options(desc_num=2))
    local = DescriptorFile(path).read([3])
    assert np.array_equal(local.descriptors[0], VECS[4:6].astype(np.float16))
    assert "no weights: the first 2 vectors of an image are kept" in caplog.text


def test_training_features(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(asmk_files, "_UNKNOWN", 3)
    source = pickled(tmp_path / "sfm.pkl", {"vecs": VECS})
    path, what = convert(source, how=Options(dtype="float32"))
    assert (path, what) == (tmp_path / "sfm_local.hdf5", "3 images of sfm.pkl")
    local = DescriptorFile(path).read([0, 1, 2])
    assert np.array_equal(local.descriptors[local.valid], VECS)
    assert "says of no image: 3 vectors become one row" in caplog.text
    assert inspect(source)["kind"] == "training features of the asmk package"


def test_a_codebook(tmp_path):
    source = pickled(tmp_path / "codebook.pkl", CODEBOOK)
    path, what = convert(source)
    assert (path.name, what) == ("codebook.npz", "codebook of 5 words, 4-d")
    with np.load(path) as found:
        assert found["centroids"].dtype == np.float32
        assert np.array_equal(found["centroids"], CODEBOOK["state"]["centroids"])
        assert json.loads(str(found["meta"])) == {
            "kind": "codebook of visual words",
            "words": 5,
            "dim": 4,
            "converted_from": "asmk, codebook.pkl",
        }
    assert convert(source) == (path, f"{what}; exists already")
    assert {key: inspect(path)[key] for key in ("kind", "words", "rows")} == {
        "kind": "codebook", "words": 5, "rows": 5,
    }  # fmt: skip
    found = inspect(source)
    assert (found["kind"], found["words"], found["width"]) == ("codebook of the asmk package", 5, 4)


def test_described(tmp_path):
    found = inspect(pickled(tmp_path / "x.pkl", FEATURES))
    wanted = {
        "kind": "features of the asmk package",
        "gallery_images": 4,
        "gallery_vectors": 7,
        "query_images": 2,
        "query_vectors": 3,
        "width": 4,
        "rows": 10,
    }
    assert {key: found[key] for key in wanted} == wanted


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda trap: {"vecs": trap, "imids": IMIDS},
        lambda trap: FEATURES | {"imids": trap},
        lambda trap: CODEBOOK | {"state": {"centroids": trap}},
    ],
)
def test_nothing_is_executed(tmp_path, wrap):
    source = pickled(tmp_path / "x.pkl", wrap(Trap(tmp_path / "pwned")))
    for read in (convert, inspect):
        with pytest.raises(AmesError, match=r"the pickle asks for (posix|nt)\.system, which is refused"):
            read(source)
    assert [x.name for x in tmp_path.iterdir()] == ["x.pkl"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (FEATURES | {"imids": IMIDS[:5]}, "imids: 5 numbers of 7 vectors"),
        (FEATURES | {"imids": IMIDS[::-1].copy()}, "imids: the images of vectors must be numbers from 0"),
        (FEATURES | {"imids": IMIDS - 1}, "imids: the images of vectors must be numbers from 0"),
        (FEATURES | {"imids": IMIDS * 10**9}, "imids: numbers up to 3000000000 of 3 images"),
        (FEATURES | {"imids": IMIDS / 1.0}, r"imids is float64 \(7,\): expected 1 axis of numbers"),
        (FEATURES | {"qvecs": QVECS[:, :3]}, "vectors are 3 and 4-d"),
        (FEATURES | {"vecs": VECS[0]}, r"vecs is float32 \(4,\): expected 2 axes"),
        (FEATURES | {"vecs": VECS * np.nan}, "vecs hold NaN or infinity"),
        (FEATURES | {"vecs": VECS[:0]}, "vecs is empty"),
        ({"vecs": VECS, "qvecs": QVECS}, "vecs without imids"),
        ({"vecs": [1, 2]}, "vecs is a list"),
        ({"type": "IVF", "params": {}, "state": {}}, "an inverted file of the asmk package: convert the"),
        (CODEBOOK | {"state": {"centroids": None}}, "not a trained codebook of the asmk package"),
        (CODEBOOK | {"type": "Other"}, r"not a trained codebook .*\(type 'Other'\)"),
        (CODEBOOK | {"state": {"centroids": VECS * np.inf}}, "centroids hold NaN or infinity"),
    ],
)
def test_pickles_of_other_shapes(tmp_path, content, message):
    source = pickled(tmp_path / "x.pkl", content)
    for read in (convert, inspect):
        with pytest.raises(AmesError, match=f"x.pkl: {message}") as caught:
            read(source)
        assert "\n" not in str(caught.value)
    assert [x.name for x in tmp_path.iterdir()] == ["x.pkl"]


def test_options_that_do_not_fit(tmp_path):
    source = pickled(tmp_path / "x.pkl", FEATURES)
    with pytest.raises(AmesError, match="--list is not for features of the asmk package"):
        convert(source, how=Options(listed=tmp_path))
    with pytest.raises(AmesError, match="--desc-num is not for a codebook"):
        convert(pickled(tmp_path / "c.pkl", CODEBOOK), how=Options(desc_num=3))


def test_commands(tmp_path, capsys):
    source = pickled(tmp_path / "x.pkl", FEATURES)
    assert main(["convert", str(source), "--desc-num", "2"]) == 0
    assert "x_gallery_local.hdf5: 4 images of x.pkl" in capsys.readouterr().out
    assert main(["inspect", str(source)]) == 0
    assert "features of the asmk package" in capsys.readouterr().out
