"""ArcFace and the momentum classifier: the released figures, the formulas as loops, sampled classes."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ames.errors import AmesError
from ames.training.arcface import Classifier, arcface_logits, sampled_classes
from golden import aff

FIGURES = aff.FIGURES
CLOSE = {"rel": FIGURES["tolerance"], "abs": FIGURES["tolerance"]}
RELATIVE = FIGURES["tolerance_gradient_relative"]


def seed(case):
    return f"seed {case['seed']}"


@pytest.mark.parametrize("case", FIGURES["arcface"], ids=seed)
def test_the_loss_is_that_of_the_released_layer(case):
    vectors, rows = aff.pulled(case).requires_grad_(), aff.classifier(case).requires_grad_()
    labels = aff.labels(case)
    assert labels.tolist() == case["labels"]
    logits = arcface_logits(vectors, rows, labels, margin=case["margin"], scale=case["scale"])
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    assert logits[0].tolist() == pytest.approx(case["logits_first"], **CLOSE)
    assert float(loss.detach()) == pytest.approx(case["loss"], **CLOSE)
    assert float(vectors.grad.norm()) == pytest.approx(case["feature_grad_norm"], rel=RELATIVE)
    assert float(rows.grad.norm()) == pytest.approx(case["classifier_grad_norm"], rel=RELATIVE)


@pytest.mark.parametrize("case", FIGURES["arcface"], ids=seed)
def test_the_angle_of_the_true_class_is_raised_unless_it_would_exceed_pi(case):
    labels, scale, margin = aff.labels(case), case["scale"], case["margin"]
    logits = arcface_logits(aff.pulled(case), aff.classifier(case), labels, margin=margin, scale=scale)
    true = logits.gather(1, labels[:, None])[:, 0] / scale
    for found, angle in zip(true.tolist(), case["target_angles"], strict=True):
        beyond = angle > math.pi - margin
        assert found == pytest.approx(math.cos(angle if beyond else angle + margin), abs=1e-5)


def test_logits_are_the_formula():
    torch.manual_seed(0)
    vectors, rows, labels = torch.randn(4, 5), 3 * torch.randn(6, 5), torch.tensor([0, 3, 5, 3])
    found = arcface_logits(vectors, rows, labels, margin=0.4, scale=10.0)
    for i, x in enumerate(vectors):
        for j, row in enumerate(rows):
            angle = math.acos(float(x @ row / x.norm() / row.norm()))
            if j == labels[i] and angle <= math.pi - 0.4:
                angle += 0.4
            assert float(found[i, j]) == pytest.approx(10 * math.cos(angle), abs=1e-4)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_vector_on_its_row_or_opposite_of_it_has_a_finite_gradient(sign):
    """The arc cosine has none at 1 and -1."""
    rows = torch.eye(3)
    vectors = (sign * rows[:1]).requires_grad_()
    logits = arcface_logits(vectors, rows, torch.tensor([0]), margin=0.2, scale=16.0)
    F.cross_entropy(logits, torch.tensor([0])).backward()
    assert vectors.grad.isfinite().all()
    assert float(logits[0, 0].detach()) == pytest.approx(16 * (math.cos(0.2) if sign > 0 else -1), abs=0.01)


@pytest.mark.parametrize("case", FIGURES["momentum"], ids=seed)
def test_the_momentum_twin_follows_without_a_gradient(case):
    classes, labels = Classifier(case["classes"], case["dim"]).double(), aff.labels(case)
    options = {"margin": case["margin"], "scale": case["scale"]}
    with torch.no_grad():
        classes.weight.copy_(aff.classifier(case))
        classes.follow(0.0)
    optimizer = torch.optim.SGD(classes.parameters(), lr=case["lr"])
    for number, step in enumerate(case["steps"]):
        fused, seen = (aff.vectors(case, first + number).double() for first in (1, 11))
        mixer = F.cross_entropy(arcface_logits(fused, classes.weight, labels, **options), labels)
        query = F.cross_entropy(arcface_logits(seen, classes.twin, labels, **options), labels)
        assert not query.requires_grad
        optimizer.zero_grad()
        (mixer + query).backward()
        optimizer.step()
        classes.follow(case["alpha"])
        found = (mixer, query, classes.weight.norm(), classes.twin.norm())
        names = ("loss_mixer", "loss_query", "classifier_norm", "momentum_classifier_norm")
        assert [float(x.detach()) for x in found] == pytest.approx([step[name] for name in names], rel=1e-6)
        distance = float((classes.weight - classes.twin).norm().detach())
        assert distance == pytest.approx(step["distance"], rel=1e-6, abs=1e-12)


def test_a_new_classifier_and_its_twin_are_equal_and_the_twin_is_saved_and_not_trained():
    classes = Classifier(7, 3)
    assert torch.equal(classes.weight, classes.twin)
    assert classes.weight.data_ptr() != classes.twin.data_ptr()
    assert [*dict(classes.named_parameters())] == ["weight"]
    assert {*classes.state_dict()} == {"weight", "twin"}
    with torch.no_grad():
        classes.weight.add_(1)
    before = classes.twin.clone()
    classes.follow(0.75)
    torch.testing.assert_close(classes.twin, 0.75 * before + 0.25 * classes.weight)
    classes.follow(0.0)
    assert torch.equal(classes.twin, classes.weight)


# ---- a part of the classes -------------------------------------------------------------------------------


def draw(labels, classes, share, seed=0):
    return sampled_classes(np.array(labels), classes, share, np.random.default_rng(seed))


def test_sampled_classes_hold_the_labels_and_are_as_many_as_asked():
    found = draw([7, 2, 7, 90], 100, 0.2)
    assert len(found) == len({*found.tolist()}) == 20
    assert {2, 7, 90} <= {*found.tolist()}
    assert found.tolist() == sorted(found.tolist())
    assert 0 <= found.min() < found.max() < 100
    assert found.dtype == np.int64
    assert np.array_equal(found, draw([7, 2, 7, 90], 100, 0.2))
    assert not np.array_equal(found, draw([7, 2, 7, 90], 100, 0.2, seed=1))
    assert draw([7, 2, 9], 10, 0.1).tolist() == [2, 7, 9]  # the batch alone has more
    assert draw([7], 10, 1) is None
    assert draw([7], 10, 0.999).tolist() == list(range(10))


def test_every_other_class_is_drawn_as_often():
    counts = np.zeros(10)
    for number in range(2000):
        counts[draw([0, 1], 10, 0.5, number)] += 1
    assert counts[:2].tolist() == [2000, 2000]
    assert counts[2:] == pytest.approx(2000 * 3 / 8, rel=0.1)


def test_with_all_classes_in_the_sample_the_loss_is_the_whole_one():
    torch.manual_seed(0)
    vectors, rows, labels = torch.randn(5, 8), torch.randn(10, 8), torch.tensor([3, 9, 0, 3, 1])
    classes = draw(labels.tolist(), 10, 0.999)
    places = torch.from_numpy(np.searchsorted(classes, labels.numpy()))
    options = {"margin": 0.2, "scale": 8.0}
    whole = F.cross_entropy(arcface_logits(vectors, rows, labels, **options), labels)
    part = F.cross_entropy(arcface_logits(vectors, rows[classes], places, **options), places)
    assert float(part) == float(whole)


@pytest.mark.parametrize("share", [0, -0.5, 1.5])
def test_a_share_that_is_none(share):
    with pytest.raises(AmesError, match="is outside"):
        draw([0], 10, share)
