"""Training that is interrupted, by whatever means, ends with the weights of one that was not."""

import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from ames.embedders.fusion import AttentiveSum, Orthogonal
from ames.errors import AmesError
from ames.models.checkpoints import load_model
from ames.training import Trainer, resuming
from ames.training.resuming import TERMINATED, Checkpoints, Interruption
from helpers.commands import ROOT
from helpers.killed_training import train
from helpers.small_aff import AFF, DIM, stored, write_aff, write_features
from helpers.small_networks import NETWORKS, write_photos
from helpers.small_training import (
    RECIPE,
    RERANKERS,
    detector_task,
    fit,
    loader,
    made,
    reranker_task,
    same,
    weights,
    write_store,
)

LONGER = replace(RECIPE, epochs=4, warmup=3, clip=1.0)


class Interrupted(Exception):  # noqa: N818 - not an error of anything
    pass


def broken_off(model, batches, store, folder, **options):
    """Trains for some batches, each of whose states is kept, then stops as if the power had gone."""
    left = [batches]

    def objective(*args, **more):
        if not left[0]:
            raise Interrupted
        left[0] -= 1
        return original(*args, **more)

    original, model.pairs = model.pairs, objective
    with pytest.raises(Interrupted):
        fit(model, loader(store), LONGER, checkpoints=Checkpoints(folder, every=1), **options)


@pytest.mark.parametrize("batches", [1, 3, 4, 7, 13])
def test_the_weights_are_those_of_an_uninterrupted_training(store, tmp_path, batches):
    whole = made()
    history = fit(whole, loader(store), LONGER)
    broken_off(made(), batches, store, tmp_path)
    resumed = made(7)  # whatever it starts from
    found = fit(resumed, loader(store), LONGER, checkpoints=Checkpoints(tmp_path, resume=True))
    assert same(weights(whole), weights(resumed))
    for a, b in zip(history, found, strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == {
            k: v for k, v in b.items() if k != "seconds"
        }


def test_a_student_and_accumulated_steps_too(store, tmp_path):
    recipe = replace(LONGER, accumulate=3)

    def trained(stop_at=None, **options):
        model = made(binarized=True)
        if stop_at is not None:
            forward, left = model.forward, [stop_at]

            def failing(*args, **more):
                left[0] -= 1
                if left[0] < 0:
                    raise Interrupted
                return forward(*args, **more)

            model.forward = failing
        fit(model, loader(store), recipe, teacher=made(1), **options)
        return weights(model)

    whole = trained()
    with pytest.raises(Interrupted):
        trained(6, checkpoints=Checkpoints(tmp_path, every=1))
    assert same(whole, trained(checkpoints=Checkpoints(tmp_path, resume=True)))


@pytest.mark.parametrize("stop", [(0, 1), (1, 0), (1, 2)])
@pytest.mark.parametrize("name", AFF)
def test_aff_resumes_with_what_was_drawn_and_counted(name, stop, tmp_path, one_thread):
    """Dropout is drawn again as it was; the twins follow on from where they were."""
    write_aff(tmp_path)
    options = {"bad": {1: "cut.jpg", 8: "text.jpg"}, "dropout": 0.2, "ema": 0.9}
    whole, broken = (AFF[name](tmp_path, **options) for _ in range(2))
    first, history = weights(whole.model), Trainer(whole).fit()
    assert not same(first, weights(whole.model))
    assert all(record.get("unreadable") == 2 for record in history) == (name != "aff_gallery")
    epoch = broken.epoch

    def failing(number, start=0):
        for place, batch in enumerate(epoch(number, start), start):
            if (number, place) == stop:
                raise Interrupted
            yield batch

    broken.epoch, kept = failing, tmp_path / "states"
    with pytest.raises(Interrupted):
        Trainer(broken, checkpoints=Checkpoints(kept, every=1)).fit()
    resumed = AFF[name](tmp_path, seed=7, **options)
    found = Trainer(resumed, checkpoints=Checkpoints(kept, resume=True)).fit()
    assert same(weights(whole.model), weights(resumed.model))
    assert [x | {"seconds": 0} for x in found] == [x | {"seconds": 0} for x in history]


def test_aff_is_not_resumed_with_another_fusion_or_other_features(tmp_path):
    write_aff(tmp_path)
    kept = tmp_path / "states"
    Trainer(AFF["aff_gallery"](tmp_path), checkpoints=Checkpoints(kept)).fit()
    features = [x.to_dict() for x in stored(tmp_path).specs]
    for kind in (AttentiveSum, Orthogonal):  # of equal arguments
        other = AFF["aff_gallery"](tmp_path)
        other.model.gallery = kind(features=features, dim=DIM)
        with pytest.raises(
            AmesError, match=r"its training was begun with both .*'Mixer'.*not .*; resume with"
        ):
            Trainer(other, checkpoints=Checkpoints(kept, resume=True)).fit()
    write_features(tmp_path, seed=1)
    with pytest.raises(AmesError, match="its training was begun with features"):
        Trainer(AFF["aff_gallery"](tmp_path), checkpoints=Checkpoints(kept, resume=True)).fit()


@pytest.mark.parametrize("name", RERANKERS)
def test_every_reranker_resumes(name, store, tmp_path):
    whole, broken = (reranker_task(name, store.path, epochs=2) for _ in range(2))
    first = weights(whole.model)
    Trainer(whole).fit()
    assert not same(first, weights(whole.model))
    epoch = broken.epoch

    def failing(number, start=0):
        for place, batch in enumerate(epoch(number, start)):
            if (number, place) == (1, 2):
                raise Interrupted
            yield batch

    broken.epoch = failing
    with pytest.raises(Interrupted):
        Trainer(broken, checkpoints=Checkpoints(tmp_path, every=1)).fit()
    resumed = reranker_task(name, store.path, seed=7, epochs=2)
    Trainer(resumed, checkpoints=Checkpoints(tmp_path, resume=True)).fit()
    assert same(weights(whole.model), weights(resumed.model))


def same_records(a, b):
    """But for seconds."""
    return [x | {"seconds": 0} for x in a] == [x | {"seconds": 0} for x in b]


@pytest.mark.parametrize("stop", [(0, 1), (1, 0), (1, 2)])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_resumes_with_what_was_mined_and_counted(name, stop, tmp_path, one_thread):
    write_photos(tmp_path)
    bad = {1: "cut.jpg", 8: "text.jpg"}
    whole, broken = (NETWORKS[name](tmp_path, bad=bad, accumulate=1, ema=0.9) for _ in range(2))
    first = weights(whole.model)
    history = Trainer(whole).fit()
    assert not same(first, weights(whole.model))
    assert all(record["unreadable"] >= 1 for record in history)
    epoch = broken.epoch

    def failing(number, start=0):
        for place, batch in enumerate(epoch(number, start)):
            if (number, place) == stop:
                raise Interrupted
            yield batch

    broken.epoch = failing
    kept = tmp_path / "states"
    with pytest.raises(Interrupted):
        Trainer(broken, checkpoints=Checkpoints(kept, every=1)).fit()
    resumed = NETWORKS[name](tmp_path, seed=7, bad=bad, accumulate=1, ema=0.9)
    found = Trainer(resumed, checkpoints=Checkpoints(kept, resume=True)).fit()
    assert same(weights(whole.model), weights(resumed.model))
    assert same_records(history, found)


def test_a_state_is_there_before_the_first_model(store, tmp_path, monkeypatch):
    """Else a training that ends between the two would find a model that it cannot resume."""
    kept, whole, resumed = Checkpoints(tmp_path), made(), made(7)

    def failing(*_, **__):
        assert not kept.empty
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save", failing)
        with pytest.raises(Interrupted):
            fit(made(), loader(store), LONGER, checkpoints=kept)
    fit(whole, loader(store), LONGER)
    fit(resumed, loader(store), LONGER, checkpoints=Checkpoints(tmp_path, resume=True))
    assert same(weights(whole), weights(resumed))


def test_the_last_states_stay(store, tmp_path):
    fit(made(), loader(store), LONGER, checkpoints=Checkpoints(tmp_path, every=1, keep=3))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"state-{done:09}.pt" for done in (14, 15, 16)]


def test_a_damaged_state_is_passed_over(store, tmp_path, caplog):
    whole = made()
    fit(whole, loader(store), LONGER)
    broken_off(made(), 7, store, tmp_path)
    newest = max(tmp_path.iterdir())
    newest.write_bytes(newest.read_bytes()[:-500])
    resumed = made(7)
    fit(resumed, loader(store), LONGER, checkpoints=Checkpoints(tmp_path, resume=True))
    assert same(weights(whole), weights(resumed))
    assert f"{newest}: damaged" in caplog.text
    for path in tmp_path.iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(AmesError, match="none of its 2 states can be read; remove it"):
        fit(made(), loader(store), LONGER, checkpoints=Checkpoints(tmp_path, resume=True))


def test_a_training_begun_otherwise_is_refused(store, tmp_path):
    broken_off(made(), 3, store, tmp_path)
    with pytest.raises(AmesError, match=r"was begun with lr 0.001, not 0.002; resume with the same"):
        fit(made(), loader(store), replace(LONGER, lr=2e-3), checkpoints=Checkpoints(tmp_path, resume=True))
    with pytest.raises(AmesError, match="was begun with seed 0, not 1"):
        fit(made(), loader(store, seed=1), LONGER, checkpoints=Checkpoints(tmp_path, resume=True))
    with pytest.raises(AmesError, match="of a training that was interrupted; give resume=auto, or overwrite"):
        fit(made(), loader(store), LONGER, checkpoints=Checkpoints(tmp_path))
    other = made(model_dim=8, nhead=1)
    with pytest.raises(AmesError, match="was begun with model_dim 16, not 8"):
        fit(other, loader(store), LONGER, checkpoints=Checkpoints(tmp_path, resume=True))
    spoiled = write_store(tmp_path.parent / f"{tmp_path.name}.hdf5", spoiled=0)
    with pytest.raises(AmesError, match=r"was begun with descriptors \d+, not \d+"):
        fit(made(), loader(spoiled), LONGER, checkpoints=Checkpoints(tmp_path, resume=True))
    with pytest.raises(AmesError, match=r"was begun with teacher None, not '[0-9a-f]{16}'"):
        fit(made(), loader(store), LONGER, teacher=made(1), checkpoints=Checkpoints(tmp_path, resume=True))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_state_of_another_version_is_refused(store, tmp_path):
    broken_off(made(), 3, store, tmp_path)
    for path in tmp_path.iterdir():
        old = torch.load(path, weights_only=True)
        del old["version"]  # the first one had none
        torch.save(old, path)
    with pytest.raises(AmesError, match=r"state-000000003.pt: a state of another version of ames; resume"):
        fit(made(), loader(store), LONGER, checkpoints=Checkpoints(tmp_path, resume=True))
    with pytest.raises(AmesError, match="of a training that was interrupted; give resume=auto, or overwrite"):
        fit(made(), loader(store), LONGER, checkpoints=Checkpoints(tmp_path))


def test_overwrite_begins_again_and_removes_the_states_of_an_interrupted_training(store, tmp_path):
    whole, again = made(), made()
    fit(whole, loader(store), LONGER)
    broken_off(made(2), 3, store, tmp_path)
    fit(again, loader(store), LONGER, checkpoints=Checkpoints(tmp_path, overwrite=True))
    assert same(weights(whole), weights(again))
    with pytest.raises(AmesError, match="overwrite begins again: give one of the two"):
        Checkpoints(tmp_path, resume=True, overwrite=True)


def test_a_state_of_another_task_is_refused(store, tmp_path):
    broken_off(made(), 3, store, tmp_path)
    with pytest.raises(AmesError, match="was begun with task 'PairwiseTask', not 'DetectorTask'"):
        Trainer(detector_task(loader(store)), checkpoints=Checkpoints(tmp_path, resume=True)).fit()


def test_another_teacher_is_refused(store, tmp_path):
    student, kept = made(binarized=True), Checkpoints(tmp_path, resume=True)
    fit(student, loader(store), RECIPE, teacher=made(1), checkpoints=kept)
    with pytest.raises(AmesError, match="was begun with teacher"):
        fit(student, loader(store), RECIPE, teacher=made(2), checkpoints=kept)
    fit(student, loader(store), RECIPE, teacher=made(1), checkpoints=kept)


def test_a_damaged_state_is_none_of_the_last_that_stay(store, tmp_path):
    broken_off(made(), 7, store, tmp_path)
    damaged = max(tmp_path.iterdir())
    damaged.write_bytes(b"nothing")
    kept = Checkpoints(tmp_path, keep=1)
    kept.save({"finished": False}, {}, 6)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["state-000000006.pt", damaged.name]
    kept.save({"finished": False}, {}, 8)
    assert [path.name for path in tmp_path.iterdir()] == ["state-000000008.pt"]


def test_states_between_steps_come_with_the_next_step(store, tmp_path):
    recipe = replace(RECIPE, epochs=1, accumulate=2)  # of 4 batches
    fit(made(), loader(store), recipe, checkpoints=Checkpoints(tmp_path, every=3, keep=9))
    assert [path.name for path in tmp_path.iterdir()] == ["state-000000004.pt"]
    every = Checkpoints(tmp_path, every=5)
    assert [x for x in range(4, 41, 4) if every.due(x, 4)] == [8, 12, 16, 20, 28, 32, 36, 40]
    assert [x for x in range(1, 21) if every.due(x)] == [5, 10, 15, 20]


def test_a_finished_training_makes_room_for_a_new_one(store, tmp_path):
    first, again = made(), made()
    fit(first, loader(store), RECIPE, checkpoints=Checkpoints(tmp_path))
    fit(again, loader(store), replace(RECIPE, lr=2e-3), checkpoints=Checkpoints(tmp_path))
    assert not same(weights(first), weights(again))
    done = made()
    history = fit(
        done, loader(store), replace(RECIPE, lr=2e-3), checkpoints=Checkpoints(tmp_path, resume=True)
    )
    assert same(weights(done), weights(again))  # nothing was left to do
    assert len(history) == 2


def test_a_finished_training_says_so_and_leaves_its_model(store, tmp_path, caplog):
    out, kept = tmp_path / "model.pt", Checkpoints(tmp_path / "state", resume=True)
    history = fit(made(), loader(store), RECIPE, out=out, checkpoints=kept)
    before = out.stat().st_mtime_ns, out.read_bytes()
    for gone in (False, True):
        if gone:
            out.unlink()
        caplog.clear()
        with caplog.at_level("INFO"):
            assert fit(made(3), loader(store), RECIPE, out=out, checkpoints=kept) == history
        assert "is finished already: nothing is left to train" in caplog.text
        assert "goes on" not in caplog.text
        assert out.stat().st_mtime_ns == before[0] or gone
    first = tmp_path / "first.pt"
    first.write_bytes(before[1])
    assert same(load_model(out).state_dict(), load_model(first).state_dict())


def test_numbers_that_keep_nothing(tmp_path):
    for options in ({"keep": 0}, {"every": -1}):
        with pytest.raises(AmesError, match="must be at least 1, save_every"):
            Checkpoints(tmp_path, **options)


# ---- batches that are not finite ------------------------------------------------------------------------


def test_a_batch_that_is_not_finite_is_skipped_and_counted(tmp_path):
    spoiled = write_store(tmp_path / "spoiled.hdf5", spoiled=5)
    model = made()
    history = fit(model, loader(spoiled), replace(RECIPE, epochs=3, non_finite="skip"))
    assert sum(record.get("skipped", 0) for record in history) >= 3  # each epoch has the image somewhere
    assert all(torch.isfinite(x).all() for x in model.state_dict().values())
    assert all(record["loss"] == record["loss"] for record in history)


def test_an_infinite_gradient_of_a_finite_loss_stops_it_too(store, tmp_path):
    model = made()
    model.classifier.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = weights(model)
    with pytest.raises(
        AmesError, match=r"its gradient became inf in epoch 1, batch 1; its images are in (.*);"
    ):
        fit(model, loader(store), RECIPE, out=tmp_path / "model.pt")
    assert same(before, weights(model))
    assert (tmp_path / "model-bad-batch.json").is_file()
    assert not (tmp_path / "model.pt").exists()


def test_nothing_but_bad_batches_is_an_error(store):
    model = made()
    model.classifier.weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(AmesError, match="epoch 1: no batch had a finite loss and gradient"):
        fit(model, loader(store), replace(RECIPE, non_finite="skip"))


# ---- real processes --------------------------------------------------------------------------------------


def process(folder, task):
    """A training of its own that is slow enough to be killed."""
    path = os.pathsep.join([str(ROOT / "tests"), *sys.path])
    words = [sys.executable, str(ROOT / "tests" / "helpers" / "killed_training.py"), str(folder), task]
    return subprocess.Popen(words, env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.DEVNULL)


def state_of(path):
    return torch.load(path, weights_only=True)["state"]


def wait_for_states(folder, number):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        names = sorted(path.name for path in folder.glob("state-*.pt")) if folder.exists() else []
        if names and int(names[-1][6:15]) >= number:
            return
        time.sleep(0.01)
    raise AssertionError("no states were written")


@pytest.mark.parametrize(
    ("task", "signals"),
    [
        ("pairwise", {2: signal.SIGKILL, 9: signal.SIGTERM, 14: signal.SIGINT}),
        ("detector", {6: signal.SIGKILL}),
        ("locore", {6: signal.SIGKILL}),
    ],
)
def test_kill_sigterm_and_ctrl_c_cost_nothing(one_thread, tmp_path, task, signals):
    write_store(tmp_path / "local.hdf5")
    train(tmp_path, "whole", task)
    status = {signal.SIGTERM: TERMINATED, signal.SIGINT: -signal.SIGINT}  # of KeyboardInterrupt
    for number, sent in signals.items():
        training = process(tmp_path, task)
        wait_for_states(tmp_path / "model", number)
        os.kill(training.pid, sent)
        assert training.wait(60) == status.get(sent, -sent)
    train(tmp_path, "model", task)
    assert same(state_of(tmp_path / "whole.pt"), state_of(tmp_path / "model.pt"))


def test_a_second_ctrl_c_does_not_wait(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(resuming.time, "monotonic", lambda: now[0])
    before = signal.getsignal(signal.SIGINT)
    with Interruption(kept=True) as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        now[0] = 0.5  # torchrun's, of the same press
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.asked
        now[0] = 1.5
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interruption.leave()
    assert signal.getsignal(signal.SIGINT) == before


def test_a_full_disk_stops_it_and_the_earlier_state_survives(store, tmp_path):
    whole = made()
    fit(whole, loader(store), LONGER)
    states = tmp_path / "states"
    broken_off(made(), 5, store, states)
    before = {path.name: path.read_bytes() for path in states.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (min(map(len, before.values())) // 2, hard))
    try:
        with pytest.raises(AmesError, match=r"state-\d+\.pt: cannot be written") as error:
            fit(made(), loader(store), LONGER, checkpoints=Checkpoints(states, every=1, resume=True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert {path.name: path.read_bytes() for path in states.iterdir()} == before
    resumed = made(7)
    fit(resumed, loader(store), LONGER, checkpoints=Checkpoints(states, resume=True))
    assert same(weights(whole), weights(resumed))


@pytest.mark.slow
def test_compiled_losses_train_to_the_same_weights(store):
    plain, compiled = made(), made()
    a = fit(plain, loader(store), RECIPE)
    b = fit(compiled, loader(store), replace(RECIPE, compile=True))
    assert [x["loss"] for x in b] == pytest.approx([x["loss"] for x in a], rel=1e-4)
