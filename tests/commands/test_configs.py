"""Configuration: every file of conf/ composes, and the two Hydra commands run on small generated data."""

import json
import shlex
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ames.backbones.detector import SpatialAttention, load_detector, save_detector
from ames.cli.main import main
from ames.config import evaluation as door
from ames.config.benchmarks import benchmark
from ames.config.launch import GROUPS, arranged, read_override
from ames.config.models import build_model
from ames.config.values import several
from ames.datasets.landmarks.build import Parameters, make_landmarks
from ames.descriptors.local import DescriptorFile
from ames.evaluation.protocols import GLDV2, PUBLIC, REVISITED, Protocol
from ames.global_search.shortlist import Shortlist
from ames.models.ames import AMES
from ames.models.base import Similarity
from ames.models.checkpoints import load_model, save_weights
from ames.models.registry import MODELS, SHIPPED, model_class
from ames.training.logging.journal import read_journal
from ames.weights import shipped_path
from ames.weights.files import read_weights
from helpers.commands import ROOT, refused, run_process, run_script

CONF = ROOT / "conf"
SMALL = ["model.model_dim=16", "model.num_encoder_layers=1", "model.dim_feedforward=16"]


def names(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def trains_an_embedder(experiment):
    """Those are in test_train_embedder.py."""
    return experiment.startswith("products-")


def composed(name, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, [*overrides])


# ---- the tree -------------------------------------------------------------------------------------


def test_there_is_a_test_for_every_group():
    assert {path.name for path in CONF.iterdir() if path.is_dir()} == {
        "bench",  # tests/bench/test_suite.py; this and the next three are no groups of Hydra's
        "benchmark",  # test_benchmark_files.py
        "cascades",  # tests/chains/test_cascade.py
        "classes",  # test_class_protocols.py
        "dataset",
        "descriptors",
        "experiment",
        "fusion",  # this and the next but one: test_train_embedder.py
        "method",
        "model",
        "network",
    }
    # The last one is part of those that train.
    assert names(".") == ["detector", "embedder", "extract", "test", "train", "training"]


@pytest.mark.parametrize("model", names("model"))
@pytest.mark.parametrize("descriptors", names("descriptors"))
@pytest.mark.parametrize("command", ["test", "train"])
def test_models_and_descriptors_compose_and_build(command, descriptors, model):
    config = composed(command, f"model={model}", f"descriptors={descriptors}", "data_root=x")
    OmegaConf.to_container(config, resolve=True)
    built = build_model(config)
    assert isinstance(built, Similarity)
    assert built.local_dim == config.dim_local_features


@pytest.mark.parametrize("name", [name for name, row in MODELS.items() if row.weights == SHIPPED])
def test_the_size_of_the_shipped_models_is_that_of_their_configuration_and_files(name):
    row, binarized = MODELS[name], name.endswith(("_dist", "_binary"))
    model = {"AMES": "rootsift", "ELViS": "elvis"}[row.kind]
    words = [f"model={model}", f"descriptors={row.backbone}", "data_root=x", f"model.binarized={binarized}"]
    built = build_model(composed("train", *words)).arguments
    assert built == model_class(row.kind)(**row.arguments).arguments
    again = {"init": "matching"} if row.kind == "AMES" else {}
    assert load_model(shipped_path(name)).arguments | again == built


FOLDERS = {"roxford": "roxford5k", "rparis": "rparis6k", "gldv2-val": "gldv2-test"}
FOLDERS |= {f"{name}+1m": f"{FOLDERS[name]}+1m" for name in ("roxford", "rparis")}
OWN = Protocol("own", positives=("ok",), junk=("junk",))
PROTOCOLS = {"gldv2-test": GLDV2, "gldv2-val": (PUBLIC,), "own": (OWN,)}
OF_BENCHMARKS = (
    "instre",
    "instre-s1",
    "instre-s2",
    "product1m",
    "sop-1k",
    "rp2k",
    "met",
    "ilias",
    "mini-ilias",
)
PROTOCOLS |= {name: benchmark(name).protocols for name in OF_BENCHMARKS}


@pytest.mark.parametrize("dataset", names("dataset"))
def test_datasets_compose(dataset):
    key = "train" if dataset in ("gldv2", "landmarks-train") else "test"
    config = composed(key, f"dataset@{key}_dataset={dataset}")
    OmegaConf.to_container(config[f"{key}_dataset"], resolve=True)
    assert config[f"{key}_dataset"].desc_dir == FOLDERS.get(dataset, dataset)
    if key == "test":
        assert tuple(door.protocols(config.test_dataset)) == PROTOCOLS.get(dataset, REVISITED)


@pytest.mark.parametrize("experiment", [x for x in names("experiment") if not trains_an_embedder(x)])
def test_experiments_compose(experiment):
    command = "train" if "-train" in experiment else "test"
    config = composed(command, f"experiment={experiment}", "data_root=x")
    arguments = build_model(config).arguments
    asked = OmegaConf.to_container(config.model, resolve=True)
    assert {key: arguments[key] for key in asked.keys() - {"_target_"}} == {
        key: value for key, value in asked.items() if key != "_target_"
    }
    if "roxford" in experiment or "rparis" in experiment:
        name, dataset = experiment.removesuffix("-cls").split("-")
        assert config.model_path == f"{name}.pt"
        assert config.desc_name == name.split("_")[0]
        assert config.model.binarized == name.endswith("_dist")
        assert config.test_dataset.name == FOLDERS[dataset]


@pytest.mark.parametrize("command", ["test", "train"])
@pytest.mark.parametrize("key", ["desc_name", "descriptors"])
@pytest.mark.parametrize(("name", "width"), [("dinov2", 768), ("cvnet", 1024), ("rootsift", 128)])
def test_descriptors_as_a_group_and_as_a_plain_key(command, key, name, width):
    config = composed(command, f"{key}={name}")
    assert (config.desc_name, config.dim_local_features) == (name, width)


@pytest.mark.parametrize("dataset", ["gldv2", "landmarks-train"])
@pytest.mark.parametrize("words", [["descriptors=cvnet"], ["desc_name=cvnet"]])
def test_a_detector_s_training_composes(dataset, words):
    config = composed("detector", f"dataset@train_dataset={dataset}", *words, "data_root=x")
    OmegaConf.to_container(config, resolve=True)
    assert config.desc_name == "cvnet"
    assert config.train_dataset.name == dataset
    assert composed("detector", "desc_name=any").desc_name == "any"  # the width is that of its file


@pytest.mark.parametrize("command", ["detector", "embedder", "extract", "test", "train"])
def test_two_runs_of_one_second_have_their_own_folders(command):
    hydra = OmegaConf.load(CONF / f"{command}.yaml").hydra
    folders = [OmegaConf.to_container(hydra, resolve=False)[kind]["dir"] for kind in ("run", "sweep")]
    assert all("%S-%f" in folder for folder in folders)


TEST_KEYS = "name desc_dir test_gnd_file nn_file batch_size query_desc_num db_desc_num num_rerank lamb temp"
TRAIN_KEYS = "train_dataset teacher resume beta lr weight_decay epochs val_freq print_freq model_path"


def test_the_published_keys_are_there():
    common = {"data_root", "cpu", "model_path", "seed", "num_workers", "desc_name", "dim_local_features"}
    assert set(composed("test")) >= common | {"test_dataset"}
    assert set(composed("test").test_dataset) >= {*TEST_KEYS.split(), "pin_memory"}
    assert set(composed("train")) >= common | set(TRAIN_KEYS.split())


def test_the_defaults_are_the_paper_s_model():
    config = composed("train")
    assert (config.model.num_encoder_layers, config.model.dim_feedforward, config.epochs) == (5, 1024, 15)
    assert (config.lr, config.weight_decay, config.beta) == (2e-4, 5e-4, 10.0)


def test_a_single_value_is_a_list_of_one():
    config = composed("test", "test_dataset.num_rerank=7", "test_dataset.lamb=[0,0.5]")
    assert several(config.test_dataset, "num_rerank") == [7]
    assert several(config.test_dataset, "lamb") == [0, 0.5]


# ---- the commands ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """data_root with a tiny prepared test set and training set, and a model for each kind."""
    root = tmp_path_factory.mktemp("data")
    test = Parameters("test", landmarks=2, easy=2, hard=1, junk=1, distractors=4, size=(96, 128))
    make_landmarks(root / "landmarks-test", test, workers=0)
    train = Parameters("train", landmarks=3, easy=2, hard=2, junk=0, distractors=2, size=(96, 128))
    make_landmarks(root / "landmarks-train", train, workers=0)
    for name in ("landmarks-test", "landmarks-train"):
        assert main(["prepare", str(root / name), "--desc-num", "40", "--workers", "0"]) == 0
    torch.manual_seed(0)
    for name, changes in (
        ("model", {"binarized": True}),
        ("full", {}),
        ("narrow", {"local_dim": 64}),
        ("tokens", {"model_dim": 8}),
    ):
        sizes = {"local_dim": 128, "model_dim": 16, "num_encoder_layers": 1, "dim_feedforward": 16}
        save_weights(
            root / f"{name}.safetensors", AMES(**sizes | changes), provenance={"backbone": "rootsift"}
        )
    other = AMES(local_dim=128, model_dim=16, num_encoder_layers=1, dim_feedforward=16)
    save_weights(root / "cvnet.safetensors", other, provenance={"backbone": "cvnet"})
    return root


def call(script, *words, cwd=ROOT):
    return run_script(ROOT / "src" / script, *words, cwd=cwd)


def evaluation(data, *words):
    return [
        "experiment=landmarks",
        f"data_root={data}",
        f"model_path={data / 'model.safetensors'}",
        "test_dataset.num_rerank=[5,10]",
        *words,
    ]


TRAINING = [
    "experiment=landmarks-train",
    *SMALL,
    "epochs=1",
    "train_dataset.batch_size=6",
    "train_dataset.min_positives=1",
    "train_dataset.min_negatives=1",
    "cpu=true",
]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_evaluate(data, tmp_path, elsewhere):
    words = evaluation(data, "test_dataset.lamb=[0,0.5]", f"hydra.run.dir={tmp_path / 'run'}", "cpu=true")
    done = call("evaluate.py", *words, cwd=tmp_path if elsewhere else ROOT)
    assert done.returncode == 0, done.stderr
    assert "model.safetensors on landmarks-test, 40 x 40 descriptors" in done.stdout
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["query_desc_num"], results["db_desc_num"]) == (200, 50)
    assert results["dataset"] == "landmarks-test"
    assert results["shortlist"] == "nn_rootsift.npz"
    assert results["model"] == "model.safetensors"
    grid = [(row["num_rerank"], row["lamb"], row["temp"]) for row in results["rows"]]
    assert grid == [(5, 0, 1.0), (5, 0.5, 1.0), (10, 0, 1.0), (10, 0.5, 1.0)]
    for row in [results["initial"], *results["rows"]]:
        for prefix in "EMH":
            assert 0 <= row[f"{prefix}_map"] <= 100
            assert set(row[f"{prefix}_mp"]) == {"1", "5", "10"}
    with np.load(tmp_path / "run" / "scores.npz") as scores:
        shortlist = Shortlist.load(data / "landmarks-test" / "nn_rootsift.npz")
        np.testing.assert_array_equal(scores["ids"], shortlist.ids)
        np.testing.assert_array_equal(scores["similarities"], shortlist.similarities)
        assert scores["logits"].dtype == np.float32
        assert scores["logits"].shape == shortlist.ids.shape
        assert (np.isfinite(scores["logits"]).sum(1) >= 10).all()


def test_evaluate_chamfer(data, tmp_path):
    words = ["experiment=landmarks", f"data_root={data}", "model=chamfer", f"hydra.run.dir={tmp_path}"]
    words.append("test_dataset.num_rerank=10")
    done = call("evaluate.py", *words)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "results.json").read_text())["model"] == "Chamfer"


@pytest.mark.parametrize("name", ["mutual_nearest", "spatial"])
def test_counts_are_ranked_by_their_own_fusion(data, tmp_path, name):
    """What the data set proposes is for logits. Sizes of the images come from the files in the folder."""
    words = ["experiment=landmarks", f"data_root={data}", f"model={name}", f"hydra.run.dir={tmp_path}"]
    done = call("evaluate.py", *words, "test_dataset.num_rerank=10")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert {key: row[key] for key in ("lamb", "temp")} == MODELS[name].fusion
    assert "sizes of" not in done.stdout + done.stderr
    with np.load(tmp_path / "scores.npz") as scores:
        logits = scores["logits"][np.isfinite(scores["logits"])]
    whole = logits * (40 if name == "mutual_nearest" else 1)
    np.testing.assert_allclose(whole, whole.round(), atol=1e-3)
    assert whole.max() >= 4


def test_train_goes_on_where_it_was(data, tmp_path):
    """The state of a training lies beside its model; one that is done is not trained again."""
    words = [f"data_root={data}", *TRAINING, "epochs=2", f"model_path={tmp_path / 'model.pt'}"]
    done = call("train.py", *words, "resume=auto", "save_every=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    states = sorted((tmp_path / "model-state").iterdir())
    assert len(states) == 2
    first = read_weights(tmp_path / "model.pt").state
    states[-1].unlink()  # as if the power had gone before the last one
    (tmp_path / "model.pt").unlink()
    done = call("train.py", *words, "resume=auto", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resumes in epoch" in done.stdout + done.stderr
    again = read_weights(tmp_path / "model.pt").state
    assert all(torch.equal(x, again[name]) for name, x in first.items())


def test_train_a_teacher_then_its_student_and_evaluate_it(data, tmp_path):
    teacher, student = tmp_path / "teacher.pt", tmp_path / "student.pt"
    words = [f"data_root={data}", *TRAINING, f"hydra.run.dir={tmp_path / 'run'}"]
    done = call("train.py", *words, "model.binarized=false", f"model_path={teacher}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "valid anchors of 14 images" in done.stdout
    assert f"checkpoint: {teacher}" in done.stdout
    done = call("train.py", *words, f"teacher={teacher}", f"model_path={student}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert load_model(student).binarized
    assert read_weights(student).about["backbone"] == "rootsift"
    words = evaluation(data, f"hydra.run.dir={tmp_path / 'test'}")
    words[2] = "model_path=student.pt"  # relative to where the person stands
    done = call("evaluate.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "binarized"), [("full", True), ("full", False), ("model", True)])
def test_a_model_starts_from_another_s_weights(data, tmp_path, name, binarized):
    """At a learning rate of 0 they stay; a binary model's own are its projection alone."""
    first, out = data / f"{name}.safetensors", tmp_path / "model.pt"
    words = [f"data_root={data}", *TRAINING, "lr=0", "tracker=null", f"hydra.run.dir={tmp_path / 'run'}"]
    words += [f"start_from={first}", f"model_path={out}", f"model.binarized={binarized}"]
    done = run_script(ROOT / "src" / "train.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    start, found = read_weights(first).state, read_weights(out).state
    own = {"remap_local.0.W", "remap_local.1.weight", "remap_local.1.bias"}
    own = own if name == "full" and binarized else set()
    start = {k.replace("remap_local.1", "remap_local.2") if own else k: x for k, x in start.items()}
    for key, x in found.items():
        assert key in own or torch.equal(x, start[key]), key
    if own:
        assert torch.allclose(found["remap_local.0.W"].T @ found["remap_local.0.W"], torch.eye(16), atol=0.2)


def test_a_training_is_resumed_with_the_weights_it_started_from(data, tmp_path):
    words = [f"data_root={data}", *TRAINING, f"hydra.run.dir={tmp_path / 'run'}", "resume=auto"]
    words += [f"model_path={tmp_path / 'model.pt'}", "tracker=null"]
    done = run_script(ROOT / "src" / "train.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    words += [f"start_from={data / 'full.safetensors'}"]
    line = refused(ROOT / "src" / "train.py", *words, cwd=tmp_path)
    assert "its training was begun with start_from None, not " in line


DETECTOR = [
    "desc_name=rootsift",
    "dataset@train_dataset=landmarks-train",
    "epochs=2",
    "train_dataset.batch_size=6",
    "train_dataset.min_positives=1",
    "train_dataset.min_negatives=1",
    "cpu=true",
]


def test_train_a_detector_and_go_on_where_it_was(data, tmp_path):
    words = [f"data_root={data}", *DETECTOR, f"model_path={tmp_path / 'x.pt'}", "resume=auto", "save_every=1"]
    words += ["dataset@val_dataset=landmarks-val", "val_dataset.desc_dir=landmarks-test"]
    done = call("train_detector.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "valid anchors of 14 images" in done.stdout
    assert "mAP on landmarks-test of the descriptors by equal weights: " in done.stdout
    assert "val_map_uniform" in done.stdout + done.stderr
    assert f"detector: {tmp_path / 'x.pt'}" in done.stdout
    assert load_detector(tmp_path / "x.pt", backbone="rootsift").width == 128
    about = read_weights(tmp_path / "x.pt").about
    assert about["descriptors"] == DescriptorFile(data / "landmarks-train/rootsift_local.hdf5").provenance
    epochs = [x for x in read_journal(tmp_path / "x-journal.jsonl") if x["kind"] == "epoch"]
    assert [x["val_map"] >= 0 for x in epochs] == [True, True]
    assert (tmp_path / "x-best.pt").is_file()
    first = read_weights(tmp_path / "x.pt").state
    max((tmp_path / "x-state").iterdir()).unlink()  # as if the power had gone before the last one
    (tmp_path / "x.pt").unlink()
    done = call("train_detector.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resumes in epoch" in done.stdout + done.stderr
    again = read_weights(tmp_path / "x.pt").state
    assert all(torch.equal(x, again[name]) for name, x in first.items())


@pytest.mark.parametrize(("script", "words"), [("train.py", TRAINING), ("train_detector.py", DETECTOR)])
def test_a_model_that_exists_is_replaced_only_if_told_to(data, tmp_path, script, words):
    model = tmp_path / "model.pt"
    words = [f"data_root={data}", *words, "epochs=1", "tracker=null", f"model_path={model}"]

    def trained(*more):
        done = call(script, *words, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    trained()
    first = {path: path.read_bytes() for path in tmp_path.glob("model*") if path.is_file()}
    line = refused(ROOT / "src" / script, *words, cwd=tmp_path)
    advice = "overwrite=true to replace it, or another model_path"
    assert line.endswith(f": {model}: exists already; give resume=auto to go on with it, {advice}")
    assert "is finished already" in trained("resume=auto")
    assert {path: path.read_bytes() for path in first} == first
    assert "is finished already" not in trained("overwrite=true", "seed=1")
    assert model.read_bytes() != first[model]
    shutil.rmtree(tmp_path / "model-state")
    line = refused(ROOT / "src" / script, *words, "resume=auto", cwd=tmp_path)
    assert f"exists already, and {tmp_path}/model-state has no state to resume from; give {advice}" in line


def test_a_batch_that_holds_no_whole_triplets_is_said(data, tmp_path):
    words = [f"data_root={data}", *TRAINING, "tracker=null", "num_gpus=4", f"hydra.run.dir={tmp_path}"]
    for size, said in ((6, False), (5, True)):
        more = [f"train_dataset.batch_size={size}", f"model_path={tmp_path / f'{size}.pt'}"]
        done = call("train.py", *words, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        line = f"batch_size {size}: a triplet has 3 images, so that a batch has 3"
        assert (line in done.stdout.splitlines()) == said
        assert (
            "num_gpus 4: of validation alone, and there is none; torchrun trains" in done.stdout + done.stderr
        )


def test_gpus_that_are_not_used_are_said(data, tmp_path):
    words = evaluation(data, "test_dataset.lamb=0.5", f"hydra.run.dir={tmp_path}", "cpu=true", "num_gpus=4")
    done = call("evaluate.py", *words, "dataset@val_dataset=landmarks-test")
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("num_gpus 4: there is no GPU to use, the CPU computes") == 1


@pytest.mark.parametrize(
    "more", [["model=rootsift"], ["model.binarized=true", "model.nhead=2"], ["model.init=paper"]]
)
def test_words_about_the_model_that_its_checkpoint_confirms_are_taken(data, tmp_path, more):
    words = evaluation(data, "test_dataset.lamb=0.5", f"hydra.run.dir={tmp_path}", "cpu=true", *more)
    done = call("evaluate.py", *words)
    assert done.returncode == 0, done.stderr


def test_a_hydra_sweep_keeps_its_runs_apart(data, tmp_path):
    words = evaluation(data, f"hydra.sweep.dir={tmp_path}", "--multirun", "test_dataset.db_desc_num=5,20")
    done = call("evaluate.py", *words)
    assert done.returncode == 0, done.stderr
    found = sorted(tmp_path.glob("*/results.json"))
    assert [json.loads(path.read_text())["db_desc_num"] for path in found] == [5, 20]


# ---- wrong input ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def damaged(data, tmp_path_factory):
    """Copies of the test set with one file spoiled, by name."""
    root = tmp_path_factory.mktemp("damaged")

    def copy(name, file, spoil):
        folder = root / name / "landmarks-test"
        folder.mkdir(parents=True)
        for path in (data / "landmarks-test").iterdir():
            if path.is_file():
                (folder / path.name).write_bytes(path.read_bytes())
        spoil(folder / file)

    def wide(path):
        with h5py.File(path, "w") as file:
            file.create_dataset("features", data=np.zeros((2, 4, 5 + 64), np.float16))

    copy("width", "rootsift_query_local.hdf5", wide)
    copy("text", "rootsift_gallery_local.hdf5", lambda path: path.write_text("text"))
    copy("unprepared", "nn_rootsift.npz", Path.unlink)
    copy("truth", "gnd_landmarks-test.json", lambda path: path.write_text("{"))
    return root


EVALUATE_ERRORS = [
    (["data_root=???"], "data_root is missing: give the folder"),
    (["data_root=null"], "data_root is missing"),
    (["data_root=/nowhere"], "/nowhere/landmarks-test: no such folder"),
    (["tset_dataset.lamb=[0]"], "Could not override 'tset_dataset.lamb'"),
    (["model=ams"], "Could not find 'model/ams': choose one of ames, "),
    (["test_dataset.lamb=[0"], "no viable alternative"),
    (["test_dataset.lamb=[0"], "test_dataset.lamb=[0: cannot be read"),
    (["test_dataset.lamb=[0"], "close the bracket, or quote what is text: 'test_dataset.lamb=\"[0\"'"),
    (["data_root=${"], "data_root=${: cannot be read ("),
    (["data_root=${foo}"], "data_root: Interpolation key 'foo' not found"),
    (["data_root=${oc.env:AMES_NO_SUCH}"], "data_root: KeyError raised while resolving interpolation"),
    (["data_root"], "data_root: cannot be read (missing EQUAL at '<EOF>'); give KEY=VALUE"),
    (["=x"], "=x: cannot be read (the key is missing); give KEY=VALUE"),
    (['"data_root=x"'], "; give KEY=VALUE"),
    (["seed=1,2"], "seed=1,2: several values; add --multirun for a job each, write [A,B] for a list"),
    (["--foo"], "unrecognized arguments: --foo; see evaluate --help"),
    (["--multirun", "--cfg", "jobs"], "argument --cfg/-c: invalid choice: 'jobs'"),
    (["~test_dataset.protocols"], "test_dataset.protocols: Key 'protocols' is not in struct"),
    (["~test_dataset.num_rerank"], "test_dataset.num_rerank: Key 'num_rerank' is not in struct"),
    (["~foo"], "Could not delete from config. 'foo' does not exist"),
    (["+lamb=0.3"], "+lamb=0.3: the command has no key lamb; the nearest is test_dataset.lamb"),
    (["+test_dataset.lamp=1"], "has no key test_dataset.lamp; the nearest is test_dataset.lamb"),
    (["++num_worker=1"], "++num_worker=1: the command has no key num_worker; the nearest is num_workers"),
    (["+nosuch.key=1"], "+nosuch.key=1: the command has no key nosuch.key"),
    (["hydra.verbose=5"], "hydra.verbose=5: Hydra cannot use it ("),
    (["hydra.job_logging=null"], "hydra.job_logging=null: "),
    (["+cpu=true"], "Could not append to config. An item is already at 'cpu'"),
    (["groups/foo=x"], "Could not override 'groups/foo'"),
    (["model=null"], "model=null: give the name of a file of conf/model, or leave it out"),
    (["dataset@test_dataset=5"], "dataset@test_dataset=5: give the name of a file of conf/dataset"),
    (["test_dataset=own"], "choose a file of conf/dataset, dataset@test_dataset=own"),
    (["test_dataset=null"], "test_dataset is None: choose a file of conf/dataset"),
    (["test_dataset.desc_dir=null"], "desc_dir is missing: give desc_dir=NAME"),
    (["test_dataset.default_blend=3", "model=chamfer", "model_path=null"], "default_blend is 3: give {lamb"),
    (["compile=no"], "compile is 'no': give true or false"),
    (["cpu=1"], "cpu is 1: give true or false"),
    (["+test_dataset.distractors=no"], "distractors is 'no': give true or false"),
    (["test_dataset.protocols=3"], "protocols of landmarks-test is 3: give a list of {name: NAME"),
    (["test_dataset.protocols=[]"], "protocols of landmarks-test is []: give a list of {name: NAME"),
    (["test_dataset.protocols=[medum]"], "protocol 'medum' of landmarks-test: give {name: NAME"),
    (["test_dataset.protocols=[{name: x, positives: easy}]"], "protocol 'x' has positives 'easy': give a"),
    (
        ["test_dataset.protocols=[{name: x, positives: [easy]}, {name: x, positives: [hard]}]"],
        "two protocols are called 'x': give each a name of its own",
    ),
    (["test_dataset.lamb=[]"], "lamb is an empty list"),
    (["test_dataset.lamb=[1.5]"], "lamb 1.5 is outside [0, 1]"),
    (["test_dataset.lamb=half"], "lamb 'half' is outside [0, 1]"),
    (["test_dataset.temp=[-1]"], "temp -1 is not a number above 0"),
    (["test_dataset.num_rerank=[5,500]"], "num_rerank 500 is outside 1 ... 12, the length of the shortlist"),
    (["test_dataset.num_rerank=[]"], "num_rerank is an empty list"),
    (["test_dataset.query_desc_num=0"], "query_desc_num is 0: give a whole number of at least 1"),
    (["test_dataset.db_desc_num=few"], "db_desc_num is 'few': give a whole number"),
    (["test_dataset.batch_size=0"], "batch_size is 0"),
    (["test_dataset.protocols=[{name: x, positives: [ok]}]"], "no key 'ok': its keys are easy, hard, junk"),
    (["test_dataset.protocols=[{name: x, positiv: [ok]}]"], "protocol 'x' of landmarks-test: "),
    (["data_root={damaged}/width"], "descriptors are 64-d, but the model takes 128-d"),
    (["data_root={damaged}/text"], "rootsift_gallery_local.hdf5: not a readable HDF5 file"),
    (["data_root={damaged}/unprepared"], "no shortlist exists; looked for"),
    (["data_root={damaged}/truth"], "gnd_landmarks-test.json: not a JSON file"),
    (["model_path={data}/missing.pt"], "missing.pt: no such checkpoint"),
    (["model_path={data}/landmarks-test/dataset.json"], "dataset.json: "),
    (["model_path={data}/cvnet.safetensors"], "trained on cvnet descriptors, not on rootsift"),
    (["model_path={data}/narrow.safetensors"], "descriptors are 128-d, but the model takes 64-d"),
    (["model=chamfer"], "Chamfer has no weights: leave model_path="),
    (["test_dataset.nn_file=nn_other.npz"], "no shortlist exists; looked for"),
    (["test_dataset.test_gnd_file=gnd_other.json"], "no ground truth exists; looked for"),
    (["num_workers=-1"], "num_workers is -1"),
    (["val_dataset=landmarks-val"], "choose a file of conf/dataset, dataset@val_dataset=landmarks-val"),
    (["dataset@val_dataset=landmarks-val"], "landmarks-val: no such folder"),
    (["desc_name=sift", "model_path=null"], "model_path is missing, and no weights sift_ames_dist are"),
    (["desc_name=cvnet", "model_path=null"], "model_path=cvnet_ames_dist fetches"),
    (["model_path=null", "model.binarized=maybe"], "binarized is 'maybe': give true or false"),
    (["model.binarized=false"], "model.binarized=false: {data}/model.safetensors has binarized True; leave"),
    (["model.binarized=1"], "model.binarized=1: {data}/model.safetensors has binarized True; leave"),
    (["model.model_dim=64"], "model.model_dim=64: {data}/model.safetensors has model_dim 16; leave the word"),
    (["model.nhead=8"], "model.nhead=8: {data}/model.safetensors has nhead 2; leave the word out, or give"),
    (["+model.heads=8"], "+model.heads=8: {data}/model.safetensors is of class AMES, which has no heads"),
    (["model_path=rootsift_ames", "model.binarized=true"], "true: rootsift_ames has binarized False; leave"),
    (["model_path=null", "model.num_encoder_layers=5"], "=5: rootsift_ames_dist has num_encoder_layers 3"),
    (
        ["model_path=chamfer", "model=rootsift"],
        "model=rootsift: chamfer is of class Chamfer, not AMES",
    ),
    (
        ["model_path=chamfer", "model.nhead=2"],
        "model.nhead=2: chamfer is of class Chamfer, which has no nhead",
    ),
    (
        ["dataset=roxford"],
        "dataset: the command has no such group; its groups are descriptors, model",
    ),
]
TRAIN_ERRORS = [
    (["data_root=???"], "data_root is missing"),
    (["epocs=1"], "Could not override 'epocs'"),
    (["compile=yes", "cpu=true"], "compile is 'yes': give true or false"),
    (["train_dataset=gldv2"], "choose a file of conf/dataset, dataset@train_dataset=gldv2"),
    (["epochs=0"], "epochs is 0: give a whole number of at least 1"),
    (["lr=fast"], "lr is 'fast': give a number of at least 0"),
    (["lr=-1"], "lr is -1"),
    (["seed=-1"], "seed is -1"),
    (["resume=model.pt"], "resume is 'model.pt': give auto, which goes on where it was interrupted"),
    (["resume=auto"], "resume=auto finds nothing in a new run folder: give model_path, or state_dir"),
    (["accumulate=0"], "accumulate is 0: give a whole number of at least 1"),
    (["non_finite=ignore"], "non_finite 'ignore' is none of stop, skip"),
    (["desc_name=sift"], "sift_local.hdf5: no such file; extract descriptors first"),
    (["autocast=fp8"], "autocast 'fp8' is none of null, bf16, fp16"),
    (["freeze=[head]"], "freeze 'head' names no parameter; they begin with classifier, decoder"),
    (["tracker=nothing"], "tracker 'nothing' is none of auto, tensorboard, wandb, none"),
    (["train_dataset.list=x.txt"], "x.txt: no such list of images"),
    (["train_dataset.pairs=x.csv"], "x.csv: no such list of pairs"),
    (["train_dataset.hard_negative_fraction=2"], "hard_negative_fraction 2.0: give a share from 0 to 1"),
    (["val_freq=0"], "val_freq is 0"),
    (["model._target_=null"], "model: Expected a callable target, got 'None'"),
    (["model._target_=builtins.dict"], "model._target_ is 'builtins.dict': give a model's class"),
    (["+lamb=0.3"], "+lamb=0.3: the command has no key lamb"),
    (["model.binarized=maybe"], "model: binarized is 'maybe': give true or false"),
    (["model.model_dim='16'"], "model: model_dim is '16': give a whole number of at least 1"),
    (["model.num_encoder_layers=0"], "model: num_encoder_layers is 0: give a whole number of at least 1"),
    (["overwrite=yes"], "overwrite is 'yes': give true or false"),
    (["overwrite=true", "model_path=x.pt", "resume=auto"], "overwrite begins again: give one of the two"),
    (["model.init=magic"], "init 'magic' is none of paper, matching"),
    (["model.model_dim=12"], "model_dim 12 % 8 != 0"),
    (["model.model_dim=256"], "ITQ cannot make 256 bits of 128 dimensions"),
    (["model.heads=2"], "Could not override 'model.heads': Key 'heads' is not in struct"),
    (["+model.heads=2"], "unexpected keyword argument 'heads'"),
    (["train_dataset.batch_size=2"], "batch_size is 2: give a whole number of at least 3"),
    (["train_dataset.desc_num=10"], "lower min_desc, or extract more descriptors"),
    (["train_dataset.min_positives=9"], "no valid anchor among 14 images"),
    (["teacher={data}/model.safetensors"], "the teacher is a binary model: give a full-precision one"),
    (["start_from={data}/none.pt"], "none.pt: no such checkpoint"),
    (["start_from={data}/cvnet.safetensors"], "trained on cvnet descriptors, not on rootsift"),
    (["start_from={data}/narrow.safetensors"], "its local_dim is 128, that of the model to start from 64"),
    (["start_from={data}/tokens.safetensors"], "its model_dim is 16, that of the model to start from 8"),
    (
        ["start_from={data}/model.safetensors", "model.binarized=false"],
        "a binary model starts from a full-precision one, and not the other way round",
    ),
    (
        ["start_from={data}/narrow.safetensors", "model.binarized=false"],
        "start_from: weights of another model: remap_local.0.weight is (16, 64), this model's is (16, 128)",
    ),
    (["teacher={data}/narrow.safetensors"], "the teacher takes 64-d descriptors, the student 128-d ones"),
    (["teacher={data}/tokens.safetensors"], "the teacher's tokens are 8-d, the student's 16-d"),
    (["teacher={data}/cvnet.safetensors"], "trained on cvnet descriptors, not on rootsift"),
    (["model_path={data}"], "is a folder: give the name of a file"),
]


DETECTOR_ERRORS = [
    (["data_root=???"], "data_root is missing"),
    (["desc_name=sift"], "sift_local.hdf5: no such file; extract descriptors first"),
    (["epocs=1"], "Could not override 'epocs'"),
    (
        ["experiment=landmarks"],
        "experiment: the command has no such group; its groups are descriptors, da",
    ),
    (["epochs=0"], "epochs is 0: give a whole number of at least 1"),
    (["lr=fast"], "lr is 'fast': give a number of at least 0"),
    (["margin=0"], "margin 0.0 is outside (0, 4]"),
    (["accumulate=0"], "accumulate is 0: give a whole number of at least 1"),
    (["compile=true"], "torch.compile cannot take a detector's loss; leave it out"),
    (["freeze=[head]"], "freeze 'head' names no parameter; they begin with bn, conv1, conv2"),
    (["tracker=nothing"], "tracker 'nothing' is none of auto, tensorboard, wandb, none"),
    (["resume=x.pt"], "resume is 'x.pt': give auto, which goes on where it was interrupted"),
    (["resume=auto"], "resume=auto finds nothing in a new run folder: give model_path, or state_dir"),
    (["train_dataset.min_positives=9"], "no valid anchor among 14 images"),
    (["model_path={data}"], "is a folder: give the name of a file"),
    (["start_from={data}/model.safetensors"], "not a feature detector: it lacks conv1.weight"),
    (["start_from={data}/narrow_detector.pt"], "descriptors are 128-d, but the model takes 64-d"),
    (["start_from={data}/other_detector.pt"], "trained on cvnet descriptors, not on rootsift"),
    (["data_root={spoiled}/packed"], "holds packed bits; training needs descriptors"),
    (["data_root={spoiled}/nan"], "has a descriptor that is not finite: extract it again"),
    (["data_root={spoiled}/unlabelled"], "has no label; training needs path,label"),
    (["val_dataset=landmarks-val"], "choose a file of conf/dataset, dataset@val_dataset=landmarks-val"),
    (["dataset@val_dataset=landmarks-val"], "landmarks-val: no such folder"),
]


@pytest.fixture(scope="module")
def spoiled(data, tmp_path_factory):
    """Copies of the training set with something wrong, by name."""
    root = tmp_path_factory.mktemp("spoiled")

    def copy(name, file, spoil):
        folder = root / name / "landmarks-train"
        folder.mkdir(parents=True)
        for path in (data / "landmarks-train").iterdir():
            if path.is_file():
                (folder / path.name).write_bytes(path.read_bytes())
        spoil(folder / file)

    def packed(path):
        with h5py.File(path, "w") as file:
            file.create_dataset("features", data=np.zeros((14, 4, 16), np.uint8))

    def nan(path):
        with h5py.File(path, "r+") as file:
            file["features"][:, 0, 5:] = np.nan

    def unlabelled(path):
        lines = path.read_text().splitlines()
        path.write_text("\n".join(line.split(",")[0] for line in lines))

    copy("packed", "rootsift_local.hdf5", packed)
    copy("nan", "rootsift_local.hdf5", nan)
    copy("unlabelled", "train.txt", unlabelled)
    save_detector(data / "narrow_detector.pt", SpatialAttention(64))
    save_detector(data / "other_detector.pt", SpatialAttention(128), provenance={"backbone": "cvnet"})
    return root


@pytest.mark.parametrize(("words", "message"), EVALUATE_ERRORS, ids=lambda x: x[0][:40] if x else None)
def test_what_evaluate_refuses(data, damaged, tmp_path, words, message):
    words = [word.replace("{data}", str(data)).replace("{damaged}", str(damaged)) for word in words]
    kept = f"score_cache={tmp_path / 'kept'}"  # not below the folder in which the tests are called
    words = [*evaluation(data, f"hydra.run.dir={tmp_path / 'run'}"), kept, *words]
    line = refused(ROOT / "src" / "evaluate.py", *words, cwd=ROOT)
    assert line.startswith("evaluate: ")
    assert message.replace("{data}", str(data)) in line
    assert not list(tmp_path.rglob("results.json"))
    assert not list(tmp_path.rglob("scores.npz"))


@pytest.mark.parametrize(("words", "message"), TRAIN_ERRORS, ids=lambda x: x[0][:40] if x else None)
def test_what_train_refuses(data, tmp_path, words, message):
    words = [word.replace("{data}", str(data)) for word in words]
    words = [f"data_root={data}", *TRAINING, f"hydra.run.dir={tmp_path / 'run'}", *words]
    line = refused(ROOT / "src" / "train.py", *words, cwd=ROOT)
    assert line.startswith("train: ")
    assert message in line
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize(("words", "message"), DETECTOR_ERRORS, ids=lambda x: x[0][:40] if x else None)
def test_what_train_detector_refuses(data, spoiled, tmp_path, words, message):
    words = [word.replace("{data}", str(data)).replace("{spoiled}", str(spoiled)) for word in words]
    words = [f"data_root={data}", *DETECTOR, f"hydra.run.dir={tmp_path / 'run'}", *words]
    line = refused(ROOT / "src" / "train_detector.py", *words, cwd=ROOT)
    assert line.startswith("train_detector: ")
    assert message in line
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize("script", ["evaluate", "train", "train_detector", "train_embedder", "extract"])
@pytest.mark.parametrize("value", ["a=b", "a#b", "a(b", "a&b", "ümlaut", 'a"b=c', "two words=x"])
def test_values_that_hydra_cannot_read_are_named_and_quoted(script, value):
    key = "images" if script == "extract" else "data_root"
    line = refused(ROOT / "src" / f"{script}.py", f"{key}={value}", cwd=ROOT)
    start = f"{script}: {key}={value}: cannot be read ("
    assert line.startswith(start)
    (word,) = shlex.split(line[len(start) :].split("quote what is text: ")[1])  # as a shell reads the advice
    assert read_override(word).value() == value


def test_flags_may_stand_between_overrides():
    words = ["a=1", "--multirun", "b=2", "--config-name", "test", "c=3"]
    assert arranged("evaluate", words) == ["a=1", "b=2", "c=3", "--multirun", "--config-name", "test"]
    assert arranged("evaluate", ["a=1", "--info"], ["d=4"]) == ["a=1", "d=4", "--info"]
    assert arranged("evaluate", ["-m", "a=1,2"]) == ["a=1,2", "-m"]
    assert arranged("evaluate", ["hydra.mode=MULTIRUN", "a=1,2"]) == ["hydra.mode=MULTIRUN", "a=1,2"]
    assert arranged("evaluate", []) == []


def test_the_groups_are_the_folders_of_conf():
    folders = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()} - {
        "bench",
        "benchmark",
        "cascades",
        "classes",
    }
    assert sorted(folders) == list(GROUPS)


@pytest.mark.parametrize(("model", "name"), [("chamfer", "Chamfer"), ("asmk", "ASMK")])
def test_models_with_nothing_to_train(data, tmp_path, model, name):
    words = ["experiment=landmarks-train", f"data_root={data}", f"model={model}", f"hydra.run.dir={tmp_path}"]
    line = refused(ROOT / "src" / "train.py", *words, cwd=ROOT)
    assert line == f"train: {name} has no weights to train"


def test_the_exit_status_of_a_real_process(data, tmp_path):
    done = run_process(ROOT / "src" / "evaluate.py", f"hydra.run.dir={tmp_path}", cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "evaluate: data_root is missing: give the folder that holds the data sets, data_root=DIR"
    ]
    done = call("train.py", "colour=blue", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["train: Could not override 'colour': Key 'colour' is not in struct"]
