"""Objectives: figures of the released distillation step, and cases worked out by hand."""

import pytest
import torch
import torch.nn.functional as F

from ames.features import LocalFeatures
from ames.models.ames import AMES
from ames.training.losses import contrastive_loss, distillation_losses, list_losses, pair_losses
from golden import rebuild, rrt
from helpers.listwise import ToyList

CASES = rebuild.cases("train_step.json")


def model_of(case, seed, **changes):
    arguments = rebuild.arguments(case, **changes)
    model = AMES(**arguments)
    model.load_state_dict(rebuild.state(rebuild.shapes(**arguments), seed))
    return model


def batch_of(case):
    """Queries (anchor, anchor) against (positive, negative), and their labels."""
    size, slots, width, seed = case["batch"], case["teacher_desc"], case["local_dim"], case["seed"]
    anchor, positive = rebuild.related(size, slots, slots, width, seed)
    negative = rebuild.descriptors((size, slots, width), seed + 9)
    images = [
        LocalFeatures.from_descriptors(x, rebuild.valid(size, slots, seed + i))
        for i, x in enumerate((anchor, positive, negative), 1)
    ]
    query = LocalFeatures.cat((images[0], images[0]))
    return query, LocalFeatures.cat(images[1:]), (torch.arange(2 * size) < size).float()


def counts_of(case):
    return case["student_query_desc"], case["student_db_desc"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_figures_of_the_released_distillation_step(case):
    teacher = model_of(case, case["seed"]).eval().requires_grad_(False)
    student = model_of(case, case["seed"] + 1, binarized=True).train()
    losses = distillation_losses(student, teacher, *batch_of(case), counts_of(case), beta=case["beta"])
    for name in ("loss", "bce", "mse", "accuracy"):
        assert getattr(losses, name).item() == pytest.approx(case[name], rel=1e-4), name
    losses.loss.backward()
    gradients = dict(student.named_parameters())
    for name, norm in case["grad_norms"].items():
        assert gradients[name].grad.norm().item() == pytest.approx(norm, rel=1e-4), name
    assert all(x.grad is None for x in teacher.parameters())


def test_beta_weighs_the_tokens():
    case = CASES[0]
    teacher, student = model_of(case, 1).eval(), model_of(case, 2, binarized=True)
    for beta in (0.0, 3.0):
        losses = distillation_losses(student, teacher, *batch_of(case), counts_of(case), beta=beta)
        torch.testing.assert_close(losses.loss, losses.bce + beta * losses.mse)


def test_a_student_equal_to_its_teacher_has_no_token_error():
    case = CASES[0]
    teacher = model_of(case, 1).eval()
    slots = case["teacher_desc"], case["teacher_desc"]
    losses = distillation_losses(teacher, teacher, *batch_of(case), slots)
    assert losses.mse.item() < 1e-12  # rounding: the two attend by different kernels
    fewer = distillation_losses(teacher, teacher, *batch_of(case), counts_of(case))
    assert fewer.mse.item() > 0  # it reads fewer descriptors than the target was made from


def test_padded_tokens_count():
    case = CASES[0]
    teacher, student = model_of(case, 1).eval(), model_of(case, 2, binarized=True).eval()
    query, database, labels = batch_of(case)
    found = distillation_losses(student, teacher, query, database, labels, counts_of(case))
    changed = database.descriptors.masked_fill(~database.valid[..., None], 3.0)
    other = distillation_losses(
        student, teacher, query, database.with_descriptors(changed), labels, counts_of(case)
    )
    torch.testing.assert_close(other.bce, found.bce, atol=1e-5, rtol=0)
    assert abs(other.mse - found.mse) > 1e-3


def test_pair_objective_is_cross_entropy_on_the_logits():
    case = CASES[0]
    model = model_of(case, 1)
    query, database, labels = batch_of(case)
    losses = pair_losses(model, query, database, labels)
    logits = model.pairs(query, database)
    probability = logits.sigmoid()
    expected = -(labels * probability.log() + (1 - labels) * (1 - probability).log()).mean()
    torch.testing.assert_close(losses.loss, expected)
    torch.testing.assert_close(losses.bce, losses.loss.detach())
    assert losses.mse == 0
    assert losses.accuracy == ((logits > 0) == (labels == 1)).float().mean()
    assert losses.loss.requires_grad
    assert not losses.bce.requires_grad


def test_a_perfect_model_is_right_about_every_pair(monkeypatch):
    case = CASES[0]
    model = model_of(case, 1)
    query, database, labels = batch_of(case)
    monkeypatch.setattr(model, "pairs", lambda *_: 40 * (labels - 0.5))
    losses = pair_losses(model, query, database, labels)
    assert losses.accuracy == 1
    assert losses.loss < 1e-6
    monkeypatch.setattr(model, "pairs", lambda *_: -40 * (labels - 0.5))
    worst = pair_losses(model, query, database, labels)
    assert worst.accuracy == 0
    torch.testing.assert_close(worst.loss, F.softplus(torch.tensor(20.0)))


def test_the_loss_of_a_list_is_the_mean_over_all_logits_of_its_candidates():
    torch.manual_seed(0)
    query = LocalFeatures.from_descriptors(torch.randn(3, 5, 8))
    candidates = LocalFeatures.from_descriptors(torch.randn(3, 4, 5, 8))
    labels, model = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]]).float(), ToyList()
    scores = model.score(query, candidates)
    losses = list_losses(model, query, candidates, labels)
    sign = 1 - 2 * labels
    torch.testing.assert_close(losses.loss, F.softplus(sign * scores).mean())
    torch.testing.assert_close(losses.accuracy, (sign * scores < 0).float().mean())
    # Two logits of a candidate, as of two tokens: the paper's two-class cross-entropy over both.
    model.list_logits = lambda *_: torch.stack((scores, 2 * scores), -1)
    both = torch.stack((scores, 2 * scores), -1)
    classes = torch.stack((torch.zeros_like(both), both), -1).reshape(-1, 2)
    expected = F.cross_entropy(classes, labels[..., None].expand_as(both).reshape(-1).long())
    torch.testing.assert_close(list_losses(model, query, candidates, labels).loss, expected)


@pytest.mark.parametrize("case", rrt.CASES["contrastive"], ids=lambda case: str(case["temperature"]))
def test_figures_of_the_released_contrastive_loss(case):
    raw = rebuild.descriptors((case["batch"], case["dim"]), case["seed"])
    features = F.normalize(raw, dim=-1).requires_grad_()
    loss = contrastive_loss(features, torch.arange(case["batch"]) // 2, case["temperature"])
    assert loss.item() == pytest.approx(case["loss"], rel=1e-4)
    loss.backward()
    assert features.grad.norm().item() == pytest.approx(case["grad_norm"], rel=1e-4)


def test_the_contrastive_loss_by_hand_and_images_without_a_positive():
    features = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]], requires_grad=True)
    loss = contrastive_loss(features, torch.tensor([3, 3, 5, 7]), 0.5)
    e = torch.tensor([1.2, 0.0, -2.0, 1.6, -1.2]).exp()  # cosines of pairs 01, 02, 03, 12, 13, / 0.5
    expected = -((e[0] / (1 + e[0] + e[1] + e[2])).log() + (e[0] / (1 + e[0] + e[3] + e[4])).log()) / 4
    torch.testing.assert_close(loss.detach(), expected)
    loss.backward()
    assert features.grad.isfinite().all()
    alone = contrastive_loss(features, torch.arange(4))
    assert alone == 0
    alone.backward()
    assert features.grad.isfinite().all()
