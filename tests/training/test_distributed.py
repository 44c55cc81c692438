"""Several processes train what one trains: real ones, under torchrun, over gloo."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from ames.backbones.detector import load_detector
from ames.embedders.checkpoints import load_embedder, sides_of
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.models.checkpoints import load_model
from ames.training.distributed import Ranks, init_distributed
from ames.training.resuming import TERMINATED
from ames.weights.files import read_weights
from helpers.commands import ROOT
from helpers.distributed_training import train
from helpers.small_aff import stored, write_aff
from helpers.small_networks import IMAGES, NETWORKS, write_photos
from helpers.small_training import RERANKERS, loader, write_store

SCRIPT = ROOT / "tests" / "helpers" / "distributed_training.py"


def start(folder, *trainings):
    """Two processes that share these trainings, in a row: their start takes longer than a training."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    path = os.pathsep.join([str(ROOT / "tests"), *sys.path])
    return subprocess.Popen(
        [*words, str(SCRIPT), str(folder), json.dumps(trainings)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(training, status=0):
    _, errors = training.communicate(timeout=120)
    assert training.returncode == status, errors
    return errors


def history(folder, out, rank=0):
    return json.loads((folder / f"{out}-{rank}.json").read_text())


# What the first of two processes reads of the first batch, 2 images of RAML and 4 of AFF: all are broken.
FIRST = np.random.default_rng([0, 13, 0]).permutation(IMAGES).tolist()
IDLE = {count: {str(row): "cut.jpg" for row in FIRST[:count]} for count in (2, 4)}
BAD = {"7": "cut.jpg", "12": "empty.jpg"}
SHARED = ("aff_csd", "aff_sampled", "aff_network")
OPTIONS = {
    "pairs": {"recipe": {"desc_num_sampling": "pair", "accumulate": 2, "ema": 0.9}, "store": "unequal.hdf5"},
    "distilled": {"task": "distilled", "store": "unequal.hdf5"},
    "documented": {"task": "documented", "recipe": {"accumulate": 2}},
    "detector": {"task": "detector", "recipe": {"accumulate": 2, "ema": 0.9}, "store": "unequal.hdf5"},
    **{name: {"task": name, "store": "unequal.hdf5"} for name in RERANKERS},
    # A low rate: normalization over a few images of 32 pixels blows up how sums are rounded.
    **{name: {"task": name, "bad": BAD, "recipe": {"lr": 1e-4}} for name in NETWORKS},
    "idle": {"task": "raml", "bad": IDLE[2], "recipe": {"lr": 1e-4}},
    **{name: {"task": name, "bad": IDLE[4], "recipe": {"lr": 1e-3, "query_lr": 1e-4}} for name in SHARED},
}


PHOTOS = {*NETWORKS, "idle"}
SPOILED = {"model.pt": "pairwise", "detector.pt": "detector"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The folder of trainings by two processes, and of some by one."""
    folder = tmp_path_factory.mktemp("shared")
    write_store(folder / "local.hdf5")
    write_store(folder / "unequal.hdf5", unequal=True)
    write_aff(folder / "aff")
    write_photos(folder / "photos")
    trainings = [{"out": f"{name}2.pt", **options} for name, options in OPTIONS.items()]
    trainings += [
        {"out": "same.pt"},
        {"out": "apart.pt", "seed": 1},
    ]  # 1: each process makes a model of its own
    write_store(folder / "spoiled.hdf5", spoiled=5)
    spoiled = {"store": "spoiled.hdf5"}
    trainings += [{"out": out, "task": task, **spoiled} for out, task in SPOILED.items()]
    trainings += [{"out": "skipping.pt", "task": "detector", "recipe": {"non_finite": "skip"}, **spoiled}]
    finished(start(folder, *trainings))
    for name, options in OPTIONS.items():
        train(folder, out=f"{name}1.pt", **options)
    return folder


@pytest.mark.parametrize("name", OPTIONS)
def test_two_processes_train_what_one_trains(shared, name):
    (one, _), (two, looked), (other, never) = (
        history(shared, f"{name}{count}.pt", rank) for count, rank in ((1, 0), (2, 0), (2, 1))
    )
    for a, b, c in zip(one, two, other, strict=True):
        more = {"bce", "mse"} if name in ("pairs", "distilled") else set()
        assert {*a} >= {"loss", "val_map"} | ({"unreadable"} if name in PHOTOS else {"accuracy"} | more)
        for key in a.keys() - {"epoch", "seconds"}:
            assert b[key] == pytest.approx(a[key], rel=1e-5), key
            assert c[key] == b[key]
    assert (looked, never) == ([0, 0, 0], [])  # the first one alone validates
    # Not weight by weight: a bias of keys changes nothing, so that its gradient is rounding alone, which Adam
    # blows up to full steps. So with the detector's bias before batch normalization, in training mode.
    torch.manual_seed(0)
    query, database = (
        LocalFeatures.from_descriptors(torch.randn(20, 8, 16), vector=torch.randn(20, 16)) for _ in range(2)
    )
    paths = [shared / f"{name}{n}.pt" for n in (1, 2)]
    if name in SHARED:
        features, images = stored(shared / "aff").read(np.arange(IMAGES)), torch.rand(20, 3, 40, 40)
        for side in sides_of(paths[0]):
            whole, parts = (load_embedder(path, None if side == "both" else side) for path in paths)
            given = features if side == "gallery" else images
            torch.testing.assert_close(parts(given), whole(given), rtol=1e-4, atol=1e-4)
        return
    if name == "documented":
        whole, parts = (read_weights(path).state["weight"] for path in paths)
    elif name in PHOTOS:
        images = 2 * torch.rand(20, 3, 32, 32) - 1
        whole, parts = (load_embedder(path, "query")(images) for path in paths)
    elif name == "detector":
        models = [load_detector(path).train() for path in paths]
        whole, parts = (model.locations(query.descriptors)[1] for model in models)
    else:
        models = [load_model(path) for path in paths]
        whole, parts = (scores(model, query, database) for model in models)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)


def scores(model, query, database):
    """Of 20 pairs, or of 4 lists of 5 images."""
    if model.window is None:
        return model.pairs(query, database)
    return model.score(query[:4], database.reshape(4, 5))


def test_all_start_from_the_weights_of_the_first(shared):
    same, apart = (history(shared, out)[0] for out in ("same.pt", "apart.pt"))
    assert [x["loss"] for x in apart] == [x["loss"] for x in same]


def test_sigterm_keeps_the_state_and_any_number_of_processes_goes_on(tmp_path):
    write_store(tmp_path / "local.hdf5")
    train(tmp_path, out="whole.pt")
    training = start(tmp_path, {"out": "model.pt", "pause": 0.3})
    states = tmp_path / "model.pt-state"
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and not (states / "state-000000002.pt").exists():
        time.sleep(0.05)
    training.send_signal(signal.SIGTERM)
    training.communicate(timeout=60)
    assert training.returncode != 0
    kept = max(states.iterdir())
    assert int(kept.stem[6:]) < 12
    assert not (tmp_path / "model.pt-0.json").exists()
    train(tmp_path, out="model.pt")
    a, b = history(tmp_path, "whole.pt")[0], history(tmp_path, "model.pt")[0]
    assert [x["loss"] for x in b] == pytest.approx([x["loss"] for x in a], rel=1e-5)


def test_what_stops_one_process_stops_both_and_names_what_it_was(shared):
    messages = {out: [(shared / f"error-{out}-{rank}").read_text() for rank in range(2)] for out in SPOILED}
    assert all(one == other for one, other in messages.values())
    assert "the loss became nan in epoch 1" in messages["model.pt"][0]
    batch = json.loads((shared / "model-bad-batch.json").read_text())
    assert len(batch["anchors"]) == len(batch["positives"]) == 8
    images = {*batch["anchors"], *batch["positives"], *np.ravel(batch["negatives"]).tolist()}
    assert 5 in images
    assert messages["detector.pt"][0] == "image 5 has a descriptor that is not finite: extract it again"
    one, other = (history(shared, "skipping.pt", rank)[0] for rank in range(2))
    assert [x["loss"] for x in one] == [x["loss"] for x in other]
    assert all(record["skipped"] >= 1 for record in one)


# ---- alone ----------------------------------------------------------------------------------------------


def test_alone_nothing_is_sent():
    ranks = Ranks()
    assert ranks.is_main
    assert ranks.all_reduce_sum([1.5, 2]) == [1.5, 2.0]
    assert ranks.all_reduce_max(3) == 3
    assert ranks.broadcast_from_main(lambda: "x") == "x"
    with pytest.raises(AmesError, match="why"):
        ranks.broadcast_from_main(lambda: (_ for _ in ()).throw(AmesError("why")))


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "99")
    with pytest.raises(AmesError, match="process 99 of this machine has no GPU"), init_distributed("cuda"):
        pass


def test_a_batch_too_small_to_share(store):
    with pytest.raises(AmesError, match="a batch of 8 triplets cannot be shared by 9 ranks"):
        loader(store).epoch(0, ranks=Ranks(count=9))


def test_the_status_of_sigterm():
    assert TERMINATED == 143
