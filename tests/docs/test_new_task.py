"""The example of docs/training.md, a task in one file, has all that the trainer gives."""

import pytest
import torch

from ames.errors import AmesError
from ames.training import Trainer, Validation
from ames.training.logging.journal import Journal, read_journal
from ames.training.logging.monitor import TrainingMonitor
from ames.training.resuming import Checkpoints
from ames.weights.files import read_weights
from helpers.small_training import documented, documented_task, same, weights


def test_the_example_learns_as_it_is_written(tmp_path):
    task = documented_task()
    history = documented()["train"](task.x, task.labels, out=tmp_path / "model.pt")
    assert [record["epoch"] for record in history] == [1, 2, 3, 4, 5]
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert history[-1]["accuracy"] > 0.8


@pytest.mark.parametrize("options", [{}, {"accumulate": 2, "ema": 0.8, "autocast": "bf16"}], ids=str)
def test_it_resumes_bit_for_bit_with_its_own_state_and_journal(tmp_path, options):
    def trained(name, seed, stop_at=None):
        task, left = documented_task(seed, print_freq=1, **options), [stop_at]
        task.state_dict = lambda: {"calls": task.calls}
        task.load_state_dict = lambda state: setattr(task, "calls", state["calls"])
        loss, task.calls = task.loss, 0

        def counting(*args):
            if task.calls == left[0]:
                raise KeyError("as if the power had gone")
            task.calls += 1
            return loss(*args)

        task.loss = counting
        kept = Checkpoints(tmp_path / name, every=1, resume=True)
        monitor = TrainingMonitor(Journal(tmp_path / f"{name}.jsonl"), quiet=True)
        Trainer(task, checkpoints=kept, monitor=monitor).fit()
        return task

    whole = trained("whole", 0)
    for seed, stop_at in ((0, 4), (5, 8), (6, 11)):  # a resumed one starts from whatever weights
        with pytest.raises(KeyError):
            trained("model", seed, stop_at)
    resumed = trained("model", 5)
    assert same(weights(whole.model), weights(resumed.model))
    assert resumed.calls == whole.calls == 15
    timed = ("seconds", "items_per_second")
    one, two = (
        [{key: x for key, x in record.items() if key not in timed} for record in read_journal(path)]
        for path in (tmp_path / "whole.jsonl", tmp_path / "model.jsonl")
    )
    assert one == two
    assert len(one) == 15 + 3


def test_a_validation_says_which_is_the_best_and_what_its_file_says(tmp_path):
    task, found = documented_task(), iter([(1.0, "a"), (3.0, "b"), (None, "c")])

    def validate(model):
        assert not model.training
        score, word = next(found)
        return Validation({"lamb": 2}, score, {"word": word})

    task.validate = validate
    history = Trainer(task, out=tmp_path / "model.pt", provenance={"of": "x"}).fit()
    assert [record["lamb"] for record in history] == [2, 2, 2]
    assert read_weights(tmp_path / "model.pt").about == {"of": "x", "word": "c"}
    assert read_weights(tmp_path / "model-best.pt").about == {"of": "x", "word": "b"}


def test_other_data_are_refused(tmp_path):
    task = documented_task()
    Trainer(task, checkpoints=Checkpoints(tmp_path)).fit()
    task.size = 8
    with pytest.raises(AmesError, match="its training was begun with size 16, not 8; resume with the same"):
        Trainer(task, checkpoints=Checkpoints(tmp_path, resume=True)).fit()


def test_a_loss_that_is_not_finite_is_one_line(tmp_path):
    task = documented_task()
    task.x[7, 3] = torch.nan
    with pytest.raises(AmesError, match=r"^the loss became nan in epoch 1, batch \d: lower lr"):
        Trainer(task, out=tmp_path / "model.pt").fit()
    assert not list(tmp_path.iterdir())
