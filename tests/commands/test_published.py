"""The paper's commands, unchanged, on small data of the published shapes, and the released code's figures."""

import json
import os
import shutil

import h5py
import numpy as np
import pytest
import torch

from ames.datasets.ground_truth import GroundTruth, save_ground_truth
from ames.datasets.layout import DatasetFolder
from ames.datasets.lists import write_names
from ames.descriptors.local import DescriptorFile, read_globals, write_globals
from ames.global_search.exact import search
from ames.global_search.shortlist import Shortlist
from ames.models.ames import AMES
from ames.models.checkpoints import load_model
from ames.weights.files import read_weights
from golden import data_root, rebuild
from helpers import photos
from helpers.commands import ROOT, refused, run_process, run_script

EVALUATE = (
    "--multirun descriptors=dinov2 data_root=data model_path=dinov2_ames.pt model.binarized=False "
    "dataset@test_dataset=roxford test_dataset.query_desc_num=600 test_dataset.db_desc_num=600 "
    "test_dataset.batch_size=300 test_dataset.lamb=[0.55] test_dataset.temp=[0.3] "
    "test_dataset.num_rerank=[1600]"
)
TRAIN = "--multirun desc_name=dinov2 data_root=${PWD}/data"
QUERIES, GALLERY = 2, 1600


def published_model(path, seed=0, **arguments):
    """A checkpoint as the published ones: weights, no word of their structure."""
    torch.manual_seed(seed)
    model = AMES(local_dim=768, **arguments)
    torch.save({"state": model.state_dict(), "optim": {}, "epoch": 14}, path)


def roxford(folder, rng):
    """Two queries and 1,600 gallery images of four descriptors each."""
    truth = [{"easy": [1, 2], "hard": [3], "junk": [4]}, {"easy": [7], "hard": [8, 9], "junk": []}]
    truth = [{key: np.array(value, np.int64) for key, value in query.items()} for query in truth]
    gallery, queries = ([f"{kind}{i}" for i in range(n)] for kind, n in (("g", GALLERY), ("q", QUERIES)))
    save_ground_truth(folder.ground_truth, GroundTruth(truth, gallery, queries))
    for split, n in (("query", QUERIES), ("gallery", GALLERY)):
        x = rng.standard_normal((n, 4, 768), dtype=np.float32)
        data_root.write_local(folder.local(split), x, rng, 1, padded=False)
    vectors = rng.standard_normal((GALLERY + QUERIES, 8)).astype(np.float32)
    search(vectors[:QUERIES], vectors[QUERIES:]).save(folder.shortlist)


def gldv2(folder, rng):
    """Three landmarks of six images with twelve descriptors each."""
    folder.path.mkdir(parents=True)
    labels = np.repeat(np.arange(3), 6)
    lines = [f"a/{i}.jpg,{label},800,600" for i, label in enumerate(labels)]
    folder.image_list().write_text("\n".join(lines))
    x = rng.standard_normal((18, 12, 768), dtype=np.float32)
    data_root.write_local(folder.local(), x, rng, 1, padded=False)
    vectors = 3 + rng.standard_normal((18, 8)).astype(np.float32)  # all similar: every anchor is valid
    write_globals(folder.vectors(), vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the repository with the files of the paper's users in it."""
    root = tmp_path_factory.mktemp("clone")
    for name in ("conf", "extract", "scripts", "src"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "hubconf.py", root)
    rng = np.random.default_rng(0)
    roxford(DatasetFolder(root / "data" / "roxford5k", "dinov2"), rng)
    gldv2(DatasetFolder(root / "data" / "gldv2", "dinov2"), rng)
    published_model(root / "dinov2_ames.pt")
    return root


@pytest.fixture
def elsewhere(clone, tmp_path):
    """Another folder to call from, with the same data in it."""
    try:
        os.symlink(clone / "data", tmp_path / "data", target_is_directory=True)
    except OSError:  # Windows without the right to
        shutil.copytree(clone / "data", tmp_path / "data")
    shutil.copy(clone / "dinov2_ames.pt", tmp_path)
    return tmp_path


def only(folder, pattern):
    found = list(folder.glob(pattern))
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("away", [False, True])
def test_the_evaluation_command(clone, elsewhere, away):
    here = elsewhere if away else clone
    command = run_script if away else run_process
    done = command(clone / "src" / "evaluate.py", *EVALUATE.split(), cwd=here)
    assert done.returncode == 0, done.stderr
    path = only(here, "runs/evaluate/*/*/0/results.json")
    results = json.loads(path.read_text())
    assert (results["dataset"], results["model"]) == ("roxford5k", "dinov2_ames.pt")
    assert (results["query_desc_num"], results["db_desc_num"], results["chosen"]) == (600, 600, None)
    row = results["rows"][0]
    assert (row["num_rerank"], row["lamb"], row["temp"]) == (1600, 0.55, 0.3)
    assert {"E_map", "M_map", "H_map"} <= set(row)
    table = (path.parents[1] / "table.txt").read_text()
    assert done.stdout.endswith(table)
    assert "nn_dinov2" in table
    assert "0.55" in table


@pytest.fixture(scope="module")
def shortlisted(clone):
    """The shortlist of the training set, made by the paper's command."""
    words = f"--dataset gldv2 --desc_name dinov2 --data_root {clone}/data --shortlist_size 1600".split()
    assert run_script(clone / "extract" / "prepare_topk_global.py", *words, cwd=clone).returncode == 0
    return Shortlist.load(clone / "data" / "gldv2" / "nn_dinov2.npz")


def test_the_training_command(clone, shortlisted):
    assert shortlisted.ids.shape == (18, 18)
    words = TRAIN.replace("${PWD}", str(clone)).split()
    done = run_script(
        clone / "src" / "train.py", *words, "model.binarized=False", "train_dataset.batch_size=300", cwd=clone
    )
    assert done.returncode == 0, done.stderr
    weights = read_weights(only(clone, "runs/train/*/*/0/model.pt"))
    assert weights.about["model"]["binarized"] is False
    assert len(weights.state) == 97


def test_the_distillation_command_from_another_folder(clone, shortlisted, elsewhere):
    words = TRAIN.replace("${PWD}", str(elsewhere)).split()
    words += ["model.binarized=True", "train_dataset.batch_size=300", "teacher=dinov2_ames.pt"]
    done = run_process(clone / "src" / "train.py", *words, cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    model = load_model(only(elsewhere, "runs/train/*/*/0/model.pt"))
    assert model.binarized
    assert model.local_dim == 768


# ---- extraction -----------------------------------------------------------------------------------


@pytest.fixture
def album(tmp_path):
    names = [f"{i}.png" for i in range(3)]
    for i, name in enumerate(names):
        photos.save(tmp_path / "photos" / name, photos.scene(i))
    write_names(tmp_path / "photos" / "test_gallery.txt", names)
    return tmp_path


EXTRACT = (
    "--dataset mine --save_path data --data_path photos --split _gallery --file_name test_gallery.txt "
    "--pretrained"
)


@pytest.mark.parametrize(
    ("kinds", "written"),
    [
        ("local", ["rootsift_gallery_local.hdf5"]),
        ("global", ["rootsift_gallery_global.hdf5"]),
        ("local,global", ["rootsift_gallery_global.hdf5", "rootsift_gallery_local.hdf5"]),
    ],
)
def test_the_extraction_command(album, kinds, written):
    words = [*EXTRACT.split(), "--backbone", "rootsift", "--desc_type", kinds]
    assert run_script(ROOT / "extract" / "extract_descriptors.py", *words, cwd=album).returncode == 0
    folder = DatasetFolder(album / "data" / "mine", "rootsift")
    assert sorted(path.name for path in folder.path.iterdir()) == written
    if "local" in kinds:
        assert len(DescriptorFile(folder.local("gallery"))) == 3
    if "global" in kinds:
        assert len(read_globals(folder.vectors("gallery"))) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--backbone delf", "--backbone delf: not there yet; there are: rootsift, dinov2"),
        ("--backbone rootsift --desc_type all", "--desc_type 'all': give local, global or local,global"),
        ("--backbone rootsift --desc_num 0", "desc_num 0 is not a whole number of 1 or more"),
        ("--desc_type local", "the following arguments are required: --backbone"),
    ],
)
def test_what_extraction_refuses(album, words, message):
    script = ROOT / "extract" / "extract_descriptors.py"
    assert message in refused(script, *EXTRACT.split(), *words.split(), cwd=album)
    assert not (album / "data").exists()


def parts(folder, name, sizes, *, width=8, dtype="float16", first=0):
    """Part files of random descriptors; their content in one array."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number, n in enumerate(sizes, start=first):
        made.append(rng.standard_normal((n, 3, 5 + width)).astype(dtype))
        with h5py.File(folder / f"{name}_{number}.hdf5", "w") as file:
            file.create_dataset("features", data=made[-1])
    return np.concatenate(made)


def test_merging_works_from_any_folder_and_after_a_move(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "data" / "mine"
    train = parts(folder, "dinov2_local", (4, 3, 11), first=1)
    gallery = parts(folder, "dinov2_gallery_local", (2, 2))
    words = ["--dataset", "mine", "--desc_name", "dinov2", "--data_root", "data"]
    script = ROOT / "extract" / "merge_hdf5.py"
    assert run_script(script, *words, cwd=tmp_path).returncode == 0
    assert run_script(script, *words, cwd=tmp_path).returncode == 0  # the merged file is made again
    assert "dinov2_local.hdf5: 18 images of 3 parts" in capsys.readouterr().out
    moved = folder.rename(tmp_path / "moved")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    for split, wanted in (("", train), ("gallery", gallery)):
        with h5py.File(DatasetFolder(moved, "dinov2").local(split)) as file:
            assert file["features"].is_virtual
            np.testing.assert_array_equal(file["features"][:], wanted)
    assert len(DescriptorFile(moved / "dinov2_local.hdf5")) == 18


@pytest.mark.parametrize(
    ("spoil", "words", "message"),
    [
        (
            lambda f: (f / "dinov2_local_1.hdf5").unlink(),
            [],
            "part 1 is missing, the last one is dinov2_local_2",
        ),
        (lambda f: (f / "dinov2_local_2.hdf5").unlink(), ["--parts", "3"], "2 parts are there, not 3"),
        (lambda f: [p.unlink() for p in f.iterdir()], [], "no parts dinov2_local_<i>.hdf5 of any split"),
        (
            lambda f: parts(f, "dinov2_local", (2,), width=4, first=2),
            [],
            "dinov2_local_2.hdf5: float16 [3, 9]",
        ),
        (lambda f: (f / "dinov2_local_1.hdf5").write_text("text"), [], "not a readable HDF5 file"),
        (
            lambda f: shutil.copy(f / "dinov2_local_1.hdf5", f / "dinov2_local.hdf5"),
            [],
            "move it away to merge",
        ),
        (lambda f: shutil.rmtree(f), [], "mine: no such folder"),
    ],
)
def test_what_merging_refuses(tmp_path, spoil, words, message):
    folder = tmp_path / "mine"
    parts(folder, "dinov2_local", (2, 2, 2))
    spoil(folder)
    before = sorted(tmp_path.rglob("*"))
    words = ["--dataset", "mine", "--desc_name", "dinov2", "--data_root", str(tmp_path), *words]
    assert message in refused(ROOT / "extract" / "merge_hdf5.py", *words, cwd=tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


# ---- the released code's figures through the command line -------------------------------------------


@pytest.mark.parametrize("case", rebuild.cases("evaluate.json"), ids=lambda case: case["dataset"])
def test_the_released_code_s_figures(case, tmp_path):
    data_root.make(tmp_path / "data", case, pickles=True, layout=case["layout"])
    arguments = rebuild.arguments(case["model"])
    state = rebuild.state(rebuild.shapes(**arguments), case["model"]["seed"])
    torch.save({"state": state, "optim": {}, "epoch": 0}, tmp_path / "golden.pt")
    grid = {key: sorted({row[key] for row in case["rows"]}) for key in ("num_rerank", "lamb", "temp")}
    words = [f"test_dataset.{key}=[{','.join(map(str, values))}]" for key, values in grid.items()]
    words += [f"model.{key}={value}" for key, value in arguments.items() if key != "local_dim"]
    words += [f"test_dataset.{key}={case[key]}" for key in ("query_desc_num", "db_desc_num")]
    dataset = {"roxford5k": "roxford", "rparis6k": "rparis"}[case["dataset"]]
    words += [
        f"dataset@test_dataset={dataset}",
        "test_dataset.batch_size=500",
        "data_root=data",
        "num_workers=2",
    ]
    words += ["model_path=golden.pt", "descriptors=dinov2", f"dim_local_features={arguments['local_dim']}"]
    script = ROOT / "src" / "evaluate.py"
    assert run_script(script, *words, "hydra.run.dir=run", "cpu=true", cwd=tmp_path).returncode == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    found = {(row["num_rerank"], row["lamb"], row["temp"]): row for row in results["rows"]}
    for row in case["rows"]:
        mine = found[row["num_rerank"], row["lamb"], row["temp"]]
        assert mine["M_map"] == pytest.approx(row["M_map"], abs=0.02)
        assert mine["H_map"] == pytest.approx(row["H_map"], abs=0.02)
    for key in ("E_map", "M_map", "H_map"):
        assert results["initial"][key] == pytest.approx(case["initial_ranking"][key], abs=0.02)
