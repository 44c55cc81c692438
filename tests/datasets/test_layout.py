"""Which file of a data set is taken: ours, else the published pickle, else one that the user names."""

from pathlib import Path

import pytest

from ames.datasets.layout import DatasetFolder
from ames.errors import AmesError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "roxford5k").mkdir()
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return DatasetFolder(tmp_path / "roxford5k", "dinov2")


def test_ours_comes_before_the_published_one(folder):
    (folder.path / "nn_dinov2.pkl").touch()
    (folder.path / "gnd_roxford5k.pkl").touch()
    assert folder.find_shortlist().name == "nn_dinov2.pkl"
    assert folder.find_ground_truth().name == "gnd_roxford5k.pkl"
    folder.shortlist.touch()
    folder.ground_truth.touch()
    assert folder.find_shortlist() == folder.shortlist
    assert folder.find_ground_truth() == folder.ground_truth


def test_a_name_is_taken_as_it_is_before_its_twin(folder):
    (folder.path / "nn_superglobal.npz").touch()
    assert folder.find_shortlist("nn_superglobal.pkl").suffix == ".npz"  # converted, the pickle thrown away
    (folder.path / "nn_superglobal.pkl").touch()
    assert folder.find_shortlist("nn_superglobal.pkl").suffix == ".pkl"
    assert folder.find_shortlist("nn_superglobal").suffix == ".npz"
    assert folder.find_shortlist("nn_superglobal.pkl").parent == folder.path


def test_global_descriptors_named_after_their_backbone_serve_any_name(tmp_path):
    mine, dinov2 = DatasetFolder(tmp_path, "mine"), DatasetFolder(tmp_path, "dinov2")
    assert [x.vectors("query").name for x in (mine, dinov2)] == [
        "mine_query_global.hdf5",
        "dinov2_query_cls.hdf5",
    ]
    (tmp_path / "mine_query_cls.hdf5").touch()  # -o mine_query --backbone dinov2
    assert mine.vectors("query").name == "mine_query_cls.hdf5"
    (tmp_path / "mine_query_global.hdf5").touch()
    assert mine.vectors("query").name == "mine_query_global.hdf5"


def test_a_path(folder, tmp_path):
    path = tmp_path / "mine.npz"
    path.touch()
    assert folder.find_shortlist(str(path)) == path
    assert folder.find_shortlist("../mine.npz").samefile(path)
    (tmp_path / "cwd" / "gnd.json").touch()
    assert folder.find_ground_truth("gnd.json").samefile(tmp_path / "cwd" / "gnd.json")
    (folder.path / "gnd.json").touch()
    assert folder.find_ground_truth("gnd.json").parent == folder.path


def test_what_was_looked_for_is_listed(folder, tmp_path):
    (tmp_path / "cwd" / "nn_dinov2.npz").touch()  # not a file of this data set
    with pytest.raises(AmesError) as error:
        folder.find_shortlist()
    places = ", ".join(str(folder.path / f"nn_dinov2{ending}") for ending in (".npz", ".pkl"))
    assert str(error.value) == f"no shortlist exists; looked for {places}"
    with pytest.raises(
        AmesError, match=r"no ground truth exists; looked for .*x.json, .*x.pkl, x.json, x.pkl"
    ):
        folder.find_ground_truth("x.json")


def test_a_file_by_name_or_by_path(tmp_path):
    folder = DatasetFolder(tmp_path, "rootsift")
    (tmp_path / "pairs.csv").touch()
    assert folder.file("pairs.csv") == tmp_path / "pairs.csv"
    assert folder.file("elsewhere/pairs.csv") == Path("elsewhere/pairs.csv")
