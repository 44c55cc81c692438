"""The task of AFF: its losses and its momentum by hand, its stages and files, and what stops it."""

import json
import math

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ames.embedders.checkpoints import load_embedder, load_pair, sides_of
from ames.embedders.fusion import Concatenation, Mlp
from ames.errors import AmesError
from ames.training import Trainer, Validation
from ames.training.aff_loss import compatible, contextual, regression
from ames.training.learner import Learner, lr_factor
from ames.training.tasks.aff import AffModel, AffRecipe
from ames.weights.files import read_weights
from helpers.small_aff import CLASSES, DIM, LABELS, aff_task, network, stored, write_aff
from helpers.small_training import same, weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_aff(tmp_path_factory.mktemp("aff"))


def first_batch(task):
    return next(task.epoch(0))


def arcface(vectors, rows, labels, margin, scale):
    """Mean cross-entropy, image by image."""
    total = 0.0
    for x, label in zip(vectors, labels.tolist(), strict=True):
        angles = [math.acos(float(x @ row / x.norm() / row.norm())) for row in rows]
        angles[label] += margin if angles[label] <= math.pi - margin else 0
        logits = [scale * math.cos(angle) for angle in angles]
        total += math.log(sum(math.exp(x) for x in logits)) - logits[label]
    return total / len(labels)


def vectors_of(task, batch):
    """Of both sides as the loss sees them, in training mode."""
    task.model.train()
    before = weights(task.model)
    with torch.no_grad():
        found = task.model.gallery(batch.features), task.model.query(batch.pixels)
    task.model.load_state_dict(before)  # the statistics of normalizations
    return found


def moved_apart(task):
    """Classifier and mixer away from their twins, as after some steps."""
    with torch.no_grad():
        for x in (*task.model.gallery.parameters(), task.model.classifier.weight):
            x.add_(0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(x.numel())))
    return task


@pytest.mark.parametrize("share", [1.0, 0.7])
@pytest.mark.parametrize("name", ["arcface", "regression", "csd", "lce"])
def test_the_loss_is_that_of_both_sides(folder, name, share):
    options = {"margin": 0.3, "query_margin": 0.1, "scale": 5.0, "query_loss": name}
    task = moved_apart(aff_task(folder, share=share, **options))
    batch = first_batch(task)
    fused, seen = vectors_of(task, batch)
    classes = torch.arange(CLASSES) if batch.classes is None else batch.classes
    weight, twin = task.model.classifier.weight[classes].detach(), task.model.classifier.twin[classes]
    with torch.no_grad():
        target = task.model.twin(batch.features)
    assert not torch.allclose(target, fused)
    query = {
        "arcface": lambda: arcface(seen, twin, batch.labels, 0.1, 5.0),
        "regression": lambda: float(regression(seen, target)),
        "csd": lambda: float(contextual(seen, target)),
        "lce": lambda: float(compatible(seen, target, twin, batch.labels, scale=5.0)),
    }[name]()
    task.model.train()
    found = {key: float(x.detach()) for key, x in task.loss(task.model, batch).items()}
    assert found["mixer"] == pytest.approx(arcface(fused, weight, batch.labels, 0.3, 5.0), rel=1e-4)
    assert found["query"] == pytest.approx(query, rel=1e-4)
    assert found["loss"] == pytest.approx(found["mixer"] + found["query"], rel=1e-5)
    nearest = (seen @ F.normalize(twin, dim=-1).T).argmax(1)
    assert found["accuracy"] == pytest.approx(float((nearest == batch.labels).float().mean()))


def test_the_scale_is_the_root_of_the_width_by_default(folder):
    task = moved_apart(aff_task(folder, query_loss="regression"))
    batch = first_batch(task)
    fused, _ = vectors_of(task, batch)
    wanted = arcface(fused, task.model.classifier.weight.detach(), batch.labels, 0.2, math.sqrt(DIM))
    assert float(task.loss(task.model.train(), batch)["mixer"]) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("name", ["arcface", "regression", "csd", "lce"])
def test_the_query_s_loss_reaches_the_query_alone(folder, name):
    task = moved_apart(aff_task(folder, query_loss=name))
    task.model.train()
    batch = first_batch(task)
    losses = task.loss(task.model, batch)
    losses["loss"].backward()
    model, grads = task.model, {}
    for part in (model.gallery, model.classifier):
        grads |= {id(x): x.grad.clone() for x in part.parameters()}
        part.zero_grad()
    assert all(x.grad is not None and x.grad.any() for x in model.query.parameters())
    assert all(x.grad is None for x in model.twin.parameters())
    fused = model.gallery(batch.features)
    mixer, _ = task._arcface(fused, model.classifier.weight, batch, task.recipe.margin)
    mixer.backward()
    for part in (model.gallery, model.classifier):
        for x in part.parameters():
            torch.testing.assert_close(grads[id(x)], x.grad)


@pytest.mark.parametrize("alpha", [0.0, 0.9])
def test_the_twins_follow_after_every_step(folder, alpha):
    task = aff_task(folder, alpha=alpha, query_loss="csd")
    learner, steps = Learner(task), len(task)
    model = task.model
    slow = {name: x.clone() for name, x in model.gallery.state_dict().items()}
    row = model.classifier.twin.clone()
    model.train()
    for done, batch in enumerate(task.epoch(0)):
        before = model.classifier.twin.clone()
        learner.accumulate(batch)
        assert torch.equal(before, model.classifier.twin)
        learner.step(done, steps)
        row = alpha * row + (1 - alpha) * model.classifier.weight.detach()
        slow = {name: alpha * x + (1 - alpha) * model.gallery.state_dict()[name] for name, x in slow.items()}
        torch.testing.assert_close(model.classifier.twin, row)
        for name, x in model.twin.state_dict().items():
            torch.testing.assert_close(x, slow[name])
    assert torch.equal(row, model.classifier.weight) == (alpha == 0)


def test_parameters_have_the_rates_and_decays_that_are_meant(folder):
    task = aff_task(folder, lr=0.1, query_lr=0.02, weight_decay=0.3, momentum=0.8, schedule="linear")
    learner = Learner(task)
    learner.step(3, 12)
    groups = learner.optimizer.param_groups
    names = {id(x): name for name, x in task.model.named_parameters()}
    found = {names[id(x)]: group for group in groups for x in group["params"]}
    assert {*found} == {name for name in names.values() if not name.startswith("twin.")}
    for name, group in found.items():
        vector = task.model.get_parameter(name).ndim < 2
        assert group["weight_decay"] == (0 if vector else 0.3), name
        assert group["lr"] == pytest.approx((0.02 if name.startswith("query.") else 0.1) * 0.75), name
        assert (group["momentum"], group["nesterov"]) == (0.8, True)
    for name in ("gallery.token", "query.pool.p", "query.backbone.1.weight", "gallery.layers.0.norm1.bias"):
        assert found[name]["weight_decay"] == 0
    assert found["classifier.weight"]["weight_decay"] == 0.3
    plain = Learner(aff_task(folder, momentum=0)).optimizer.param_groups[0]
    assert (plain["momentum"], plain["nesterov"]) == (0, False)


def test_the_linear_schedule_is_a_line_to_zero():
    assert [lr_factor(i, 4, 0, "linear") for i in range(5)] == [1, 0.75, 0.5, 0.25, 0]
    warm = [lr_factor(i, 10, 2, "linear") for i in range(10)]
    assert warm == pytest.approx([1 / 3, 2 / 3, *(1 - i / 8 for i in range(8))])
    assert AffRecipe().schedule == "linear"


def test_it_learns_and_the_global_generator_plays_no_part(folder):
    options = {"epochs": 8, "lr": 0.1, "query_lr": 0.1, "alpha": 0.5}

    def trained():
        task = aff_task(folder, dropout=0.1, **options)
        torch.rand(torch.randint(1, 9, ()).item())
        history = Trainer(task).fit()
        return history, weights(task.model)

    (history, first), (_, second) = trained(), trained()
    assert same(first, second)
    assert history[-1]["mixer"] < 0.6 * history[0]["mixer"]
    assert history[-1]["query"] < 0.85 * history[0]["query"]
    other = aff_task(folder, dropout=0.0, **options)
    Trainer(other).fit()
    assert not same(first, weights(other.model))  # dropout was at work


def test_16_bits_change_a_loss_little(folder):
    """A cosine near 1 is 1 in bf16, where the angle has no gradient."""
    found = []
    for autocast in (None, "bf16"):
        task = aff_task(folder, autocast=autocast, query_loss="lce")
        with torch.no_grad():
            task.model.classifier.weight.copy_(task.model.gallery(first_batch(task).features)[:CLASSES])
            task.model.classifier.follow(0.0)
        learner = Learner(task)
        found.append(learner.accumulate(first_batch(task))[0])
        assert learner.gradients_are_finite()
    for name in ("mixer", "query"):
        assert found[1][name] == pytest.approx(found[0][name], rel=0.03)


def test_a_class_of_one_image_is_a_class_like_any_other(folder):
    """No pair is needed: its image is pulled towards the class's own row."""
    task = aff_task(folder)
    task.loader.labels = LABELS.copy()
    task.loader.labels[5] = CLASSES
    task.loader.classes = CLASSES + 1
    model = AffModel(task.model.gallery, task.model.query, CLASSES + 1)
    lonely = type(task)(model, task.loader, task.recipe)
    before = model.classifier.weight[CLASSES].clone()
    history = Trainer(lonely).fit()
    assert all(math.isfinite(x["loss"]) for x in history)
    assert not torch.equal(model.classifier.weight[CLASSES], before)


# ---- two stages ------------------------------------------------------------------------------------------


def test_the_second_stage_leaves_the_first_as_it_is(folder, tmp_path):
    one = aff_task(folder, stage="gallery", epochs=3)
    history = Trainer(one, out=tmp_path / "one.pt").fit()
    assert all(x["query"] == 0 and x["loss"] == x["mixer"] > 0 for x in history)
    file = read_weights(tmp_path / "one.pt").state
    assert torch.equal(file["classifier.weight"], one.model.classifier.weight)
    assert sides_of(tmp_path / "one.pt") == ("both",)
    for name in ("arcface", "regression", "csd", "lce"):
        two = aff_task(folder, stage="query", first=one.model, seed=1, query_loss=name, weight_decay=0.5)
        first = weights(two.model)
        history = Trainer(two, out=tmp_path / "two.pt").fit()
        assert all(x["mixer"] == 0 and x["loss"] == x["query"] > 0 for x in history)
        for key, x in two.model.state_dict().items():
            learned = key.startswith("query.")
            assert torch.equal(x, first[key]) != learned, key
        load_pair(tmp_path / "two.pt", tmp_path / "one.pt")  # one space
        (tmp_path / "two.pt").unlink()


def test_the_file_holds_what_was_trained(folder, tmp_path):
    task = aff_task(folder)

    def validate(model):
        assert not model.training
        assert {*model.sides()} == {"gallery", "query"}
        return Validation({"val_map": 1.0}, 1.0)

    task.validate = validate
    Trainer(task, out=tmp_path / "x.pt", provenance={"method": "aff"}).fit()
    query, gallery = load_pair(tmp_path / "x.pt")
    assert same(weights(query), weights(task.model.query))
    assert same(weights(gallery), weights(task.model.gallery))
    assert "classifier.weight" not in read_weights(tmp_path / "x.pt").state
    assert read_weights(tmp_path / "x.pt").about["method"] == "aff"
    assert load_embedder(tmp_path / "x-best.pt", "query").inputs == task.model.query.inputs


def test_averaged_weights_are_saved_where_asked_for(folder, tmp_path):
    task = aff_task(folder, ema=0.5)
    trainer = Trainer(task, out=tmp_path / "x.pt")
    trainer.fit()
    query, gallery = load_pair(tmp_path / "x.pt")
    assert same(weights(query), weights(task.model.query))  # ``fit`` leaves them in the model
    assert gallery.features == stored(folder).specs


# ---- what stops it ---------------------------------------------------------------------------------------


def test_features_that_are_no_numbers_stop_it_with_the_rows_of_the_batch(folder, tmp_path):
    write_aff(tmp_path)
    with h5py.File(tmp_path / "b_local.hdf5", "r+") as file:
        file["features"][7, 0, -1] = np.nan
    task = aff_task(tmp_path)
    with pytest.raises(AmesError, match=r"the loss became nan in epoch 1, batch \d; its images are in (.*);"):
        Trainer(task, out=tmp_path / "x.pt").fit()
    assert 7 in json.loads((tmp_path / "x-bad-batch.json").read_text())["rows"]
    skipping = aff_task(tmp_path, non_finite="skip")
    history = Trainer(skipping).fit()
    assert [x["skipped"] for x in history] == [1, 1]
    assert all(x.isfinite().all() for x in skipping.model.state_dict().values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query_loss": "l2"}, "query_loss 'l2' is none of arcface, regression, csd, lce"),
        ({"stage": "both"}, "stage 'both' is none of joint, gallery, query"),
        ({"alpha": 1.0}, r"alpha 1.0 is outside \[0, 1\)"),
        ({"margin": 2.0}, r"margin 2.0 is outside \[0, 1.5\) radians"),
        ({"query_margin": -0.1}, r"query_margin -0.1 is outside \[0, 1.5\) radians"),
        ({"momentum": 1.0}, r"momentum 1.0 is outside \[0, 1\)"),
        ({"scale": 0.0}, "scale 0.0 leaves nothing of a logit"),
        ({"lr": 0.0}, "lr 0.0 must be above 0"),
        ({"compile": True}, "compile=true: torch.compile is not tried with AFF's losses"),
    ],
)
def test_wrong_recipes_are_one_line(options, message):
    with pytest.raises(AmesError, match=message):
        AffRecipe(**options)


def test_sides_that_do_not_go_together_are_one_line(folder):
    features = [x.to_dict() for x in stored(folder).specs]
    with pytest.raises(AmesError, match="the gallery side has 4 dimensions, the query side 8"):
        AffModel(Mlp(features=features, dim=4), network(), CLASSES)
    with pytest.raises(AmesError, match="Concatenation has no weights to train: evaluate it as it is"):
        AffModel(Concatenation(features=features), None, CLASSES)
