"""Several processes train what one trains: real ones, under torchrun, over gloo."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from small import loader, write_store

from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.models.checkpoints import load_model
from ames.training.distributed import Ranks, init_distributed
from ames.training.resuming import TERMINATED

SCRIPT = """
import json, os, sys, time, torch
sys.path.insert(0, {tests!r})
torch.set_num_threads(1)
from dataclasses import replace
from pathlib import Path
from small import DescriptorFile, RECIPE, loader, made
from ames.models.checkpoints import load_model
from ames.errors import AmesError
from ames.training import fit
from ames.features import LocalFeatures
from ames.training.distributed import init_distributed
from ames.training.resuming import Checkpoints
folder, options = Path({folder!r}), json.loads({options!r})
model = made(options["seed"] and int(os.environ["RANK"]), binarized=options["distilled"])
teacher = made(1) if options["distilled"] else None
def slow(*args, original=model.pairs):
    time.sleep(options["pause"])
    return original(*args)
model.pairs = slow
with init_distributed("cpu") as ranks:
    data = loader(DescriptorFile(folder / options["store"]), rank=ranks.rank, ranks=ranks.count, negatives=2)
    seen = []
    def validate(model):
        seen.append(ranks.rank)
        return {{"val_map": float(len(seen))}}
    try:
        history = fit(model, data, replace(RECIPE, epochs=3, clip=0.5, **options["recipe"]),
            teacher=teacher, ranks=ranks, validate=validate, out=folder / options["out"],
            checkpoints=Checkpoints(folder / (options["out"] + "-state"), every=1, resume=True))
    except AmesError as error:
        (folder / f"error-{{ranks.rank}}").write_text(str(error))
        raise SystemExit(2)
    (folder / (options["out"] + f"-{{ranks.rank}}.json")).write_text(json.dumps([history, seen]))
"""


def start(folder, processes, out, **options):
    options = {
        "out": out,
        "distilled": False,
        "recipe": {},
        "pause": 0,
        "store": "local.hdf5",
        "seed": 0,
    } | options
    code = SCRIPT.format(tests=str(Path(__file__).parent), folder=str(folder), options=json.dumps(options))
    script = folder / f"{out}.py"
    script.write_text(code)
    words = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*words, str(script)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def finished(training, status=0):
    _, errors = training.communicate(timeout=120)
    assert training.returncode == status, errors
    return errors


def history(folder, out, rank=0):
    return json.loads((folder / f"{out}-{rank}.json").read_text())


@pytest.mark.parametrize(
    "options",
    [
        {"recipe": {"desc_num_sampling": "pair", "accumulate": 2, "ema": 0.9}},
        {"distilled": True},
    ],
    ids=["pairs", "distilled"],
)
def test_two_processes_train_what_one_trains(tmp_path, options):
    write_store(tmp_path / "local.hdf5", unequal=True)
    for processes in (1, 2):
        finished(start(tmp_path, processes, f"n{processes}.pt", **options))
    (one, _), (two, looked), (other, never) = (
        history(tmp_path, out, rank) for out, rank in (("n1.pt", 0), ("n2.pt", 0), ("n2.pt", 1))
    )
    for a, b, c in zip(one, two, other, strict=True):
        for key in ("loss", "bce", "mse", "accuracy", "val_map"):
            assert b[key] == pytest.approx(a[key], rel=1e-5), key
            assert c[key] == b[key]
    assert (looked, never) == ([0, 0, 0], [])  # the first one alone validates
    # Not weight by weight: a bias of keys changes nothing, so that its gradient is rounding alone, which Adam
    # blows up to full steps.
    torch.manual_seed(0)
    query, database = (LocalFeatures.from_descriptors(torch.randn(20, 8, 16)) for _ in range(2))
    whole, shared = (load_model(tmp_path / out).pairs(query, database) for out in ("n1.pt", "n2.pt"))
    torch.testing.assert_close(shared, whole, rtol=1e-4, atol=1e-4)


def test_all_start_from_the_weights_of_the_first(tmp_path):
    write_store(tmp_path / "local.hdf5")
    for out, seed in (("same.pt", 0), ("apart.pt", 1)):  # 1: each process makes a model of its own
        finished(start(tmp_path, 2, out, seed=seed))
    same, apart = (history(tmp_path, out)[0] for out in ("same.pt", "apart.pt"))
    assert [x["loss"] for x in apart] == [x["loss"] for x in same]


def test_sigterm_keeps_the_state_and_any_number_of_processes_goes_on(tmp_path):
    write_store(tmp_path / "local.hdf5")
    finished(start(tmp_path, 1, "whole.pt"))
    training = start(tmp_path, 2, "model.pt", pause=0.3)
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
    finished(start(tmp_path, 1, "model.pt"))
    a, b = history(tmp_path, "whole.pt")[0], history(tmp_path, "model.pt")[0]
    assert [x["loss"] for x in b] == pytest.approx([x["loss"] for x in a], rel=1e-5)


def test_what_stops_one_process_stops_both_with_the_whole_batch_named(tmp_path):
    write_store(tmp_path / "local.hdf5", spoiled=5)
    training = start(tmp_path, 2, "model.pt")
    training.communicate(timeout=120)
    messages = [(tmp_path / f"error-{rank}").read_text() for rank in range(2)]
    assert messages[0] == messages[1]
    assert "the loss became nan in epoch 1" in messages[0]
    batch = json.loads((tmp_path / "model-bad-batch.json").read_text())
    assert len(batch["anchors"]) == len(batch["positives"]) == 8
    images = {*batch["anchors"], *batch["positives"], *np.ravel(batch["negatives"]).tolist()}
    assert 5 in images


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
        loader(store, rank=0, ranks=9)


def test_the_status_of_sigterm():
    assert TERMINATED == 143
