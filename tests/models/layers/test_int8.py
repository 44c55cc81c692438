"""Linear layers in 8-bit integers: near the exact ones, each row by itself."""

import pytest
import torch
from torch import nn

from ames.models.layers.int8 import Int8Linear
from ames.precision import int8_is_exact

pytestmark = pytest.mark.skipif(not int8_is_exact(), reason="8-bit products overflow on this processor")


def layer(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(48, 24)


def test_weights_of_8_bits_and_inputs_of_8_bits_are_exact():
    exact = nn.Linear(3, 2)
    with torch.no_grad():
        exact.weight.copy_(torch.tensor([[127.0, -3.0, 0.0], [-2.54, 0.02, 0.2]]))
        exact.bias.copy_(torch.tensor([0.5, -1.0]))
    x = torch.tensor([[1.0, -127.0, 14.0], [0.127, 0.0, -0.003], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(Int8Linear(exact)(x), exact(x).detach(), rtol=1e-6, atol=1e-5)


@torch.no_grad()
def test_an_error_is_half_a_step_of_each_product_at_most():
    exact, x = layer(), torch.randn(200, 48)
    bound = x.abs().amax(1, keepdim=True) * exact.weight.abs().sum(1) / 254
    bound = bound + exact.weight.abs().amax(1) / 254 * x.abs().sum(1, keepdim=True) * 1.005
    error = (Int8Linear(exact)(x) - exact(x)).abs()
    assert (error <= bound + 1e-6).all()
    assert 0 < float(error.square().mean().sqrt()) < 0.01


@torch.no_grad()
def test_a_row_does_not_depend_on_others():
    rounded, x = Int8Linear(layer()), torch.randn(5, 7, 48) * torch.logspace(-3, 3, 7)[:, None]
    whole = rounded(x)
    assert whole.shape == (5, 7, 24)
    assert torch.equal(whole[2, 3], rounded(x[2, 3]))


@pytest.mark.parametrize("rows", [0, 1, 17])
def test_any_number_of_rows(rows):
    assert Int8Linear(layer())(torch.randn(rows, 48)).shape == (rows, 24)
