"""Downloads: resumed, checked by size, whole or not under their name; the script by names."""

import numpy as np
import pytest

from ames.errors import AmesError
from ames.io import download as downloads
from ames.io.download import download, pinned
from ames.io.hashing import sha256
from ames.models.registry import released_files
from helpers.commands import ROOT, refused, run_script
from helpers.servers import serve

CONTENT = np.random.default_rng(0).bytes(10_000)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(downloads, "_WAIT", 0.0)
    monkeypatch.setattr(downloads, "_BLOCK", 1000)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def site(tmp_path):
    (tmp_path / "site" / "networks").mkdir(parents=True)
    (tmp_path / "site" / "networks" / "dinov2_ames.pt").write_bytes(CONTENT)
    return tmp_path / "site"


PLACE = "networks/dinov2_ames.pt"


def test_a_whole_file(site, tmp_path):
    seen = []
    with serve(site) as server:
        size = download(server.url + PLACE, tmp_path / "new" / "x.pt", progress=lambda *x: seen.append(x))
    assert size == len(CONTENT)
    assert (tmp_path / "new" / "x.pt").read_bytes() == CONTENT
    assert seen[-1] == (10_000, 10_000)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.pt"]


def test_a_server_that_breaks_off_is_asked_for_the_rest(site, tmp_path):
    with serve(site, break_after=3000) as server:
        download(server.url + PLACE, tmp_path / "x.pt")
        assert server.requests == [None, "bytes=3000-", "bytes=6000-", "bytes=9000-"]
    assert (tmp_path / "x.pt").read_bytes() == CONTENT


def test_a_later_call_goes_on(site, tmp_path):
    (tmp_path / "x.pt.part").write_bytes(CONTENT[:4000])
    with serve(site) as server:
        download(server.url + PLACE, tmp_path / "x.pt")
        assert server.requests == ["bytes=4000-"]
    assert (tmp_path / "x.pt").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_again(site, tmp_path):
    (tmp_path / "x.pt.part").write_bytes(b"?" * 4000)
    with serve(site, ranges=False) as server:
        download(server.url + PLACE, tmp_path / "x.pt")
    assert (tmp_path / "x.pt").read_bytes() == CONTENT


def test_a_server_without_ranges_that_breaks_off_is_given_up(site, tmp_path):
    with serve(site, ranges=False, break_after=3000) as server:
        with pytest.raises(AmesError, match="broke off at 3000 of 10000 bytes; call again to resume"):
            download(server.url + PLACE, tmp_path / "x.pt", tries=3)
        assert len(server.requests) == 4
    assert not (tmp_path / "x.pt").exists()


def test_a_part_of_a_longer_file_is_thrown_away(site, tmp_path):
    (tmp_path / "x.pt.part").write_bytes(CONTENT + b"more")
    with serve(site) as server:
        download(server.url + PLACE, tmp_path / "x.pt")
    assert (tmp_path / "x.pt").read_bytes() == CONTENT


def test_what_is_there_is_kept(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"mine")
    assert download("http://127.0.0.1:9/x.pt", tmp_path / "x.pt") == 4


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (500, 2)])
def test_answers_that_are_errors(site, tmp_path, status, asked):
    with serve(site, status=status) as server:
        with pytest.raises(AmesError, match=f"HTTP status {status}"):
            download(server.url + PLACE, tmp_path / "x.pt", tries=2)
        assert len(server.requests) == asked
    assert not list(tmp_path.glob("x.pt*"))


def test_no_server(tmp_path):
    with serve(tmp_path) as server:
        url = server.url
    with pytest.raises(AmesError, match="refused"):
        download(url + PLACE, tmp_path / "x.pt", tries=2)


def test_a_note_of_the_first_download(tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(CONTENT)
    assert pinned(path) == (sha256(path), True)
    assert pinned(path) == (sha256(path), False)
    path.write_bytes(b"other")
    with pytest.raises(AmesError, match="says of the first download"):
        pinned(path)


# ---- the script -----------------------------------------------------------------------------------

SCRIPT = ROOT / "scripts" / "download.py"


def test_the_script(site, tmp_path, capsys):
    with serve(site, break_after=6000) as server:
        words = ["dinov2_ames", "--dest", "mine", "--base", server.url]
        assert run_script(SCRIPT, *words, cwd=tmp_path).returncode == 0
        assert run_script(SCRIPT, *words, cwd=tmp_path).returncode == 0
        assert len(server.requests) == 2
    first, second = capsys.readouterr().out.splitlines()
    assert f"10000 bytes, SHA-256 {sha256(site / PLACE)} (noted)" in first
    assert "is there already" in second
    assert "(as noted)" in second
    assert (tmp_path / "mine" / "dinov2_ames.pt").read_bytes() == CONTENT


def test_weights_that_lie_beside_those_of_ames(tmp_path):
    (tmp_path / "site" / "elvis" / "networks").mkdir(parents=True)
    (tmp_path / "site" / "elvis" / "networks" / "dinov2_elvis_gld.pt").write_bytes(CONTENT)
    with serve(tmp_path / "site") as server:
        words = ["dinov2_elvis_gld", "--dest", "mine/weights", "--base", f"{server.url}ames"]
        assert run_script(SCRIPT, *words, cwd=tmp_path).returncode == 0
    assert (tmp_path / "mine" / "weights" / "dinov2_elvis_gld.pt").read_bytes() == CONTENT


def test_the_list(tmp_path, capsys):
    assert run_script(SCRIPT, "--list", cwd=tmp_path).returncode == 0
    listed = capsys.readouterr().out
    assert {line.split(":")[0] for line in listed.splitlines()} >= {*released_files(), "roxford5k", "gldv2"}
    assert "data/roxford5k/nn_superglobal.pkl" in listed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no name given; --list shows them"),
        (["dinov2_ams"], "file 'dinov2_ams' does not exist; did you mean dinov2_ames or dinov2_ames_dist"),
        (["--to", "x"], "unrecognized arguments: --to"),
    ],
)
def test_what_the_script_refuses(tmp_path, words, message):
    assert message in refused(SCRIPT, *words, cwd=tmp_path)


def test_the_script_s_data_lie_where_the_commands_look(tmp_path):
    (tmp_path / "site" / "data" / "gldv2").mkdir(parents=True)
    (tmp_path / "site" / "data" / "gldv2" / "train.txt").write_text("a,1")
    with serve(tmp_path / "site") as server:
        words = ["data/gldv2/train.txt", "--base", server.url]
        assert run_script(SCRIPT, *words, cwd=tmp_path).returncode == 0
    assert (tmp_path / "data" / "gldv2" / "train.txt").read_text() == "a,1"
