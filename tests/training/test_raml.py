"""The task of RAML's student: what is compared, which quirks are options, what the file holds."""

import copy

import numpy as np
import pytest
import torch

from ames.embedders.checkpoints import load_pair
from ames.errors import AmesError
from ames.training import Trainer
from ames.training.learner import Learner
from ames.training.raml_loss import raml_losses
from ames.training.tasks.raml import RamlRecipe, RamlTask
from golden import raml as golden
from helpers.small_networks import RAML, network, photos, raml_task, write_photos
from helpers.small_training import same, weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder)
    return folder


def normalized(images, spec):
    """Float [n, 3, H, W] of uint8 [n, H, W, 3] BGR."""
    rgb = images[..., ::-1].astype(np.float64) / 255
    return torch.from_numpy(((rgb - spec.mean) / spec.std).transpose(0, 3, 1, 2)).float()


def by_hand(task, batch):
    """The losses of a batch, sums over its images."""
    small, large, shares = batch.arrays
    student, teacher = [], []
    for i in range(len(small)):
        for found, images, one in ((student, small[i], task.model), (teacher, large[i], task.teacher)):
            own, partner = (normalized(images[:, k], one.inputs) for k in range(2))
            share = torch.from_numpy(shares[i])[:, None, None, None]
            found.append(one(share * own + (1 - share) * partner))
    recipe = task.recipe
    return raml_losses(
        torch.stack(student), torch.stack(teacher).detach(), lam_1=recipe.lam_1, lam_2=recipe.lam_2
    )


def test_the_loss_is_of_mixed_views_through_both_networks(folder):
    task = raml_task(folder, batch_norm="frozen")
    task.model.train()
    batch = next(task.epoch(0))
    wanted, found = by_hand(task, batch), task.loss(task.model, batch)
    for name, x in wanted._asdict().items():
        assert float(found[name].detach()) == pytest.approx(float(x.detach()) / 4, rel=1e-4), name


def gradient(task, batches):
    learner = Learner(task)
    task.model.train()
    for batch in batches:
        learner.accumulate(batch)
    return torch.cat([x.grad.flatten() for x in task.model.parameters()])


def test_gradients_are_summed_over_images_and_batches_or_their_mean(folder):
    task = raml_task(folder, batch_norm="frozen")
    batches = list(task.epoch(0))[:2]
    found = gradient(task, batches)
    task.model.zero_grad()
    sum(by_hand(task, batch).loss for batch in batches).backward()
    wanted = torch.cat([x.grad.flatten() for x in task.model.parameters()])
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5 * float(wanted.abs().max()))
    mean = gradient(raml_task(folder, batch_norm="frozen", gradients="mean"), batches)
    torch.testing.assert_close(8 * mean, found, rtol=1e-4, atol=1e-6 * float(wanted.abs().max()))


def test_one_centre_crop_has_the_first_term_alone(folder):
    task = raml_task(folder, variant="ts_reg", batch_norm="frozen")
    task.model.train()
    batch = next(task.epoch(0))
    assert [x.shape[:3] for x in batch.arrays[:2]] == [(4, 1, 1)] * 2
    found = task.loss(task.model, batch)
    images = [task.loader.photos.read(row) for row in batch.rows.tolist()]
    with torch.no_grad():
        student, teacher = (
            one.eval()(one.inputs.tensor([one.inputs.fit(x) for x in images]))
            for one in (task.model, task.teacher)
        )
    wanted = (1 - (student * teacher).sum(1) + 1e-6).square().mean()
    assert float(found["loss"].detach()) == pytest.approx(float(wanted), rel=1e-4)
    assert (float(found["across"]), float(found["within"])) == (0, 0)


def test_the_student_comes_nearer_to_a_teacher_that_stays(folder):
    task = raml_task(folder, epochs=6, lr=2e-3, accumulate=1, mixup=0.0)
    before, statistics = weights(task.teacher), weights(task.model)
    history = Trainer(task).fit()
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]
    assert same(before, weights(task.teacher))
    assert all(x.grad is None for x in task.teacher.parameters())
    assert not task.teacher.training
    assert not same(statistics, weights(task.model))


@pytest.mark.parametrize("choice", ["frozen", "trained"])
def test_statistics_are_frozen_and_affine_weights_trained(folder, choice):
    task = raml_task(folder, batch_norm=choice, epochs=1)
    before = weights(task.model)
    Trainer(task).fit()
    moved = {name for name, x in weights(task.model).items() if not torch.equal(x, before[name])}
    statistics = {name for name in before if "running" in name}
    assert statistics
    assert moved & statistics == (set() if choice == "frozen" else statistics)
    assert {name for name in before if name not in statistics and "num_batches" not in name} <= moved


def rates(task):
    """The rates of both groups at each step, and the number of steps."""
    learner, seen = Learner(task), []
    batches = task.recipe.epochs * len(task)
    for done in range(task.recipe.accumulate - 1, batches, task.recipe.accumulate):
        learner.step(done, batches)
        seen.append([group["lr"] for group in learner.optimizer.param_groups])
    return seen


def test_the_power_of_gem_has_no_decay_and_the_rate_that_it_really_had(folder):
    # 5 batches an epoch are one step of 4: as many steps as the published 200 epochs of 40
    recipe = {"accumulate": 4, "epochs": 8000, "lr": 1e-4}
    task = raml_task(folder, **recipe)
    groups = task.make_optimizer().param_groups
    assert [group["weight_decay"] for group in groups] == [1e-6, 0]
    assert groups[1]["params"][0] is task.model.pool.p
    assert len(groups[0]["params"]) == len([*task.model.parameters()]) - 1
    seen = rates(task)
    assert len(seen) == 8000
    for step, wanted in golden.CASES["onecycle_lr"]:
        assert seen[step] == pytest.approx(wanted, rel=1e-6)
    for (rest, power), (same_rest, _) in zip(
        rates(raml_task(folder, pool_rate="intended", **recipe))[::1000], seen[::1000], strict=True
    ):
        assert rest == same_rest
        assert power == pytest.approx(10 * rest)


def test_what_fills_no_step_is_dropped_or_applied(folder):
    def stepped(**recipe):
        task = raml_task(folder, epochs=1, **recipe)
        steps = []
        task.after_step = lambda: steps.append(1)
        Trainer(task).fit()
        return len(task), len(steps)

    assert stepped(accumulate=2) == (4, 2)  # of 5 batches
    assert stepped(accumulate=2, leftover="applied") == (5, 3)
    assert stepped(accumulate=5) == (5, 1)
    with pytest.raises(AmesError, match="an epoch of 5 batches has no step of 6"):
        raml_task(folder, accumulate=6)
    assert stepped(accumulate=6, leftover="applied") == (5, 1)


def test_the_file_holds_both_sides_in_the_teachers_space(folder, tmp_path):
    task = raml_task(folder, epochs=1)
    Trainer(task, out=tmp_path / "s.pt").fit()
    query, gallery = load_pair(tmp_path / "s.pt")
    assert (query.inputs.size, gallery.inputs.size) == (32, 64)
    assert same(weights(query), weights(task.model))
    assert same(weights(gallery), weights(task.teacher))
    again = raml_task(folder, seed=3, epochs=1)
    Trainer(again, out=tmp_path / "t.pt").fit()
    load_pair(tmp_path / "t.pt", tmp_path / "s.pt")  # two students of one teacher
    other = raml_task(folder, epochs=1)
    other.teacher.space = "its own"
    Trainer(other, out=tmp_path / "o.pt").fit()
    assert load_pair(tmp_path / "o.pt")[0].space == "its own"


def test_a_training_is_resumed_with_the_same_teacher_only(folder):
    task = raml_task(folder)
    other = RamlTask(task.model, network(6, size=64), photos(folder), task.recipe)
    assert task.identity() == raml_task(folder, seed=1, workers=2).identity()
    assert task.identity() != other.identity()
    assert task.identity() != raml_task(folder, views=3).identity()


def test_workers_change_nothing(folder):
    def trained(**options):
        task = raml_task(folder, epochs=1, **options)
        Trainer(task).fit()
        return weights(task.model)

    assert same(trained(), trained(workers=2))


def test_the_report_names_images(folder):
    task = raml_task(folder)
    batch = next(task.epoch(0))
    assert task.report(batch) == {"images": [f"{row}.png" for row in batch.rows]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"variant": "ts"}, "variant 'ts' is none of ts_aug, ts_reg"),
        ({"seeds": "own"}, "seeds 'own' is none of independent, chained"),
        ({"pool_rate": "fast"}, "pool_rate 'fast' is none of released, intended"),
        ({"leftover": "kept"}, "leftover 'kept' is none of dropped, applied"),
        ({"gradients": "max"}, "gradients 'max' is none of sum, mean"),
        ({"batch_norm": "off"}, "batch_norm 'off' is none of frozen, trained"),
        ({"lam_1": -1.0}, "must be at least 0"),
        ({"views": 0}, "must be at least 1"),
    ],
)
def test_recipes_of_nothing_are_refused(change, said):
    with pytest.raises(AmesError, match=said):
        RamlRecipe(**change)


def test_networks_that_do_not_fit_are_refused(folder):
    with pytest.raises(AmesError, match="the teacher's vectors are 16-d, the student's 8-d"):
        RamlTask(network(), network(size=64, dim=16), photos(folder), RamlRecipe(**RAML))
    recipe = RamlRecipe(**RAML, variant="ts_reg")
    with pytest.raises(AmesError, match="the teacher resizes the long side"):
        RamlTask(network(), network(resize="long"), photos(folder), recipe)
    listed = copy.copy(photos(folder))
    listed.names = listed.names[:1]
    with pytest.raises(AmesError, match="mixup needs at least 2 images"):
        RamlTask(network(), network(), listed, RamlRecipe(**RAML))
