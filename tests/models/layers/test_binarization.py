"""Binary descriptors: packing against numpy, the surrogate's gradient, and the fit of the projection."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ames.models.layers.binarization import Binarize, fit_itq, pack_bits, unpack_bits


def near_corners(n, width, bits, seed):
    """L2-normalized descriptors near the corners of a turned cube: the right rotation loses little."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 2, (n, bits), generator=generator) * 2.0 - 1
    corners += 0.3 * torch.randn(n, bits, generator=generator)
    turn, _ = torch.linalg.qr(torch.randn(width, width, generator=generator))
    return F.normalize(corners @ turn[:bits] + 0.05 * torch.randn(n, width, generator=generator), dim=-1)


def all_positive(n, width, seed):
    """As RootSIFT: square roots of histograms, L2-normalized, no negative entry."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(20, width, generator=generator)
    picked = centres[torch.randint(20, (n,), generator=generator)]
    histogram = (picked + 0.5 * torch.rand(n, width, generator=generator)) ** 2
    return F.normalize(histogram.sqrt(), dim=-1)


@pytest.mark.parametrize("shape", [(8,), (5, 16), (2, 3, 128)])
def test_packing_equals_numpy(shape):
    bits = np.random.default_rng(0).integers(0, 2, shape).astype(np.uint8)
    signs = torch.from_numpy(bits).float() * 2 - 1
    packed = pack_bits(signs)
    assert packed.dtype == torch.uint8
    np.testing.assert_array_equal(packed.numpy(), np.packbits(bits, axis=-1))


def test_unpacking_equals_numpy_for_every_byte():
    packed = torch.arange(256, dtype=torch.uint8).view(32, 8)
    expected = np.unpackbits(packed.numpy(), axis=-1).astype(np.float32) * 2 - 1
    for dtype in (torch.float32, torch.float16):
        signs = unpack_bits(packed, dtype)
        assert signs.dtype == dtype
        np.testing.assert_array_equal(signs.float().numpy(), expected)


def test_the_most_significant_bit_comes_first():
    assert pack_bits(torch.tensor([1.0] + [-1.0] * 7)).tolist() == [128]
    assert unpack_bits(torch.tensor([1], dtype=torch.uint8)).tolist() == [-1] * 7 + [1]


def test_dimensions_that_do_not_fill_bytes():
    with pytest.raises(ValueError, match="12 dimensions do not fill whole bytes"):
        pack_bits(torch.ones(3, 12))


def test_evaluation_gives_signs_and_never_zero():
    layer = Binarize(4, 8).eval()
    x = torch.randn(50, 4)
    x[0] = 0
    signs = layer(x)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(signs[1:], torch.sign(x[1:] @ layer.W))
    assert torch.equal(unpack_bits(pack_bits(signs)), signs)


def test_training_is_smooth_near_zero_and_the_sign_away_from_it():
    torch.manual_seed(0)
    layer = Binarize(4, 8).train()
    x = F.normalize(torch.randn(50, 4), dim=-1)
    smooth = layer(x)
    away = (x @ layer.W).abs() > 0.01  # seven widths of the erf
    assert torch.equal(smooth[away].sign(), layer.eval()(x)[away])
    assert smooth[away].abs().min() > 0.999
    assert layer.train()(torch.zeros(1, 4)).abs().max() == 0


def test_the_surrogate_has_a_gradient_and_the_sign_has_none():
    layer = Binarize(4, 8)
    x = torch.zeros(1, 4) + 1e-4
    layer.train()(x).sum().backward()
    assert layer.W.grad.abs().min() > 0
    assert not layer.eval()(x).requires_grad


def test_itq_quantizes_better_than_a_random_rotation_of_the_same_subspace():
    x = near_corners(2000, 32, 16, seed=0)
    W = fit_itq(x, 16)

    def error(projection):
        projected = F.normalize(x @ projection, dim=-1)
        return (torch.sign(projected) / 16**0.5 - projected).square().sum(1).mean()

    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        rotation, _ = torch.linalg.qr(torch.randn(16, 16, generator=generator))
        assert error(W) < 0.5 * error(W @ rotation)


@pytest.mark.parametrize("bits", [16, 32])
def test_every_bit_of_all_positive_descriptors_is_balanced(bits):
    x = all_positive(3000, 64, seed=1)
    share = (x @ fit_itq(x, bits) > 0).float().mean(0)
    assert share.min() > 0.2
    assert share.max() < 0.8


def test_columns_are_orthonormal_and_orthogonal_to_the_mean():
    x = all_positive(3000, 64, seed=2)
    W = fit_itq(x, 24)
    assert W.shape == (64, 24)
    assert W.dtype == torch.float32
    torch.testing.assert_close(W.T @ W, torch.eye(24), atol=1e-5, rtol=0)
    assert (x.mean(0) @ W).abs().max() < 1e-5


def test_as_many_bits_as_dimensions_lose_only_the_mean():
    x = all_positive(2000, 16, seed=3)
    W = fit_itq(x, 16)
    values = torch.linalg.svdvals(W)
    torch.testing.assert_close(values[:-1], torch.ones(15), atol=1e-5, rtol=0)
    assert values[-1] < 1e-5


def test_the_fit_depends_on_nothing_but_descriptors_and_seed():
    x = near_corners(500, 16, 8, seed=4)
    first = fit_itq(x, 8, seed=1)
    torch.rand(3)  # the global generator plays no part
    assert torch.equal(first, fit_itq(x, 8, seed=1))
    assert not torch.allclose(first, fit_itq(x, 8, seed=2), atol=1e-3)


def test_more_bits_than_dimensions():
    with pytest.raises(ValueError, match="cannot make 17 bits of 16 dimensions"):
        fit_itq(torch.randn(100, 16), 17)
