"""Raw or projected descriptors: the pairs that tell, and what they say of models made for one of the two."""

import pytest
import torch

from ames.backbones import detector as detectors
from ames.backbones.base import ImageFeatures
from ames.cli.main import main
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.models import registry
from ames.models.registry import ModelEntry
from ames.pipelines.check_preset import Pair, check_preset, pairs_of, read_pairs
from helpers import photos


@pytest.fixture
def folder(tmp_path):
    """Three objects of two views each."""
    for label in range(3):
        for view in range(2):
            photos.save(tmp_path / "photos" / f"object {label}" / f"{view}.png", photos.scene(label, view))
    return tmp_path / "photos"


def test_pairs_of_a_folder_and_of_a_list(folder, tmp_path):
    pairs = read_pairs(folder)
    assert [pair.same for pair in pairs].count(True) == 3
    assert all((pair.query.parent == pair.candidate.parent) == pair.same for pair in pairs)
    assert len({(pair.query, pair.candidate) for pair in pairs}) == len(pairs) == 9
    (tmp_path / "pairs.csv").write_text("a.jpg,b.jpg,same\na.jpg,c.jpg,different\n")
    root = tmp_path
    assert read_pairs(root / "pairs.csv") == [
        Pair(root / "a.jpg", root / "b.jpg", True),
        Pair(root / "a.jpg", root / "c.jpg", False),
    ]


def test_what_is_refused(folder, tmp_path):
    (tmp_path / "pairs.csv").write_text("a.jpg,b.jpg,same\na.jpg,c.jpg,maybe\n")
    with pytest.raises(AmesError, match=r"pairs.csv, line 2: expected PHOTO,PHOTO,same or"):
        read_pairs(tmp_path / "pairs.csv")
    (tmp_path / "pairs.csv").write_text("a.jpg,b.jpg,same\n")
    with pytest.raises(AmesError, match="give matching pairs and others, both"):
        read_pairs(tmp_path / "pairs.csv")
    for view in range(2):
        photos.save(tmp_path / "one" / "object" / f"{view}.png", photos.scene(0, view))
    with pytest.raises(AmesError, match="give at least two sub-folders"):
        read_pairs(tmp_path / "one")
    with pytest.raises(AmesError, match="chamfer: has no backbone of its own"):
        check_preset("chamfer", folder)
    with pytest.raises(AmesError, match="'rootsift_ame' does not exist; did you mean rootsift_ames"):
        check_preset("rootsift_ame", folder)
    assert len(pairs_of([["a", "b"], ["c"]])) == 3


def test_the_shipped_model_tells_views_of_a_scene(folder, capsys):
    assert main(["check-preset", "rootsift_ames", "--images", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "rootsift_ames: its backbone has one kind of descriptors; margin " in out
    assert out.split("\n")[1].split()[-1] == "100.0"


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A preset of a small network with a detector, and that detector's file."""
    torch.manual_seed(0)
    detector = detectors.SpatialAttention(384).eval()
    with torch.no_grad():  # a new one's projection keeps all cosines
        for value in detector.parameters():
            value.copy_(torch.randn(value.shape))
    detectors.save_detector(tmp_path / "detector.pt", detector)
    entry = ModelEntry(
        kind="Chamfer",
        arguments={"local_dim": 384},
        backbone="dinov2-s",
        extraction={"detector": "dinov2_detector"},
    )
    monkeypatch.setitem(registry.MODELS, "toy", entry)
    return tmp_path / "detector.pt"


def test_a_network_s_descriptors_are_scored_both_ways(folder, toy):
    rows, told = check_preset("toy", folder, weights="random", detector=toy, long_side=70, desc_num=20)
    assert [row["descriptors"] for row in rows] == ["raw", "projected"]
    best = max(rows, key=lambda row: row["margin"])["descriptors"]
    assert f"toy: {best} descriptors give the larger margin" in told
    assert abs(rows[0]["matching"] - rows[1]["matching"]) > 1e-3


@pytest.mark.parametrize("trained_on", ["raw", "projected"])
def test_the_way_that_a_model_knows_wins(folder, toy, monkeypatch, trained_on):
    class Fake:
        """Descriptors of the scene in one way, noise in the other."""

        def __init__(self, name, *, device, descriptors):
            self.known = descriptors == trained_on

        def __call__(self, path):
            seed = int(path.parent.name[-1]) if self.known else hash((str(path), 1)) % 1000
            values = torch.randn(30, 384, generator=torch.Generator().manual_seed(seed))
            return ImageFeatures(LocalFeatures.from_descriptors(values), None)

    monkeypatch.setattr("ames.pipelines.check_preset.Extractor", Fake)
    rows, told = check_preset("toy", folder)
    assert told.endswith(f"extract with --descriptors {trained_on}")
    known = next(row for row in rows if row["descriptors"] == trained_on)
    assert known["ordered %"] == 100
    assert known["margin"] > 10


def test_the_table_of_models(capsys):
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == registry.list_models()
    assert next(line for line in lines if line.startswith("dinov2_ames_dist")).split()[-4:] == [
        "0.1",
        "downloaded",
        "not",
        "stated",
    ]
