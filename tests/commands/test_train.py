"""The training command: several processes, one's own data, what it leaves behind and who uses that."""

import json

import pytest
import torch

from ames.cli.main import main
from ames.descriptors.local import create_local
from ames.features import LocalFeatures
from ames.io.locks import exclusively
from ames.reranking.fusion import Fusion
from ames.training.logging.journal import read_journal
from ames.weights.files import read_weights
from helpers.commands import ROOT, run_process, run_script
from helpers.training_data import IMAGES, SLOTS, WIDTH, write_training_data

WORDS = ["desc_name=mine", "train_dataset.batch_size=12", "train_dataset.min_desc=4", "print_freq=1"]
WORDS += ["train_dataset.min_positives=2", "train_dataset.min_negatives=2", "epochs=2", "cpu=true"]
WORDS += ["model.model_dim=16", "model.num_encoder_layers=1", "model.dim_feedforward=16", "tracker=null"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_training_data(tmp_path_factory.mktemp("data"))


def call(script, data, *words, cwd, processes=None):
    """In this process unless torchrun starts ``processes``."""
    words = [ROOT / "src" / script, f"data_root={data}", *words]
    return run_process(*words, cwd=cwd, processes=processes) if processes else run_script(*words, cwd=cwd)


def losses(path):
    return [record["loss"] for record in read_journal(path)]


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """The folder of a validated training."""
    folder = tmp_path_factory.mktemp("trained")
    words = [*WORDS, "dataset@val_dataset=roxford", "val_dataset.num_rerank=10", "hydra.run.dir=run"]
    done = call("train.py", data, *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "24 valid anchors of 24 images with 6 labels" in done.stdout
    return folder


def test_a_run_folder_holds_what_made_the_model(trained):
    run = trained / "run"
    about = json.loads((run / "environment.json").read_text())
    assert (about["seed"], about["processes"], about["journal"]) == (0, 1, "model-journal.jsonl")
    assert about["git"] is None or len(about["git"]["commit"]) == 40
    assert "desc_name: mine" in (run / ".hydra" / "config.yaml").read_text()
    records = read_journal(run / "model-journal.jsonl")
    assert [record["kind"] for record in records] == ["step"] * 6 + ["epoch"] + ["step"] * 6 + ["epoch"]
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10, 11, 12, 12]
    for key in ("loss", "accuracy", "lr", "pairs_per_second"):
        assert all(record[key] >= 0 for record in records if record["kind"] == "step")
    assert all(0 <= record["val_map"] <= 100 for record in records if record["kind"] == "epoch")


def test_the_same_command_gives_the_same_numbers(data, trained, tmp_path):
    words = [*WORDS, "dataset@val_dataset=roxford", "val_dataset.num_rerank=10", "hydra.run.dir=run"]
    assert call("train.py", data, *words, cwd=tmp_path).returncode == 0
    first, second = (read_weights(folder / "run" / "model.pt") for folder in (trained, tmp_path))
    assert all(torch.equal(x, second.state[name]) for name, x in first.state.items())
    assert first.about == second.about
    assert losses(trained / "run" / "model-journal.jsonl") == losses(tmp_path / "run" / "model-journal.jsonl")


def test_evaluation_takes_the_blend_of_the_checkpoint_unless_told_otherwise(data, trained):
    model = trained / "run" / "model.pt"
    stored = Fusion.from_checkpoint(read_weights(model).about, source="x")
    assert stored is not None
    words = ["desc_name=mine", "dim_local_features=24", f"model_path={model}", "test_dataset.num_rerank=10"]
    for given, expected in (
        ([], (stored.lamb, stored.gamma)),
        (["test_dataset.lamb=0.25"], (0.25, stored.gamma)),
        (["test_dataset.lamb=0", "test_dataset.temp=3"], (0, 3)),
    ):
        done = call("evaluate.py", data, *words, *given, "hydra.run.dir=evaluated", cwd=trained)
        assert done.returncode == 0, done.stderr
        (row,) = json.loads((trained / "evaluated" / "results.json").read_text())["rows"]
        assert (row["lamb"], row["temp"]) == expected


def test_curves_of_a_run(trained, tmp_path, capsys):
    assert main(["plot", str(trained / "run"), "-o", str(tmp_path / "curves.png")]) == 0
    assert (tmp_path / "curves.png").stat().st_size > 5000
    assert "best" in capsys.readouterr().out


def test_several_processes_leave_one_folder_and_the_same_losses(data, tmp_path):
    words = [*WORDS, "train_dataset.desc_num_sampling=pair"]
    for processes in (None, 2):
        cwd = tmp_path / str(processes)
        cwd.mkdir()
        done = call("train.py", data, *words, f"model_path={cwd / 'model.pt'}", cwd=cwd, processes=processes)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("valid anchors") == 1
        assert done.stdout.count("checkpoint:") == 1
        assert len(list(cwd.glob("runs/train/*/*"))) == 1
    one, two = (losses(tmp_path / str(n) / "model-journal.jsonl") for n in (None, 2))
    assert two == pytest.approx(one, rel=1e-4)


@pytest.mark.parametrize(("last", "processes"), [(False, None), (True, 2)])
def test_several_processes_sweep(data, tmp_path, last, processes):
    words = [f"data_root={data}", *WORDS, "seed=0,1", "hydra.sweep.dir=sweep"]
    words = [*words, "--multirun"] if last else ["--multirun", *words]
    command = run_process if processes else run_script
    options = {"processes": processes} if processes else {}
    done = command(ROOT / "src" / "train.py", *words, cwd=tmp_path, **options)
    assert done.returncode == 0, done.stderr
    assert sorted(path.parent.name for path in tmp_path.glob("sweep/*/model.pt")) == ["0", "1"]


def test_descriptors_that_are_no_numbers_are_named_or_left_out(data, tmp_path):
    for name in ("train.txt", "nn_mine.npz", "mine_local.hdf5"):
        (tmp_path / "gldv2").mkdir(exist_ok=True)
        (tmp_path / "gldv2" / name).write_bytes((data / "gldv2" / name).read_bytes())
    spoiled = LocalFeatures.from_descriptors(torch.full((SLOTS, WIDTH), float("nan")))
    with create_local(
        tmp_path / "gldv2" / "mine_local.hdf5", images=IMAGES, slots=SLOTS, width=WIDTH
    ) as write_row:
        generator = torch.Generator().manual_seed(0)
        for i in range(IMAGES):
            features = LocalFeatures.from_descriptors(torch.randn(SLOTS, WIDTH, generator=generator))
            write_row(i, spoiled if i == 3 else features)
    done = call("train.py", tmp_path, *WORDS, "model_path=model.pt", cwd=tmp_path)
    assert done.returncode == 2
    assert "train: the loss became nan in epoch 1" in done.stderr
    done = call("train.py", tmp_path, *WORDS, "model_path=model.pt", "non_finite=skip", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


# ---- one's own pairs ------------------------------------------------------------------------------------


def test_pairs_in_place_of_labels(data, tmp_path):
    pairs = ["query,image,match"]
    for i in range(12):
        pairs += [
            f"{i}.jpg,{(i + 6) % 24}.jpg,1",
            f"{i}.jpg,{(i + 12) % 24}.jpg,1",
            f"{i}.jpg,{(i + 1)}.jpg,0",
        ]
    (data / "gldv2" / "pairs.csv").write_text("\n".join(pairs))
    words = [*WORDS, "train_dataset.pairs=pairs.csv", "train_dataset.min_positives=null"]
    words += [
        "train_dataset.min_negatives=null",
        "train_dataset.negatives=2",
        "train_dataset.hard_negative_fraction=0.5",
    ]
    done = call("train.py", data, *words, "model_path=model.pt", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "12 valid anchors of 12 queries with 24 matches, of 24 images" in done.stdout
    assert read_weights(tmp_path / "model.pt").state


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0.jpg,99.jpg,1"], "line 1: 99.jpg is not in the list of images"),
        (["0.jpg,6.jpg,yes"], "line 1 is '0.jpg,6.jpg,yes': give query,image,match, match 1 or 0"),
        (["0.jpg,6.jpg,1", "6.jpg,0.jpg,0"], "line 2 gives 6.jpg and 0.jpg the match 0, line 1 1"),
        (["0.jpg,6.jpg,0"], "no valid anchor among 1 images"),
    ],
)
def test_pairs_that_cannot_be_meant(data, tmp_path, lines, message):
    (data / "gldv2" / "bad.csv").write_text("\n".join(lines))
    words = [*WORDS, "train_dataset.pairs=bad.csv", "train_dataset.min_positives=null"]
    done = call("train.py", data, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("processes", [None, 2])
def test_two_trainings_of_one_model_are_kept_apart(data, tmp_path, processes):
    with exclusively(tmp_path / "model.pt"):
        done = call("train.py", data, *WORDS, "model_path=model.pt", cwd=tmp_path, processes=processes)
    assert done.returncode != 0
    assert "train: model.pt: another process writes these files; wait for it to end" in done.stderr
    assert not (tmp_path / "model.pt").exists()
    assert not (tmp_path / "model-journal.jsonl").exists()
