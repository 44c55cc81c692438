"""Parts of an extraction by machines and processes are the whole; codes in place of descriptors."""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import ames.extraction.factory
from ames.cli.main import main
from ames.datasets.finding import find_images
from ames.descriptors.local import DescriptorFile, read_globals
from ames.descriptors.merge import merge_parts
from ames.descriptors.plan import OutputPlan, Shard
from ames.descriptors.provenance import Provenance
from ames.errors import AmesError
from ames.extraction.shards import shard_of_this_process
from ames.models.ames import AMES
from ames.models.checkpoints import save_weights
from helpers import photos
from helpers.brightness import Brightness
from helpers.commands import ROOT, refused, run_script

COUNT = 10
_INTERRUPTIBLE = (  # a background job's children ignore the signal, which a terminal's do not
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL);os.execv(sys.argv[1], sys.argv[1:])"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for number in range(COUNT):
        photos.save(root / f"{number:02}.png", photos.scene(number, size=((60, 80), (80, 60))[number % 2]))
    (root / "07.png").write_bytes(b"text")
    return root


@pytest.fixture(autouse=True)
def network(monkeypatch):
    """`--backbone brightness`."""
    made = ames.extraction.factory.make_backbone

    def make(name, **options):
        return Brightness() if name == "brightness" else made(name, **options)

    monkeypatch.setattr(ames.extraction.factory, "make_backbone", make)


def ames_extract(root, out, *words):
    given = ["extract", "--images", root, "-o", out, "--backbone", "brightness", "--desc-num", 6, *words]
    return main([str(word) for word in [*given, "--workers", 2]])


def features(path):
    with h5py.File(path) as file:
        return file["features"][:], list(file["names"].asstr()[:])


def same(first, second):
    for kind in ("local", "global"):
        a, b = (features(out.with_name(f"{out.name}_{kind}.hdf5")) for out in (first, second))
        np.testing.assert_array_equal(a[0], b[0])
        assert a[1] == b[1]
        made = [DescriptorFile(x.with_name(f"{x.name}_local.hdf5")).provenance for x in (first, second)]
        assert made[0] == made[1]


@pytest.fixture
def whole(root, tmp_path):
    assert ames_extract(root, tmp_path / "whole") == 0
    return tmp_path / "whole"


def test_parts_are_merged_by_the_last_one(root, whole, tmp_path, monkeypatch, capsys):
    out = tmp_path / "parts" / "x"
    for part in (3, 1, 4):
        assert ames_extract(root, out, "--shard", f"{part}/4") == 0
    assert not (tmp_path / "parts" / "x_local.hdf5").exists()
    assert ames_extract(root, out, "--shard", "2/4") == 0
    assert "x_local.hdf5: merged from 4 parts" in capsys.readouterr().out
    same(out, whole)
    assert Path(f"{out}.errors.csv").read_text().splitlines() == [
        "path,reason",
        "07.png,not an image that OpenCV can decode",
    ]
    moved = shutil.move(tmp_path / "parts", tmp_path / "elsewhere")  # relative names: from any folder
    monkeypatch.chdir("/")
    same(Path(moved) / "x", whole)
    assert ames_extract(root, Path(moved) / "x", "--shard", "2/4") == 0  # nothing to do
    assert "exists already" in capsys.readouterr().out


def test_a_part_without_a_readable_image_is_a_part(root, whole, tmp_path):
    for part in range(1, COUNT + 1):
        assert ames_extract(root, tmp_path / "x", "--shard", f"{part}/{COUNT}") == 0
    same(tmp_path / "x", whole)


def test_parts_of_another_extraction_are_not_merged(root, tmp_path, capsys):
    for part in (1, 2):
        assert ames_extract(root, tmp_path / "x", "--shard", f"{part}/2") == 0
    (tmp_path / "x_local.hdf5").unlink()
    more = ["--shard", "1/2", "--long-side", 56]
    assert ames_extract(root, tmp_path / "x", *more) == 2
    assert "x_1_local.hdf5: exists but was made with different settings (long_side: there 112, now 56)" in (
        capsys.readouterr().err
    )
    assert ames_extract(root, tmp_path / "x", *more, "--overwrite") == 0
    assert not (tmp_path / "x_local.hdf5").exists()
    assert ames_extract(root, tmp_path / "x", "--shard", "2/2", "--long-side", 56, "--overwrite") == 0
    assert (tmp_path / "x_local.hdf5").exists()


def test_parts_of_another_number_of_parts_are_not_merged(root, whole, tmp_path, capsys):
    out = tmp_path / "data" / "mine" / "x"
    for part in (1, 2):
        assert ames_extract(root, out, "--shard", f"{part}/2") == 0
    capsys.readouterr()
    for part in (1, 3):
        assert ames_extract(root, out, "--shard", f"{part}/3", "--overwrite") == 0
    assert (
        "x: not merged yet, x_2_local.hdf5 was made with different settings (of other images)"
        in capsys.readouterr().out
    )
    assert not out.with_name("x_local.hdf5").exists()  # of two parts: it would show rows twice
    words = ["--dataset", "mine", "--desc_name", "x", "--data_root", "data"]
    message = refused(ROOT / "extract" / "merge_hdf5.py", *words, cwd=tmp_path)
    assert "its 3 parts hold 12 images, which are not those of their list" in message
    assert ames_extract(root, out, "--shard", "2/3", "--overwrite") == 0
    same(out, whole)


def test_a_merged_file_goes_with_the_first_of_its_parts_that_is_replaced(root, tmp_path, capsys):
    out = tmp_path / "x"
    for part in (1, 2):
        assert ames_extract(root, out, "--shard", f"{part}/2") == 0
    assert ames_extract(root, out, "--shard", "1/2", "--scales", 2, "--overwrite") == 0
    assert (
        "not merged yet, x_2_local.hdf5 was made with different settings (scales: there [1.0], now"
        in capsys.readouterr().out
    )
    assert not list(tmp_path.glob("x_local.hdf5"))
    assert not list(tmp_path.glob("x_global.hdf5"))


def test_parts_of_two_releases_are_merged(root, whole, tmp_path):
    out = tmp_path / "x"
    assert ames_extract(root, out, "--shard", "1/2") == 0
    for kind in ("local", "global"):
        with h5py.File(tmp_path / f"x_1_{kind}.hdf5", "r+") as file:
            file.attrs["provenance"] = json.dumps(json.loads(file.attrs["provenance"]) | {"ames": "0.0.1"})
    assert ames_extract(root, out, "--shard", "2/2") == 0
    assert DescriptorFile(tmp_path / "x_local.hdf5").provenance["backbone"] == "brightness"


def test_a_part_that_is_not_whole_is_not_left_out(root, tmp_path):
    folder = tmp_path / "data" / "mine"
    assert ames_extract(root, folder / "x", "--shard", "1/2") == 0
    words = ["--dataset", "mine", "--desc_name", "x", "--data_root", "data"]
    script = ROOT / "extract" / "merge_hdf5.py"
    assert "its 1 part holds 5 images" in refused(script, *words, cwd=tmp_path)
    (folder / "x_2_local.hdf5.partial").touch()
    message = refused(script, *words, cwd=tmp_path)
    assert "x_2_local.hdf5.partial: a part that is not whole" in message


def test_a_list_without_a_single_image_is_refused_in_parts_too(tmp_path, capsys):
    (tmp_path / "list.txt").write_text("a.jpg\nb.jpg\n")
    assert ames_extract(tmp_path / "list.txt", tmp_path / "x", "--shard", "1/2") == 2
    assert "none of the 2 listed images exists (first: a.jpg)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["list.txt"]


def test_a_name_that_a_virtual_file_cannot_hold(root, tmp_path, capsys):
    assert ames_extract(root, tmp_path / "a%b", "--shard", "1/2") == 2
    assert "HDF5 takes %b in a part's name for a number" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_parts_that_were_lists_of_their_own_are_merged(root, whole, tmp_path):
    names = sorted(path.name for path in root.iterdir())
    for number, part in enumerate((names[:4], names[4:])):
        (tmp_path / "list.txt").write_text("\n".join(part))
        given = ("--list", tmp_path / "list.txt")
        assert ames_extract(root, tmp_path / f"x_{number}", *given) == 0
    parts = [tmp_path / f"x_{number}_local.hdf5" for number in range(2)]
    merge_parts(tmp_path / "x_local.hdf5", parts)
    merged, expected = (DescriptorFile(x) for x in (tmp_path / "x_local.hdf5", Path(f"{whole}_local.hdf5")))
    assert merged.names == expected.names
    assert merged.provenance == {k: v for k, v in expected.provenance.items() if k != "list"}


def test_the_merged_name_is_taken(root, whole, capsys):
    assert ames_extract(root, whole, "--shard", "1/2") == 2
    assert "whole_local.hdf5: is there already and holds descriptors itself" in capsys.readouterr().err
    assert ames_extract(root, whole, "--shard", "1/2", "--overwrite") == 2  # not when all parts are made


def test_copies_in_place_of_references(root, whole, tmp_path):
    folder = tmp_path / "data" / "mine"
    for part in (1, 2, 3):
        assert ames_extract(root, folder / "x", "--shard", f"{part}/3") == 0
    words = ["--dataset", "mine", "--desc_name", "x", "--data_root", "data", "--copy"]
    assert run_script(ROOT / "extract" / "merge_hdf5.py", *words, cwd=tmp_path).returncode == 0
    for path in folder.glob("x_?_*"):
        path.unlink()
    with h5py.File(folder / "x_local.hdf5") as file:
        assert not file["features"].is_virtual
    same(folder / "x", whole)


def test_what_torchrun_starts(monkeypatch):
    assert shard_of_this_process(Shard.parse("2/3")) == Shard(2, 3, 1, None)
    for name, value in (("RANK", 5), ("WORLD_SIZE", 8), ("LOCAL_RANK", 1), ("LOCAL_WORLD_SIZE", 4)):
        monkeypatch.setenv(name, str(value))
    shard = shard_of_this_process(Shard.parse("2/3"))
    assert shard == Shard(14, 24, 4, 1)
    assert shard.device("cuda") == "cuda:1"
    assert shard.device("cpu") == "cpu"
    plan = OutputPlan(out=Path("a/x"), rows={}, names=[], provenance=Provenance(), shard=shard)
    assert plan.state == Path("a/x_14.partial.json")


@pytest.mark.parametrize(("world", "rank"), [("two", "0"), ("2", "2"), ("2", "-1")])
def test_ranks_that_are_none(root, tmp_path, monkeypatch, capsys, world, rank):
    monkeypatch.setenv("WORLD_SIZE", world)
    monkeypatch.setenv("RANK", rank)
    assert ames_extract(root, tmp_path / "x") == 2
    assert capsys.readouterr().err.startswith(f"ames extract: WORLD_SIZE={world}, RANK={rank}: ")
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_too_long(root, tmp_path, capsys):
    assert ames_extract(root, tmp_path / (250 * "x")) == 2
    assert capsys.readouterr().err.endswith(": cannot be written (File name too long)\n")


def test_two_processes_of_torchrun(root, tmp_path):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    words = [sys.executable, "-m", "ames", "extract", "--images", str(root), "-o", "x", "--desc-num", "9"]
    processes = [
        subprocess.Popen(
            [*words, "--workers", "0"],
            cwd=tmp_path,
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
        )
        for rank in (0, 1)
    ]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert DescriptorFile(tmp_path / "x_local.hdf5").names == find_images(root).names
    assert len(read_globals(tmp_path / "x_global.hdf5")) == COUNT


# ---- packed ---------------------------------------------------------------------------------------


@pytest.fixture
def binary(tmp_path):
    torch.manual_seed(0)
    arguments = {"model_dim": 16, "num_encoder_layers": 1, "dim_feedforward": 16}
    model = AMES(local_dim=4, binarized=True, **arguments)
    save_weights(tmp_path / "binary.safetensors", model)
    save_weights(tmp_path / "full.safetensors", AMES(local_dim=4, **arguments))
    save_weights(tmp_path / "other.safetensors", AMES(local_dim=8, binarized=True, **arguments))
    return model.eval()


def test_codes_in_place_of_descriptors(root, tmp_path, binary):
    model = tmp_path / "binary.safetensors"
    assert ames_extract(root, tmp_path / "plain", "--dtype", "float32") == 0
    assert ames_extract(root, tmp_path / "x", "--pack", model) == 0
    plain, packed = (DescriptorFile(tmp_path / f"{name}_local.hdf5") for name in ("plain", "x"))
    assert packed.packed
    assert packed.layout.kind == "compound by image"
    assert packed.image_bytes == 6 * (5 * 4 + 2)
    assert packed.provenance["packed_by"] == "binary.safetensors"
    a, b = (file.read(range(COUNT)) for file in (plain, packed))
    expected = binary.compress(a).descriptors * a.valid[..., None]
    assert torch.equal(b.descriptors, expected)
    for field in ("valid", "positions", "scale", "weight"):
        assert torch.equal(getattr(a, field), getattr(b, field)), field
    assert not b.valid[7].any()
    assert ames_extract(root, tmp_path / "parts", "--pack", model, "--shard", "1/2") == 0
    assert ames_extract(root, tmp_path / "parts", "--pack", model, "--shard", "2/2") == 0
    assert torch.equal(DescriptorFile(tmp_path / "parts_local.hdf5").read(range(COUNT)).descriptors, expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [("full", "which has no bits to pack"), ("other", "takes 8-d descriptors, these are 4-d")],
)
def test_models_that_cannot_pack(root, tmp_path, binary, capsys, name, message):
    assert ames_extract(root, tmp_path / "x", "--pack", tmp_path / f"{name}.safetensors") == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("x*"))


# ---- the command ----------------------------------------------------------------------------------


def test_sizes_are_said_before_the_start(root, tmp_path, capsys):
    assert ames_extract(root, tmp_path / "x") == 0
    each = 6 * (5 + 4) * 2 + 4 * 4
    assert f"x: 10 images of {each} bytes, {10 * each / 1000:.3g} kB in all" in capsys.readouterr().out


def test_a_quota_is_one_line(root, tmp_path, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        assert ames_extract(root, tmp_path / "x", "--desc-num", 5000) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "x_local.hdf5: cannot be written" in err
    assert not list(tmp_path.iterdir())


def test_interrupted_while_its_workers_start(root, tmp_path):
    words = [sys.executable, "-m", "ames", "extract", "--images", str(root), "-o", str(tmp_path / "x")]
    process = subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTIBLE, *words, "--workers", "2"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "backbone rootsift (AMES_BACKBONE)\n"
    assert "10 images of" in process.stdout.readline()
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    assert [x for x in process.communicate(timeout=60)[1].splitlines() if x] == ["ames extract: interrupted"]
    assert process.returncode == 130
    assert (tmp_path / "x.partial.json").exists()


def test_one_image(root, whole, tmp_path):
    assert ames_extract(root / "03.png", tmp_path / "x") == 0
    found, names = features(tmp_path / "x_local.hdf5")
    assert names == ["03.png"]
    assert np.array_equal(found[0], features(whole.with_name("whole_local.hdf5"))[0][3])


@pytest.mark.parametrize(
    ("out", "message"), [("there/", "there/ is a folder"), ("file/x", "file/x: file is a file, no folder")]
)
def test_an_out_that_no_file_can_be_made_of(root, tmp_path, capsys, monkeypatch, out, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    assert ames_extract(root, out) == 2
    assert message in capsys.readouterr().err
    assert sorted(x.name for x in tmp_path.rglob("*")) == ["file", "there"]


def test_float32(root, tmp_path):
    assert ames_extract(root, tmp_path / "x", "--dtype", "float32") == 0
    assert DescriptorFile(tmp_path / "x_local.hdf5").dtype == np.float32


def test_a_list_as_images_and_boxes_of_its_columns(root, tmp_path):
    album = shutil.copytree(root, tmp_path / "album")
    (album / "list.txt").write_text("03.png,a,10,20,50,60\n01.png,b,0,0,40,80\n")
    assert ames_extract(album / "list.txt", tmp_path / "x", "--boxes", 3, "--weight-by", "attention") == 0
    file = DescriptorFile(tmp_path / "x_local.hdf5")
    assert file.names == ["03.png", "01.png"]
    assert file.provenance["boxes"]
    positions = file.read([0]).positions[0]  # of 60 x 80: rows 20 ... 60 of 80, columns 10 ... 50 of 60
    assert positions[:, 0].min() >= 20 / 80
    assert positions[:, 0].max() <= 60 / 80
    assert positions[:, 1].max() <= 50 / 60


def test_boxes_of_a_ground_truth(root, tmp_path, capsys):
    names = ["03.png", "01.png"]
    (tmp_path / "list.txt").write_text("\n".join(names))
    query = {"bbx": [10, 20, 50, 60], "ok": [0]}
    truth = {"gnd": [query, query], "imlist": ["x"], "qimlist": ["03", "01"]}
    (tmp_path / "gnd_x.json").write_text(json.dumps(truth))
    words = ["--list", tmp_path / "list.txt", "--boxes", tmp_path / "gnd_x.json"]
    assert ames_extract(root, tmp_path / "x", *words) == 0
    (tmp_path / "gnd_x.json").write_text(json.dumps(truth | {"qimlist": ["01", "03"]}))
    assert ames_extract(root, tmp_path / "y", *words) == 2
    assert "the list: image 0 is '03.png', but '01' in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--shard", "0/4"], "'0/4' is none of 1/N ... N/N"),
        (["--shard", "5/4"], "'5/4' is none of"),
        (["--weight-by", "luck"], "weight_by 'luck' is none of detector, attention, norm, cls"),
        (["--weight-by", "detector"], "weights by detector need the detector's file"),
        (["--descriptors", "projected"], "projected descriptors need the detector's file"),
        (["--nms", "2"], "nms 2: give an odd number"),
        (["--scales", "0"], "scales 0: give some above 0"),
        (["--autocast", "int8"], "autocast 'int8' is none of"),
        (["--detector", "missing.pt"], "missing.pt: no such checkpoint"),
        (["--boxes", "missing.txt"], "missing.txt: no such file of boxes"),
        (["--desc-num", 10**18], "cannot be written"),
        (["--desc-num", 10**30], "cannot be written"),
        (["--boxes", "3"], "is a column of a list of images, but there is no list"),
        (
            ["--backbone", "rootsift", "--weight-by", "norm"],
            "backbone rootsift: is no network; leave weight-by out",
        ),
        (["--backbone", "rootsift", "--global", "gem"], "is no network; leave global out"),
    ],
)
def test_what_the_command_refuses(root, tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(SystemExit):  # argparse's way out
        assert ames_extract(root, tmp_path / "x", *words) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1, err
    assert message in err
    assert not list(tmp_path.iterdir())


def test_merging_by_copy_needs_no_parts_any_more(tmp_path):
    for number in (1, 2):
        with h5py.File(tmp_path / f"x_local_{number}.hdf5", "w") as file:
            file.create_dataset("features", data=np.full((3, 2, 8), number, np.float16))
    parts = sorted(tmp_path.glob("x_local_*"))
    assert merge_parts(tmp_path / "x_local.hdf5", parts, copy=True) == 6
    with h5py.File(tmp_path / "x_local.hdf5") as file:
        assert file["features"][:, 0, 0].tolist() == [1, 1, 1, 2, 2, 2]
    before = (tmp_path / "x_local.hdf5").stat().st_mtime_ns
    assert merge_parts(tmp_path / "x_local.hdf5", parts, copy=True) == 6  # it is there already
    assert (tmp_path / "x_local.hdf5").stat().st_mtime_ns == before
    with h5py.File(parts[1], "r+") as file:
        file["features"][2, 1, 7] = 3
    with pytest.raises(AmesError, match=r"x_local.hdf5: is there already and holds something else than"):
        merge_parts(tmp_path / "x_local.hdf5", parts, copy=True)
