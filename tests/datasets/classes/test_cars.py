"""The list of Cars196: a MATLAB file that scipy writes here, or a CSV file."""

import sys

import numpy as np
import pytest

from ames.datasets.classes.readers import read_class_set
from ames.errors import AmesError
from helpers.class_archives import CARS, cars_mat, write


@pytest.fixture
def _scipy():
    pytest.importorskip("scipy")  # of the extra "mat"


def refused(root, message):
    with pytest.raises(AmesError, match=message) as raised:
        read_class_set("cars196", root)
    assert len(str(raised.value).splitlines()) == 1


def test_a_csv_file(tmp_path):
    write(tmp_path / "cars_annos.csv", "path,label\n" + "".join(f"{x},{y}\n" for x, y in CARS))
    found = read_class_set("cars196", tmp_path)
    assert found.train.paths == ["car_ims/000001.jpg", "car_ims/000002.jpg"]
    assert found.train.labels == ["1", "98"]
    assert (found.query.paths, found.query.labels) == (["car_ims/000003.jpg", "car_ims/4.jpg"], ["99", "196"])
    assert found.gallery is None


def test_wrong_csv_files(tmp_path):
    refused(tmp_path, r"cars_annos.mat: no such file; give the folder with it, or write cars_annos.csv")
    write(tmp_path / "cars_annos.csv", "path,label\na.jpg,Audi\n")
    refused(tmp_path, r"cars_annos.csv: line 2: a.jpg has the label 'Audi'; expected the class, 1 to 196")
    write(tmp_path / "cars_annos.csv", "path,label\na.jpg,3\n")
    refused(tmp_path, "lists no image of the split 'query'")


def test_scipy_is_asked_for_in_one_line(tmp_path, monkeypatch):
    write(tmp_path / "cars_annos.mat", "x")
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    refused(tmp_path, r"needs scipy: pip install 'ames-retrieval\[mat\]'; or write cars_annos.csv")


@pytest.mark.usefixtures("_scipy")
def test_a_matlab_file(tmp_path):
    cars_mat(tmp_path / "cars_annos.mat")
    found = read_class_set("cars196", tmp_path)
    assert found.train.paths == [path for path, label in CARS if label <= 98]
    assert (found.train.labels, found.query.labels) == (["1", "98"], ["99", "196"])
    write(tmp_path / "cars_annos.csv", "path,label\na.jpg,3\nb.jpg,100\n")
    assert read_class_set("cars196", tmp_path).train.paths == ["a.jpg"]


@pytest.mark.usefixtures("_scipy")
def test_wrong_matlab_files(tmp_path):
    from scipy.io import savemat

    path = write(tmp_path / "cars_annos.mat", "no MATLAB file")
    refused(tmp_path, "not a MATLAB 5 file that scipy reads")
    cars_mat(path, order=("x1", "y1", "x2", "y2", "class", "path"))  # as the lists of the second release
    refused(tmp_path, "annotation 1 has no path in its first field, or no class in its sixth")
    cars_mat(path, order=("path", "class"))
    refused(tmp_path, "has no 'annotations' with a path and a class each; is it cars_annos.mat?")
    savemat(path, {"annotations": np.arange(3)})
    refused(tmp_path, "has no 'annotations'")
    savemat(path, {"others": np.arange(3)})
    refused(tmp_path, "has no 'annotations'")
    cars_mat(path, [("a.jpg", 0), ("b.jpg", 100)])
    refused(tmp_path, "a.jpg has the label '0'")


@pytest.mark.usefixtures("_scipy")
@pytest.mark.parametrize("kept", [0, 1, 100, 128, 130, 300, 600])
def test_a_matlab_file_that_is_cut_off(tmp_path, kept):
    """Bytes that are changed inside are scipy's affair, which can end the process."""
    path = cars_mat(tmp_path / "cars_annos.mat")
    assert path.stat().st_size > 600
    path.write_bytes(path.read_bytes()[:kept])
    refused(tmp_path, "not a MATLAB 5 file that scipy reads|has no 'annotations'")
