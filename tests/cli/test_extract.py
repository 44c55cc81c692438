"""src/extract.py: the options of `ames extract` as configuration, parts as jobs."""

import argparse

import cv2
import numpy as np
import pytest
import yaml

from ames.cli.extract import add_options
from ames.cli.main import main
from ames.descriptors.local import DescriptorFile, read_globals
from ames.extraction.config import ExtractionConfig
from helpers import photos
from helpers.commands import ROOT, refused, run_process, run_script

SCRIPT = ROOT / "src" / "extract.py"
WORDS = ["desc_num=12", "workers=0"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for number in range(5):
        photos.save(root / "some photos" / f"{number}.png", photos.scene(number))
    return root


def test_the_configuration_has_every_option_and_its_default():
    parser = argparse.ArgumentParser(add_help=False)
    add_options(parser)
    options = {max(x.option_strings, key=len)[2:].replace("-", "_"): x for x in parser._actions}
    keys = yaml.safe_load((ROOT / "conf" / "extract.yaml").read_text())
    del keys["hydra"]
    assert f"{keys.pop('shard')}/{keys.pop('shards')}" == options.pop("shard").default == "1/1"
    assert set(keys) == set(options)
    defaults = vars(ExtractionConfig())
    left_open = {"workers"}  # the machine's cores
    for key, option in options.items():
        if option.dest in defaults:
            assert option.default == argparse.SUPPRESS, key
            assert keys[key] == (None if key in left_open else defaults[option.dest]), key
        else:
            assert keys[key] == ("???" if option.required else option.default), key


def test_parts_as_jobs(root, tmp_path):
    words = [f"images={root / 'some photos'}", *WORDS, "hydra.sweep.dir=sweep", "hydra.run.dir=run"]
    words += ["shards=3", "shard=range(1,4)", "out=parts/x", "--multirun"]
    assert run_script(SCRIPT, *words, cwd=tmp_path).returncode == 0
    given = ["-o", str(tmp_path / "whole"), "--images", str(root / "some photos")]
    given += ["--desc-num", "12", "--workers", "0"]
    assert main(["extract", *given]) == 0
    parts, whole = (DescriptorFile(tmp_path / f"{x}_local.hdf5") for x in ("parts/x", "whole"))
    assert parts.names == whole.names == [f"{number}.png" for number in range(5)]
    assert parts.provenance == whole.provenance
    everything = [file.read(range(5), 12).descriptors.numpy() for file in (parts, whole)]
    np.testing.assert_array_equal(*everything)
    np.testing.assert_array_equal(
        *(read_globals(tmp_path / f"{x}_global.hdf5") for x in ("parts/x", "whole"))
    )


def test_a_folder_s_files_are_images_by_content(tmp_path, capsys):
    jpeg = cv2.imencode(".jpg", photos.scene(1, size=(200, 300)))[1].tobytes()
    (tmp_path / "p").mkdir()
    for name in ("a.jfif", "no ending", "c.dat"):
        (tmp_path / "p" / name).write_bytes(jpeg)
    (tmp_path / "p" / "damaged.jpg").write_bytes(jpeg[:3000] + jpeg[3400:])
    (tmp_path / "p" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50))
    for name in ("notes.pdf", "x.mov", ".hidden"):
        (tmp_path / "p" / name).write_text("none")
    words = ["--images", tmp_path / "p", "-o", tmp_path / "x", "--desc-num", 12, "--workers", 0]
    assert main(["extract", *map(str, words)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "backbone rootsift (AMES_BACKBONE)"
    assert lines[1] == "2 files are not readable images and were left out: notes.pdf, x.mov"
    assert lines[3] == f"3 of 5 images extracted to {tmp_path / 'x_local.hdf5'}"
    assert "2 unreadable, skipped: damaged.jpg (damaged: Corrupt JPEG data: " in lines[4]
    assert "phone.heic (HEIC" in lines[4]
    names = DescriptorFile(tmp_path / "x_local.hdf5").names
    assert names == ["a.jfif", "c.dat", "damaged.jpg", "no ending", "phone.heic"]
    for name in ("a.jfif", "no ending"):  # alone: an image, not a list of some
        words[1], words[3] = tmp_path / "p" / name, tmp_path / name.replace(" ", "")
        assert main(["extract", *map(str, words)]) == 0
        assert "1 of 1 images extracted" in capsys.readouterr().out


def test_without_configuration_in_a_process_of_its_own(root, tmp_path):
    done = run_process(SCRIPT, f"images={root}", "out=x", *WORDS, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "5 of 5 images extracted to x_local.hdf5" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["images=."], "extract: out is missing: give out=..."),
        (["out=x"], "extract: images is missing: give images=..."),
        (["images=.", "out=x", "shards=2", "shard=3"], "extract: shard '3/2' is none of 1/N ... N/N"),
        (["images=.", "out=x", "desc_num=few"], "extract: desc_num 'few' is not a whole number"),
        (["images=.", "out=x", "scales=[1,large]"], "extract: scales large: give some above 0"),
        (["images=.", "out=x", "nms=-1"], "extract: nms -1 is not a whole number"),
        (["images={root}", "out=x", "scales=2"], "rootsift: is no network; leave scales out"),
        (["images=.", "out=x", "overwrite=perhaps"], "overwrite 'perhaps' is neither true nor false"),
        (["images=.", "out=x", "coordinates=shares"], "'shares' is none of normalized, published"),
        (["images=.", "out=x", "autocast=bfloat16"], "autocast 'bfloat16' is none of bf16, fp16"),
        (["images={root}", "out=x", "weights=w.pt"], "rootsift has no weights to choose"),
        (["images=nowhere", "out=x"], "nowhere"),
        (["images=2024", "out=x"], "2024"),  # a number is a name too
        (["images=.", "out=x", "depth=2"], "depth"),
    ],
)
def test_wrong_words(root, tmp_path, words, message):
    words = [word.format(root=root) for word in words]
    assert message in refused(SCRIPT, *words, "hydra.run.dir=run", cwd=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"run"}
