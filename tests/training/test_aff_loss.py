"""The losses of AFF's query side, each against loops over images."""

import math

import pytest
import torch
import torch.nn.functional as F

from ames.training.aff_loss import compatible, contextual, regression


def unit(count, seed, dim=6):
    x = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return F.normalize(x, dim=-1).requires_grad_()


def test_regression_is_the_squared_distance_of_an_image_s_two_vectors():
    query, gallery = unit(4, 0), unit(4, 1)
    wanted = (
        sum(float(((q - g) ** 2).sum()) for q, g in zip(query.detach(), gallery.detach(), strict=True)) / 4
    )
    assert float(regression(query, gallery).detach()) == pytest.approx(wanted, rel=1e-5)
    assert float(regression(query, query).detach()) == 0


def divergence(query, gallery, image):
    """KL of the similarities to the other images, from the gallery's vector and from the query's."""
    others = [j for j in range(len(gallery)) if j != image]
    target, seen = (
        [math.exp(float(x[image if x is gallery else 0] @ gallery[j]) / 0.1) for j in others]
        for x in (gallery, query)
    )
    p, q = ([value / sum(x) for value in x] for x in (target, seen))
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_contextual_is_the_divergence_of_similarities_to_the_other_images():
    query, gallery = unit(5, 0), unit(5, 1)
    q, g = query.detach(), gallery.detach()
    wanted = sum(divergence(q[i : i + 1], g, i) for i in range(5)) / 5
    assert float(contextual(query, gallery).detach()) == pytest.approx(wanted, rel=1e-4)
    assert float(contextual(gallery, gallery).detach()) == pytest.approx(0, abs=1e-6)
    one = contextual(query[:1], gallery[:1])
    assert float(one.detach()) == 0
    one.backward()
    assert not query.grad.any()


def test_parts_of_a_batch_compare_with_the_whole_of_it():
    """So that several processes learn what one learns."""
    query, gallery = unit(5, 0), unit(5, 1)
    whole = contextual(query, gallery)
    wanted = torch.autograd.grad(whole, query)[0]
    parts = [contextual(query[a:b], gallery, a) * (b - a) / 5 for a, b in ((0, 2), (2, 4), (4, 5))]
    assert float(sum(parts).detach()) == pytest.approx(float(whole.detach()), rel=1e-5)
    torch.testing.assert_close(torch.autograd.grad(sum(parts), query)[0], wanted)


def test_compatible_classifies_by_the_centers_and_bounds_the_distance():
    query, gallery, labels = unit(4, 0), unit(4, 1), torch.tensor([2, 0, 2, 1])
    centers = 5 * unit(3, 2).detach()
    alignment = boundary = 0.0
    for q, g, label in zip(query.detach(), gallery.detach(), labels.tolist(), strict=True):
        cosines = [float(q @ c / c.norm()) for c in centers]
        alignment -= 7 * cosines[label] - math.log(sum(math.exp(7 * x) for x in cosines))
        boundary += max(0.0, float(g @ centers[label] / centers[label].norm()) - cosines[label])
    assert boundary > 0
    found = compatible(query, gallery, centers, labels, scale=7.0)
    assert float(found.detach()) == pytest.approx((alignment + boundary) / 4, rel=1e-5)
