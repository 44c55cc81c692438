"""Every learned re-ranker by the commands: training, validation, evaluation, a database, what is refused."""

import json

import pytest
import torch

from ames.cli.main import main
from ames.database.store import Database
from ames.models.ames import AMES
from ames.models.checkpoints import save_checkpoint
from ames.models.locore import Locore
from ames.weights.files import read_weights, save_state
from helpers.commands import ROOT, run_script
from helpers.training_data import GLOBAL_WIDTH, WIDTH, write_training_data

COMMON = ["desc_name=mine", "epochs=2", "cpu=true", "tracker=null", "print_freq=0"]
COMMON += ["dataset@val_dataset=roxford", "val_dataset.num_rerank=10", "train_dataset.min_positives=2"]
PAIRS = ["train_dataset.batch_size=12", "train_dataset.min_desc=4", "train_dataset.min_negatives=2"]
RRT = ["model=rrt", f"model.global_dim={GLOBAL_WIDTH}", "model.scales=0", "model.model_dim=16"]
RRT += ["model.num_layers=2", "model.dim_feedforward=16"]
LOCORE = ["model=locore", f"model.global_dim={GLOBAL_WIDTH}", "model.scales=0", "model.hidden=32"]
LOCORE += ["model.nhead=2", "model.num_layers=2", "model.intermediate=32", "model.window=10"]
LOCORE += ["model.attention_window=16", "model.local_count=6", "train_dataset.batch_size=44"]
WORDS = {
    "ELViS": ["model=elvis", *PAIRS],
    "RRT": [*RRT, *PAIRS],
    "RRT as a soft matcher": [*RRT, "model.init=matching", *PAIRS],
    "LOCORE": LOCORE,
    "LOCORE as a soft matcher": [*LOCORE, "model.init=matching"],
}
# Of a database: bytes of the codes of an image of 6 descriptors.
STORED = {"ELViS": 6 * 256, "RRT": 7 * 32, "LOCORE": 7 * 64}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_training_data(tmp_path_factory.mktemp("data"))


def call(script, data, *words, cwd):
    return run_script(ROOT / "src" / script, f"data_root={data}", *words, cwd=cwd)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """The checkpoint of each of ``WORDS``."""
    folder = tmp_path_factory.mktemp("trained")
    paths = {name: folder / f"{name.replace(' ', '-')}.pt" for name in WORDS}
    for name, path in paths.items():
        done = call("train.py", data, *COMMON, *WORDS[name], f"model_path={path}", cwd=folder)
        assert done.returncode == 0, (name, done.stderr)
        unit = "24 lists of 10 neighbours" if "LOCORE" in name else "24 valid anchors of 24 images"
        assert unit in done.stdout
    return paths


@pytest.mark.parametrize("name", WORDS)
def test_a_trained_model_is_evaluated_with_its_blend(data, trained, tmp_path, name):
    about = read_weights(trained[name]).about
    assert 0 <= about["blend"]["lamb"] < 1
    words = [
        "desc_name=mine",
        f"model_path={trained[name]}",
        "test_dataset.num_rerank=10",
        "hydra.run.dir=out",
    ]
    done = call("evaluate.py", data, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert {"lamb": row["lamb"], "temp": row["temp"]} == about["blend"]
    done = call(
        "train.py", data, *COMMON, *WORDS[name], f"model_path={trained[name]}", "resume=auto", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "is finished already: nothing is left to train" in done.stdout + done.stderr


@pytest.mark.parametrize("name", STORED)
def test_a_database_stores_its_codes_and_scores_as_the_files_do(data, trained, tmp_path, name):
    gallery = data / "roxford5k" / "mine_gallery_local.hdf5"
    database = tmp_path / "photos.db"
    words = ["compress", str(gallery), "--model", str(trained[name]), "--desc-num", "6", "-o", str(database)]
    words += ["--global", str(gallery.with_name("mine_gallery_global.hdf5"))]
    assert main([*words, "--global-factory", "Flat"]) == 0
    results = []
    for more in ([], [f"database={database}"]):
        words = ["desc_name=mine", f"model_path={trained[name]}", "test_dataset.db_desc_num=6", *more]
        words += ["test_dataset.num_rerank=10", "hydra.run.dir=out", "test_dataset.lamb=0"]
        done = call("evaluate.py", data, *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        results.append(json.loads((tmp_path / "out" / "results.json").read_text())["rows"])
    assert results[0] == results[1]
    manifest = Database(database).manifest
    assert manifest.slots * manifest.code_bytes == STORED[name]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            [*LOCORE, "train_dataset.batch_size=10"],
            "batch_size 10: a list has 11 images, its query among them",
        ),
        (
            [*LOCORE, "train_dataset.negatives=3"],
            "negatives 3 is of triplets, and this model learns from lists",
        ),
        (
            [*LOCORE, "model.window=24", "train_dataset.batch_size=99"],
            "no list of 24 images: an image has at most 23",
        ),
        ([*LOCORE, "train_dataset.query_desc=3"], "query_desc 3 is of triplets"),
        ([*LOCORE, "model.window=900"], "needs 7210 positions, max_position_embeddings is 5122"),
        (
            [*RRT, *PAIRS, "model.global_dim=7"],
            "mine_global.hdf5: global descriptors are 5-d, the model takes 7-d",
        ),
    ],
)
def test_what_training_refuses(data, tmp_path, words, said):
    done = call("train.py", data, *COMMON, *words, "model_path=model.pt", cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "model.pt").exists()


def test_a_teacher_is_for_ames(data, trained, tmp_path):
    teacher = tmp_path / "teacher.pt"
    model = AMES(local_dim=WIDTH, model_dim=16, num_encoder_layers=1, dim_feedforward=16)
    save_checkpoint(teacher, model, optimizer=None, epoch=1, provenance={"backbone": "mine"})
    for name in ("LOCORE", "ELViS"):
        done = call(
            "train.py", data, *COMMON, *WORDS[name], f"teacher={teacher}", "model_path=x.pt", cwd=tmp_path
        )
        assert "cannot be distilled from AMES: leave the teacher out" in done.stderr


def test_missing_global_descriptors_are_named(trained, tmp_path):
    root = write_training_data(tmp_path)
    for path in root.rglob("*_global.hdf5"):
        path.unlink()
    evaluation = ["desc_name=mine", f"model_path={trained['RRT']}", "test_dataset.num_rerank=10"]
    for script, words in (("train.py", [*COMMON, *WORDS["RRT"]]), ("evaluate.py", evaluation)):
        done = call(script, root, *words, cwd=tmp_path)
        assert done.returncode == 2
        assert "_global.hdf5" in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_checkpoint_of_another_class_starts_nothing(data, trained, tmp_path):
    done = call(
        "train.py",
        data,
        *COMMON,
        *WORDS["ELViS"],
        f"start_from={trained['RRT']}",
        "model_path=x.pt",
        cwd=tmp_path,
    )
    assert "is of class RRT: give a checkpoint of ELViS" in done.stderr


def test_locore_starts_from_a_text_model(data, tmp_path):
    torch.manual_seed(1)
    sizes = {"hidden": 32, "nhead": 2, "num_layers": 3, "intermediate": 32, "max_position_embeddings": 66}
    model = Locore(**sizes, local_dim=WIDTH, local_count=3, window=4)
    own = model.longformer.state_dict()
    text = {f"longformer.{name}": x for name, x in own.items() if not name.endswith("_embedding")}
    text |= {"longformer.embeddings.word_embeddings.weight": torch.zeros(9, 32)}
    save_state(tmp_path / "text.safetensors", {name: x.contiguous() for name, x in text.items()}, {})
    words = [*COMMON, *LOCORE, "start_from=text.safetensors", "model_path=x.pt", "lr=1e-9", "epochs=1"]
    done = call("train.py", data, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    state = read_weights(tmp_path / "x.pt").state
    name = "encoder.layer.1.attention.self.key.weight"
    trained, given = state[f"language_model.longformer.{name}"], text[f"longformer.{name}"]
    torch.testing.assert_close(trained, given, atol=1e-5, rtol=0)
    del text["longformer.embeddings.LayerNorm.bias"]
    save_state(tmp_path / "text.safetensors", {name: x.contiguous() for name, x in text.items()}, {})
    done = call("train.py", data, *words, "model_path=y.pt", cwd=tmp_path)
    assert done.returncode == 2
    assert "text.safetensors: no Longformer of this size" in done.stderr
