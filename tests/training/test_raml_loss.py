"""RAML's objectives and rates: figures of the released code, and the formulas written as loops."""

import pytest
import torch
from torch import nn

from ames.embedders.network import GlobalNetwork
from ames.embedders.pooling import unit
from ames.training.learner import lr_factor
from ames.training.losses import hinge_losses
from ames.training.raml_loss import raml_losses, relation_loss
from golden import raml

CASES = raml.CASES


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: f"seed {case['seed']}")
def test_the_loss_is_that_of_the_released_code(case):
    student, teacher = raml.views(case)
    student.requires_grad_()
    found = raml_losses(student, teacher, lam_1=case["lam_1"], lam_2=case["lam_2"])
    found.loss.backward()
    assert float(found.loss.detach()) == pytest.approx(case["loss"], rel=1e-5)
    assert float(found.absolute) == pytest.approx(case["absolute_term"], rel=1e-5)
    assert float(student.grad.norm()) == pytest.approx(case["grad_norm"], rel=1e-5)
    assert raml.first4(student.grad) == pytest.approx(case["grad_first4"], rel=1e-4)


def test_each_term_is_its_formula():
    student, teacher = (raml.unit((3, 4, 6), seed).double() for seed in (1, 2))
    found = raml_losses(student, teacher, lam_1=0.5, lam_2=2.0)
    across = within = absolute = 0.0
    for s, t in zip(student, teacher, strict=True):
        for p in range(4):
            absolute += (1 - float(s[p] @ t[p]) + 1e-6) ** 2 / 4
            for q in range(4):
                if p != q:
                    across += (float(s[p] @ t[q] - t[p] @ t[q]) + 1e-6) ** 2 / 12
                    within += (float(s[p] @ s[q] - t[p] @ t[q]) + 1e-6) ** 2 / 12
    assert [float(x) for x in found[1:]] == pytest.approx([absolute, across, within])
    assert float(found.loss) == pytest.approx(absolute + 0.5 * across + 2 * within)


def test_relations_are_within_an_image_and_sums_grow_with_the_images():
    student, teacher = (raml.unit((3, 4, 6), seed) for seed in (1, 2))
    whole = raml_losses(student, teacher, lam_1=1, lam_2=1)
    parts = [raml_losses(student[i : i + 1], teacher[i : i + 1], lam_1=1, lam_2=1) for i in range(3)]
    for name, x in whole._asdict().items():
        assert float(x) == pytest.approx(sum(float(part._asdict()[name]) for part in parts), rel=1e-5)


def test_one_view_has_no_relations_and_no_image_no_loss():
    student, teacher = (raml.unit((3, 1, 6), seed) for seed in (1, 2))
    found = raml_losses(student, teacher, lam_1=1, lam_2=1)
    assert (float(found.across), float(found.within)) == (0, 0)
    assert float(found.loss) == float(found.absolute) > 0
    assert float(raml_losses(student[:0], teacher[:0], lam_1=1, lam_2=1).loss) == 0
    assert float(relation_loss(torch.eye(3)[None], torch.zeros(1, 3, 3))) == pytest.approx(1e-12, abs=1e-9)


@pytest.mark.parametrize("case", CASES["triplet"], ids=lambda case: f"seed {case['seed']}")
def test_the_hinge_loss_is_that_of_the_released_code(case):
    anchors, positives, negatives = raml.triplets(case)
    anchors.requires_grad_()
    loss = hinge_losses(anchors, positives, negatives, case["margin"]).sum()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(case["loss"], rel=1e-5)
    assert float(anchors.grad.norm()) == pytest.approx(case["grad_norm"], rel=1e-5)


def test_pairs_that_do_not_count_are_not_there():
    anchors, positives, negatives = raml.triplets(CASES["triplet"][0])  # 3 positives, 4 negatives
    pairs = torch.zeros(4, 3, 4, dtype=torch.bool)
    pairs[0] = True
    pairs[1, 1:, :2] = True
    pairs[2, 0, 3] = True
    found = hinge_losses(anchors, positives, negatives, 0.7, pairs)
    assert found[0] == pytest.approx(float(hinge_losses(anchors, positives, negatives, 0.7)[0]))
    few = hinge_losses(anchors[1:2], positives[1:2, 1:], negatives[1:2, :2], 0.7)
    assert float(found[1]) == pytest.approx(float(few))
    near, far = (float((anchors[2] - x).square().sum()) for x in (positives[2, 0], negatives[2, 3]))
    assert float(found[2]) == pytest.approx(max(0, near - far + 0.7))
    assert float(found[3]) == 0


@pytest.mark.parametrize("case", CASES["head"], ids=lambda case: f"seed {case['seed']}")
def test_pooling_and_whitening_are_those_of_the_released_networks(case):
    maps, state = raml.head(case)
    network = GlobalNetwork(trunk="resnet10", width=0.125, dim=case["dim"], p=case["p"])
    network.whiten = nn.Linear(case["channels"], case["dim"])
    network.whiten.load_state_dict(state)
    with torch.no_grad():
        pooled, vectors = unit(network.pool(maps)), network.describe(maps)
    assert pooled[0, :6].tolist() == pytest.approx(case["pooled_first6"], rel=1e-5)
    assert vectors.norm(dim=1).tolist() == pytest.approx(case["vector_norms"], rel=1e-6)
    for vector, wanted in zip(vectors, case["vector_first6"], strict=True):
        assert vector[:6].tolist() == pytest.approx(wanted, rel=1e-4, abs=1e-6)


def test_the_rate_rises_and_falls_as_the_released_schedule():
    for step, (rate, _) in CASES["onecycle_lr"]:
        assert 1e-4 * lr_factor(step, 200 * 40, 0, "onecycle") == pytest.approx(rate, rel=1e-6)
