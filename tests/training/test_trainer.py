"""Training on a data set of seconds: it learns, repeats itself, and stops before it does harm."""

import dataclasses
import math

import pytest
import torch

from ames.errors import AmesError
from ames.models.checkpoints import load_model
from ames.training import Validation
from ames.training.tasks.pairwise import PairwiseRecipe
from helpers.small_training import RECIPE, fit, loader, made, same, weights, write_store


def test_the_loss_falls(store, tmp_path):
    model = made()
    recipe = dataclasses.replace(RECIPE, epochs=30, lr=3e-3)
    history = fit(model, loader(store), recipe, out=tmp_path / "model.pt", provenance={"backbone": "x"})
    assert [record["epoch"] for record in history] == list(range(1, 31))
    assert history[0]["loss"] > 0.5
    assert history[-1]["loss"] < 0.2
    assert history[-1]["accuracy"] > 0.95
    assert all(record["mse"] == 0 for record in history)
    assert not model.training
    assert same(weights(load_model(tmp_path / "model.pt")), weights(model))


@pytest.mark.parametrize("distilled", [False, True])
def test_the_same_seed_gives_the_same_weights(store, distilled):
    def trained(seed):
        model = made(binarized=distilled)
        teacher = made(1) if distilled else None
        fit(model, loader(store, seed), dataclasses.replace(RECIPE, seed=seed), teacher=teacher)
        return weights(model)

    first = trained(3)
    torch.rand(5)  # the global generator plays no part
    assert same(first, trained(3))
    assert not same(first, trained(4))


def test_distillation_teaches_the_student_and_not_the_teacher(store):
    teacher, student = made(1), made(binarized=True)
    teacher.train()
    before, start = weights(teacher), weights(student)
    history = fit(student, loader(store), dataclasses.replace(RECIPE, epochs=8, lr=3e-3), teacher=teacher)
    assert same(before, weights(teacher))
    assert not teacher.training
    assert all(x.grad is None and not x.requires_grad for x in teacher.parameters())
    moved = [name for name, x in weights(student).items() if not torch.equal(x, start[name])]
    assert len(moved) == len(start)
    assert history[-1]["mse"] < 0.8 * history[0]["mse"]
    for record in history:
        assert record["loss"] == pytest.approx(record["bce"] + RECIPE.beta * record["mse"], rel=1e-5)


@pytest.mark.parametrize("distilled", [False, True])
def test_descriptors_that_are_no_numbers_stop_it_and_the_earlier_checkpoint_stays(store, tmp_path, distilled):
    out = tmp_path / "model.pt"
    fit(made(), loader(store), RECIPE, out=out)
    earlier = out.read_bytes()
    spoiled = loader(write_store(tmp_path / "spoiled.hdf5", spoiled=5))
    model, teacher = made(binarized=distilled), made(1) if distilled else None
    with pytest.raises(AmesError, match=r"the loss became nan in epoch 1, batch \d") as error:
        fit(model, spoiled, RECIPE, out=out, teacher=teacher)
    assert "\n" not in str(error.value)
    assert out.read_bytes() == earlier
    assert all(x.isfinite().all() for x in model.state_dict().values())


def learning_rates(monkeypatch, store, recipe):
    found = []

    class Recording(torch.optim.AdamW):
        def step(self, *args, **kwargs):
            found.append(self.param_groups[0]["lr"])
            return super().step(*args, **kwargs)

    monkeypatch.setattr(torch.optim, "AdamW", Recording)
    fit(made(), loader(store), recipe)
    return found


def test_the_learning_rate_follows_a_cosine_to_zero(monkeypatch, store):
    found = learning_rates(monkeypatch, store, dataclasses.replace(RECIPE, epochs=5))
    steps = 5 * 4
    assert found == pytest.approx([1e-3 * (1 + math.cos(math.pi * i / steps)) / 2 for i in range(steps)])
    assert found[0] == 1e-3
    assert found[-1] < 0.01 * 1e-3


def test_warm_up_rises_to_the_cosine(monkeypatch, store):
    found = learning_rates(monkeypatch, store, dataclasses.replace(RECIPE, epochs=5, warmup=6))
    assert found[:7] == pytest.approx([1e-3 * (i + 1) / 7 for i in range(7)])
    assert found[6:] == pytest.approx([1e-3 * (1 + math.cos(math.pi * i / 14)) / 2 for i in range(14)])


def test_counts_are_drawn_once_a_batch_for_each_side(monkeypatch, store):
    seen = []
    model = made()
    pairs = model.pairs

    def recording(query, database):
        seen.append((query.size, database.size))
        return pairs(query, database)

    monkeypatch.setattr(model, "pairs", recording)
    fit(model, loader(store), dataclasses.replace(RECIPE, epochs=30, min_desc=3, max_desc=6))
    assert len(seen) == 30 * 4
    assert set(seen) == {(n, m) for n in (3, 4, 5) for m in (3, 4, 5)}


def test_clipping_bounds_the_gradient(monkeypatch, store):
    norms = []

    class Recording(torch.optim.AdamW):
        def step(self, *args, **kwargs):
            gradients = [x.grad.norm() for group in self.param_groups for x in group["params"]]
            norms.append(torch.stack(gradients).norm().item())
            return super().step(*args, **kwargs)

    monkeypatch.setattr(torch.optim, "AdamW", Recording)
    fit(made(), loader(store), dataclasses.replace(RECIPE, clip=0.01))
    assert norms == pytest.approx([0.01] * 8, rel=1e-3)
    norms.clear()
    fit(made(), loader(store), RECIPE)
    assert min(norms) > 0.02


def test_validation_sees_evaluation_mode_and_joins_the_record(store):
    modes = []

    def validate(model):
        modes.append(model.training)
        return Validation({"map": 12.5})

    model = made()
    history = fit(model, loader(store), dataclasses.replace(RECIPE, epochs=5, val_freq=2), validate=validate)
    assert modes == [False, False, False]
    assert ["map" in record for record in history] == [False, True, False, True, True]


@pytest.mark.parametrize("autocast", ["bf16", "fp16"])
def test_half_the_bits_train_too(store, autocast):
    model = made()
    history = fit(model, loader(store), dataclasses.replace(RECIPE, autocast=autocast))
    assert all(math.isfinite(record["loss"]) for record in history)
    assert {x.dtype for x in model.parameters()} == {torch.float32}


# ---- refused at once ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_dim": 32}, "the teacher's tokens are 32-d, the student's 16-d"),
        ({"local_dim": 24}, "the teacher takes 24-d descriptors, the student 16-d ones"),
    ],
)
def test_a_teacher_of_another_width(store, changes, message):
    with pytest.raises(AmesError, match=message):
        fit(made(binarized=True), loader(store), RECIPE, teacher=made(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_desc": 8}, "8 ... 7, which is empty"),
        ({"min_desc": 0}, "min_desc ... max_desc - 1 = 0 ... 7"),
        ({"epochs": 0}, "epochs 0 and val_freq 1 must be at least 1"),
        ({"val_freq": 0}, "epochs 2 and val_freq 0 must be at least 1"),
    ],
)
def test_a_recipe_that_trains_nothing(store, changes, message):
    with pytest.raises(AmesError, match=message):
        fit(made(), loader(store), dataclasses.replace(RECIPE, **changes))


def test_a_checkpoint_that_could_not_be_read_again(store, tmp_path):
    out = tmp_path / "model.safetensors"
    with pytest.raises(AmesError, match=r"give a name in \.pt"):
        fit(made(), loader(store), RECIPE, out=out)
    assert not out.exists()


def test_the_recipe_is_the_paper_s():
    recipe = PairwiseRecipe()
    assert (recipe.epochs, recipe.lr, recipe.weight_decay) == (15, 2e-4, 5e-4)
    assert (recipe.min_desc, recipe.max_desc, recipe.beta) == (10, 400, 10.0)
    assert (recipe.warmup, recipe.clip, recipe.autocast) == (0, None, None)
