"""SuperGlobal's pooling against the released modules' figures and twins in plain loops."""

import numpy as np
import pytest
import torch

from ames.backbones.pooling import gem, largest_of_scales, pooled, regional_gem, relu_p
from ames.errors import AmesError
from golden import qe as golden


def positive(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).uniform(0.1, 2, shape))


def power_mean(values, p):
    return float(np.mean(np.asarray(values, np.float64) ** p) ** (1 / p))


def twin_regional(maps, p, size, share):
    reach = size // 2
    out = np.empty_like(maps)
    for b, c in np.ndindex(*maps.shape[:2]):
        wide = np.pad(maps[b, c], reach, mode="reflect")
        for i, j in np.ndindex(*maps.shape[2:]):
            around = power_mean(wide[i : i + size, j : j + size], p)
            out[b, c, i, j] = share * around + (1 - share) * maps[b, c, i, j]
    return out


def test_relu_p():
    assert relu_p(torch.tensor([-1.0, 0.01, 0.02])).tolist() == pytest.approx([0.014, 0.014, 0.02])
    assert relu_p(torch.tensor([-1.0, 2.0]), 0).tolist() == [0, 2]


@pytest.mark.parametrize("p", [1, 2.5, 4.6])
def test_gem(p):
    maps = positive(2, 3, 4, 5)
    expected = [[power_mean(maps[b, c], p) for c in range(3)] for b in range(2)]
    np.testing.assert_allclose(gem(maps, p), expected)


def test_gem_from_the_mean_to_the_maximum():
    maps = positive(2, 3, 4, 5).float() * 30
    torch.testing.assert_close(gem(maps, 1), maps.mean((2, 3)))
    torch.testing.assert_close(gem(maps, 2000), maps.amax((2, 3)), rtol=3e-3, atol=0)
    torch.testing.assert_close(gem(maps * 7), gem(maps) * 7)
    assert gem(torch.zeros(1, 2, 3, 3)).isfinite().all()


@pytest.mark.parametrize("shape", [(6, 7), (3, 3), (2, 5), (1, 4), (1, 1)])
@pytest.mark.parametrize(("p", "size", "share"), [(2.5, 5, 0.5), (1, 3, 0.3), (4, 1, 0.5)])
def test_regional_gem(shape, p, size, share):
    maps = positive(2, 3, *shape)
    found = regional_gem(maps, p, size=size, share=share)
    np.testing.assert_allclose(found, twin_regional(maps.numpy(), p, size, share), rtol=1e-6)


def test_regional_gem_leaves_an_even_map_and_a_window_of_one_cell():
    even = torch.full((1, 2, 6, 6), 0.7)
    torch.testing.assert_close(regional_gem(even), even)
    maps = positive(1, 2, 4, 4).float()
    torch.testing.assert_close(regional_gem(maps, size=1), maps)
    torch.testing.assert_close(regional_gem(maps, share=0), maps)
    assert regional_gem(torch.zeros(1, 1, 5, 5)).isfinite().all()


def test_the_pooling_is_its_steps():
    maps = (positive(2, 6, 5, 7) - 0.5).relu()
    local = torch.from_numpy(twin_regional(maps.numpy(), 2.5, 5, 0.5))
    expected = (local**4.6).mean((2, 3)) ** (1 / 4.6)
    torch.testing.assert_close(pooled(maps), expected / expected.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("case", golden.CASES["pooling"], ids=lambda case: case["seed"])
def test_the_released_modules_figures(case):
    maps = torch.from_numpy(golden.maps(case))
    floor, regional = relu_p(maps), regional_gem(maps)
    close = {"rtol": golden.CASES["tolerance"], "atol": golden.CASES["tolerance"]}
    np.testing.assert_allclose(floor.sum(), case["relup_sum"], **close)
    assert (floor > maps).sum() == case["relup_clamped"]
    np.testing.assert_allclose(regional[0, :6, 0, 0], case["regional_first_cell_first6"], **close)
    np.testing.assert_allclose(regional.sum(), case["regional_sum"], **close)
    np.testing.assert_allclose(gem(maps)[0, :6], case["gem_first6"], **close)
    shape = case["batch"], case["channels"]
    scales = [torch.from_numpy(golden.drawn(shape, case["seed"] + i)) for i in (1, 2, 3)]
    np.testing.assert_allclose(largest_of_scales(scales)[0, :6], case["scale_max_first6"], **close)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gem(positive(1, 1, 2, 2), 0), "p is 0; give a number above 0"),
        (lambda: regional_gem(positive(1, 1, 2, 2), size=4), "windows of 4 x 4 have no middle"),
    ],
)
def test_what_makes_no_sense(call, message):
    with pytest.raises(AmesError, match=message):
        call()
