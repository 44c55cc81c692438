"""The command line: what each command writes, and one line and status 2 for whatever is wrong."""

import os
import subprocess
import sys

import pytest
import torch

from ames import __version__
from ames.descriptors.local import DescriptorFile, read_globals
from ames.errors import unknown
from ames.global_search.shortlist import Shortlist
from ames.io.console import run_script, tell
from ames.models.ames import AMES
from ames.models.checkpoints import save_weights
from helpers import photos
from helpers.commands import ROOT
from helpers.commands import refused_by_ames as refused
from helpers.commands import run_ames as run


def album(root):
    """Two objects of two views, a distractor, and one picture without keypoints."""
    for number, name in enumerate(("a", "b")):
        for view in range(2):
            photos.save(root / name / f"{view}.png", photos.scene(number, view))
    photos.save(root / "distractors" / "0.png", photos.scene(9))
    photos.save(root / "distractors" / "plain.png", photos.plain())
    return root


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def save_model(path, *, about=None, **arguments):
    torch.manual_seed(0)
    sizes = {"local_dim": 128, "model_dim": 16, "num_encoder_layers": 1, "dim_feedforward": 16}
    save_weights(path, AMES(**sizes | arguments), provenance=about)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    full = save_model(folder / "full.safetensors")
    binary = save_model(folder / "binary.safetensors", binarized=True)
    return ["--model", full, "--binary-model", binary, "--workers", 0]


def test_the_version(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"ames {__version__}\n"


def test_as_a_module():
    done = subprocess.run([sys.executable, "-m", "ames", "extract"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("ames extract: the following arguments are required: --images")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required: COMMAND"),
        (["improve"], "invalid choice: 'improve'"),
        (
            ["extract", "--images", "x", "-o", "y", "--desc-num", "0"],
            "'0' is not a whole number of 1 or more",
        ),
        (["extract", "--images", "x", "-o", "y", "--desc-num", "-5"], "'-5' is not a whole number"),
        (["extract", "--images", "x", "-o", "y", "--desc-num", "many"], "'many' is not a whole number"),
        (
            ["extract", "--images", "x", "-o", "y", "--workers", "-1"],
            "'-1' is not a whole number of 0 or more",
        ),
        (
            ["extract", "--images", "x", "-o", "y", "--speed", "9"],
            "ames extract: unrecognized arguments: --speed 9; see ames extract",
        ),
        (["demo", "--num-rerank", "0"], "'0' is not a whole number of 1 or more"),
        (["demo", "--seed", "-1"], "'-1' is not a whole number"),
        (["landmarks", "x", "--split", "holiday"], "invalid choice: 'holiday'"),
        (["landmarks", "x", "--split", "val", "--easy", "-4"], "'-4' is not a whole number of 0 or more"),
        (["landmarks", "x", "--split", "val", "--distractors", "1.5"], "'1.5' is not a whole number"),
    ],
)
def test_wrong_words(capsys, monkeypatch, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    refused(capsys, message, *words)
    assert files_below(tmp_path) == []


# ---- extract --------------------------------------------------------------------------------------


def test_extract_a_folder(tmp_path, capsys):
    album(tmp_path / "photos")
    photos.broken(tmp_path / "photos")
    words = ["--images", tmp_path / "photos", "-o", tmp_path / "out" / "mine", "--desc-num", 20]
    assert run("extract", *words, "--workers", 0) == 0
    out = capsys.readouterr().out
    assert "6 of 10 images extracted to" in out
    assert "4 unreadable, skipped: cut.jpg (cut off: the end of the file is missing)" in out
    assert "1 without keypoints: distractors/plain.png" in out
    assert files_below(tmp_path / "out") == ["mine.errors.csv", "mine_global.hdf5", "mine_local.hdf5"]
    file = DescriptorFile(tmp_path / "out" / "mine_local.hdf5")
    assert (len(file), file.slots) == (10, 20)
    assert file.names[0] == "a/0.png"
    assert len(read_globals(tmp_path / "out" / "mine_global.hdf5")) == 10


def test_extract_a_list(tmp_path):
    album(tmp_path / "photos")
    (tmp_path / "list.txt").write_text("b/1.png,7\n\na/0.png,3,128,96\n")
    words = ["--images", tmp_path / "photos", "--list", tmp_path / "list.txt", "-o", tmp_path / "x"]
    assert run("extract", *words, "--workers", 0) == 0
    assert DescriptorFile(tmp_path / "x_local.hdf5").names == ["b/1.png", "a/0.png"]


def test_extract_of_what_is_not_there(tmp_path, capsys):
    out = ["-o", tmp_path / "out" / "x", "--workers", 0]
    refused(capsys, "missing: no such folder", "extract", "--images", tmp_path / "missing", *out)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "read.me").touch()
    refused(capsys, "none: no images", "extract", "--images", tmp_path / "none", *out)
    album(tmp_path / "photos")
    words = ["extract", "--images", tmp_path / "photos", *out]
    refused(capsys, "no such list", *words, "--list", tmp_path / "missing.txt")
    (tmp_path / "list.txt").write_text("x.jpg\n")
    refused(capsys, "none of the 1 listed images exists", *words, "--list", tmp_path / "list.txt")
    refused(capsys, "backbone 'dinov9' is none of: rootsift", *words, "--backbone", "dinov9")
    assert not (tmp_path / "out").exists()


def test_extract_of_bad_images_alone(tmp_path, capsys):
    photos.broken(tmp_path / "photos")
    words = ["--images", tmp_path / "photos", "-o", tmp_path / "out" / "x", "--workers", 0]
    refused(capsys, "none of the 4 images can be read (first: cut.jpg", "extract", *words)
    assert files_below(tmp_path / "out") == []


@pytest.mark.parametrize("out", [".", "file/x"])
def test_extract_to_where_no_file_can_be(tmp_path, capsys, monkeypatch, out):
    album(tmp_path / "photos")
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    before = files_below(tmp_path)
    refused(capsys, str(out), "extract", "--images", "photos", "-o", out, "--workers", 0)
    assert files_below(tmp_path) == before


# ---- landmarks, prepare ---------------------------------------------------------------------------


def lists(folder, images):
    """A prepared folder's lists: each view of `a` and `b` is a query."""
    album(images)
    folder.mkdir(exist_ok=True)
    (folder / "test_query.txt").write_text("a/0.png\nb/0.png\n")
    (folder / "test_gallery.txt").write_text("a/1.png\nb/1.png\ndistractors/0.png\ndistractors/plain.png")


def test_prepare_and_skip_what_is_done(tmp_path, capsys):
    lists(tmp_path / "set", tmp_path / "photos")
    words = ["prepare", tmp_path / "set", "--images", tmp_path / "photos", "--desc-num", 30, "--workers", 0]
    assert run(*words) == 0
    assert "1 without keypoints: distractors/plain.png" in capsys.readouterr().out
    shortlist = Shortlist.load(tmp_path / "set" / "nn_rootsift.npz", gallery_size=4)
    assert shortlist.ids[:, 0].tolist() == [0, 1]  # each query's other view
    assert shortlist.ids[:, -1].tolist() == [3, 3]  # the image that has no descriptors
    assert shortlist.meta["descriptors"] == "rootsift"
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "set").iterdir()}
    assert run(*words) == 0
    assert capsys.readouterr().out.count("exists already") == 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "set").iterdir()} == before


def test_prepare_does_not_mix_other_images_or_settings(tmp_path, capsys):
    lists(tmp_path / "set", tmp_path / "photos")
    words = ["prepare", tmp_path / "set", "--images", tmp_path / "photos", "--workers", 0]
    assert run(*words, "--desc-num", 30) == 0
    refused(capsys, "different settings (descriptors: there 30, now 31)", *words, "--desc-num", 31)
    (tmp_path / "set" / "test_query.txt").write_text("b/0.png\na/0.png\n")
    refused(
        capsys,
        "rootsift_query_local.hdf5: exists but was made with different settings (of other images)",
        *words,
        "--desc-num",
        30,
    )
    # The descriptors made again, the shortlist of the old order is noticed too.
    for path in (tmp_path / "set").glob("*_query_*.hdf5"):
        path.unlink()
    refused(capsys, "nn_rootsift.npz: made from other descriptors; move it away", *words, "--desc-num", 30)
    assert run(*words, "--desc-num", 30, "--overwrite") == 0
    shortlist = Shortlist.load(tmp_path / "set" / "nn_rootsift.npz", gallery_size=4)
    assert shortlist.ids[:, 0].tolist() == [1, 0]


def test_prepare_without_lists(tmp_path, capsys):
    refused(capsys, "test_query.txt: no such list of images", "prepare", tmp_path, "--workers", 0)
    refused(capsys, "no such list", "prepare", tmp_path / "missing", "--workers", 0)
    assert files_below(tmp_path) == []


def test_landmarks(tmp_path, capsys):
    words = ["landmarks", tmp_path / "set", "--split", "train", "--landmarks", 1, "--distractors", 0]
    assert run(*words, "--easy", 1, "--hard", 1, "--workers", 0) == 0
    assert len((tmp_path / "set" / "train.txt").read_text().splitlines()) == 2
    assert "is there already" not in capsys.readouterr().out
    assert run(*words, "--easy", 1, "--hard", 1, "--workers", 0) == 0
    assert "set: exists already, with the same parameters" in capsys.readouterr().out
    refused(capsys, "holds a dataset of other parameters", *words, "--easy", 2, "--hard", 1, "--workers", 0)
    (tmp_path / "file").touch()
    words[1] = tmp_path / "file" / "set"
    refused(capsys, "file/set: cannot be written", *words, "--workers", 0)


# ---- demo -----------------------------------------------------------------------------------------


def test_demo_on_photos(tmp_path, capsys, models):
    album(tmp_path / "photos")
    (tmp_path / "photos" / "a" / "bad.jpg").touch()
    assert run("demo", "--images", tmp_path / "photos", "-o", tmp_path / "out", *models) == 0
    out = capsys.readouterr().out
    assert "perfect re-ranking" in out
    assert "1 image could not be read and was left out: a/bad.jpg: empty file" in out
    assert "1 without keypoints: distractors/plain.png" in out
    assert (tmp_path / "out" / "report.html").is_file()


def test_demo_on_what_is_no_collection(tmp_path, capsys, models):
    words = ["demo", "-o", tmp_path / "out", *models, "--images"]
    refused(capsys, "missing: no such folder", *words, tmp_path / "missing")
    (tmp_path / "none").mkdir()
    refused(capsys, "no images", *words, tmp_path / "none")
    photos.broken(tmp_path / "bad" / "a")
    refused(capsys, "none of the 4 images can be read", *words, tmp_path / "bad")
    photos.save(tmp_path / "flat" / "0.png", photos.scene(0))
    refused(capsys, "no sub-folder with two or more readable images", *words, tmp_path / "flat")
    assert not (tmp_path / "out").exists()


def test_demo_writes_to_no_file(tmp_path, capsys, models):
    album(tmp_path / "photos")
    (tmp_path / "out").write_text("mine")
    words = ["demo", *models, "-o", tmp_path / "out"]
    refused(capsys, "out: is not a folder", *words, "--images", tmp_path / "photos")
    refused(capsys, "out: is not a folder", *words)
    refused(capsys, "cannot be written", *words[:-1], tmp_path / "out" / "x", "--landmarks", 1)
    assert (tmp_path / "out").read_text() == "mine"


def test_demo_with_a_device_that_is_not_there(tmp_path, capsys, models):
    for device in ("toaster", "cuda:99"):
        refused(capsys, f"--device {device}: cannot be used", "demo", "--device", device, *models)


def garbage(path):
    path.write_bytes(b"\x00\x01 not a checkpoint" * 20)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "missing.pt", "missing.pt: no such checkpoint"),
        (lambda folder: folder, "no such checkpoint"),
        (lambda folder: garbage(folder / "x.safetensors"), "x.safetensors: not a readable"),
        (lambda folder: garbage(folder / "x.pt"), "x.pt: "),
        (lambda folder: save_model(folder / "x.safetensors", local_dim=64), "64-d descriptors; expected"),
        (
            lambda folder: save_model(folder / "x.safetensors", binarized=True),
            "expected a full-precision one",
        ),
        (
            lambda folder: save_model(folder / "x.safetensors", about={"backbone": "cvnet"}),
            "trained on cvnet descriptors, not on rootsift",
        ),
    ],
    ids=["missing", "folder", "garbage safetensors", "garbage pt", "width", "binary", "backbone"],
)
def test_demo_with_a_checkpoint_that_does_not_fit(tmp_path, capsys, models, make, message):
    album(tmp_path / "photos")
    words = ["demo", "--images", tmp_path / "photos", "-o", tmp_path / "out", *models]
    words[words.index("--model") + 1] = make(tmp_path)
    refused(capsys, message, *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("photos", "photos: is among the photos of "),
        ("photos/a/new", "new: is among the photos of "),
        (".", "photos: is among the photos of "),  # the demo's folder of that name
        ("others", "others: holds images, such as b/1.png; give another --out"),
    ],
)
def test_demo_writes_nothing_among_photos(tmp_path, capsys, place, message):
    album(tmp_path / "photos")
    photos.save(tmp_path / "others" / "b" / "1.png", photos.scene(1))
    before = files_below(tmp_path)
    refused(capsys, message, "demo", "--images", tmp_path / "photos", "-o", tmp_path / place)
    assert files_below(tmp_path) == before
    if place == "others":
        refused(capsys, message, "demo", "-o", tmp_path / place)
        assert files_below(tmp_path) == before


COMMANDS = [
    ["-m", "ames", "models"],
    ["-m", "ames", "--help"],
    ["-m", "ames", "evaluate", "--cfg", "job"],
    [ROOT / "src/train.py", "--cfg", "job"],
    [ROOT / "scripts/download.py", "--list"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(map(str, words[-3:])))
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_nobody_reads_is_no_error(tmp_path, words, unbuffered):
    reading, writing = os.pipe()
    os.close(reading)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=environment, cwd=tmp_path)
    os.close(writing)
    assert done.stderr == b""
    # argparse passes over what it cannot write.
    assert done.returncode == 141 or (words[-1] == "--help" and done.returncode == 0)


def test_a_name_that_does_not_exist_is_one_sentence_after_another():
    near = unknown("model", "amess", ["ames", "ames_dist"], hint="a file is given by its path")
    assert near == "model 'amess' does not exist; did you mean ames or ames_dist? A file is given by its path"
    far = unknown("model", "x", ["ames", "ames_dist"], hint="a file is given by its path")
    assert far == "model 'x' does not exist; choose one of ames, ames_dist; a file is given by its path"


def test_an_error_has_the_name_that_the_command_was_called_by(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)
    commands = (["train", "data_root=x"], ["evaluate", "data_root"], ["train-detector", "experiment=x"])
    for words in (*commands, ["train-embedder", "data_root=x"]):
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # the command sets it, and this puts it back
        refused(capsys, f"ames {words[0]}: ", *words, f"hydra.run.dir={tmp_path}")


def test_a_pipe_that_breaks_elsewhere_is_a_defect(monkeypatch):
    def broken():
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_script("x", broken)


def test_what_the_system_says_of_a_file_is_a_line(tmp_path, capsys):
    """A name that is too long, wherever it is met first; what names no file is a defect."""
    name = "x" * 5000
    for words in (["inspect", name], ["report", name], ["extract", "--images", name, "-o", tmp_path / "x"]):
        refused(capsys, "File name too long", *words)
    assert tell("ames x", OSError("no file's")) is None
    assert tell("ames x", ValueError("a defect")) is None
