"""Optimal transport: figures of the released code, both ways of computing, who takes no part."""

import json
from pathlib import Path

import pytest
import torch

from ames.models.layers.optimal_transport import log_plan, masses, plan, scaled_plan, with_dustbins
from golden import rebuild

CASES = json.loads((Path(rebuild.__file__).parent / "elvis.json").read_text())["sinkhorn"]
BOTH = pytest.mark.parametrize("way", [log_plan, scaled_plan])


def drawn(batch, m, n, seed, corner, reg):
    """A log-kernel [batch, m + 1, n + 1]: values of all cells but the corner in [-1 / reg, 1 / reg]."""
    parts = (((batch, m, n), seed), ((batch, m), seed + 10), ((batch, n), seed + 20))
    scores = [torch.tanh(rebuild.descriptors(shape, s)) for shape, s in parts]
    return with_dustbins(*scores, torch.tensor(corner)) / reg


def everybody(batch, m, n):
    return masses(torch.ones(batch, m, dtype=torch.bool), torch.ones(batch, n, dtype=torch.bool))


@BOTH
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['m']} x {case['n']}")
def test_figures_of_the_released_code(way, case):
    sizes = case["batch"], case["m"], case["n"]
    kernel = drawn(*sizes, case["seed"], case["corner"], case["reg"])
    found = way(kernel, everybody(*sizes), case["iterations"])
    torch.testing.assert_close(found, torch.tensor(case["plan"]), atol=1e-6, rtol=1e-4)
    for axis, name in ((2, "row_sums"), (1, "column_sums")):
        torch.testing.assert_close(found.sum(axis), torch.tensor(case[name]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("reg", [1.0, 0.1, 0.05])
def test_both_ways_agree_in_value_and_gradient(reg):
    kernel, mass = drawn(3, 40, 30, 1, 0.7, reg), everybody(3, 40, 30)
    weight = rebuild.descriptors((3, 40, 30), 9)
    results = []
    for way, values in ((log_plan, kernel.double()), (log_plan, kernel), (scaled_plan, kernel)):
        values = values.clone().requires_grad_()
        found = way(values, mass, 10)
        (gradient,) = torch.autograd.grad((found * weight).sum(), values)
        results.append((found.detach().float(), gradient.float()))
    for found, gradient in results[1:]:
        torch.testing.assert_close(found, results[0][0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(gradient, results[0][1], atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("corner", [-40.0, 40.0])
@pytest.mark.parametrize("size", [(299, 199), (2, 400), (1, 1)])
def test_the_largest_values_that_are_scaled_stay_inside_float32(size, corner):
    signs = torch.where(rebuild.descriptors((2, size[0] + 1, size[1] + 1), 3) > 0, 20.0, -20.0)
    signs[:, -1, -1] = corner
    mass = everybody(2, *size)
    found = plan(signs, mass, 100, corner=corner, bound=20)
    assert torch.equal(found, scaled_plan(signs, mass, 100))
    torch.testing.assert_close(found, log_plan(signs.double(), mass, 100).float(), atol=1e-5, rtol=1e-3)


def test_larger_ones_are_not_scaled():
    kernel, mass = drawn(2, 6, 5, 4, 0.3, 0.002), everybody(2, 6, 5)
    found = plan(kernel, mass, 20, corner=150, bound=500)
    torch.testing.assert_close(found, log_plan(kernel.double(), mass, 20).float(), atol=1e-4, rtol=1e-3)
    assert found.isfinite().all()


@BOTH
def test_who_takes_no_part_is_as_if_absent(way):
    kernel = drawn(1, 9, 7, 5, 0.2, 0.1)
    rows, columns = (torch.arange(count)[None] < kept for count, kept in ((9, 6), (7, 4)))
    absent = torch.cat((~(rows[:, :, None] & columns[:, None]), torch.zeros(1, 9, 1, dtype=torch.bool)), 2)
    hidden = kernel.clone()
    hidden[:, :9][absent] = -torch.inf
    found = way(hidden, masses(rows, columns), 3)
    kept = [*range(6), 9], [*range(4), 7]
    alone = way(kernel[:, kept[0]][:, :, kept[1]], everybody(1, 6, 4), 3)
    torch.testing.assert_close(found[:, :6, :4], alone, atol=1e-6, rtol=1e-5)
    assert not found[:, 6:].any()
    assert not found[:, :, 4:].any()


@BOTH
def test_columns_reach_their_masses(way):
    kernel = drawn(2, 8, 5, 6, 0.4, 0.1)
    found = way(kernel, everybody(2, 8, 5), 500)
    assert (found.sum(1) <= 1 + 1e-5).all()
    assert (found.sum(2) <= 1 + 1e-5).all()
    again = way(kernel, everybody(2, 8, 5), 501)
    torch.testing.assert_close(found, again, atol=1e-5, rtol=0)
