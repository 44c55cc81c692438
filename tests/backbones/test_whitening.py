"""Whitening of global vectors: what it does to the data that it was fitted on, and its file."""

import numpy as np
import pytest
import torch

from ames.backbones.whitening import Whitening, unit
from ames.errors import AmesError
from ames.weights.files import save_state

SPREAD = np.array([9.0, 4.0, 1.0, 0.25, 0.1, 0.01])


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    return ((rng.normal(size=(4000, 6)) * SPREAD) @ rotation + 3).astype(np.float32)


@pytest.mark.parametrize("power", [0.0, 0.25, 0.5])
def test_variances_of_the_result(vectors, power):
    fitted = Whitening.fit(vectors, dim=3, power=power)
    projected = (vectors - fitted.mean) @ fitted.matrix
    covariance = np.cov(projected.T)
    expected = SPREAD[:3] ** (2 - 4 * power)
    np.testing.assert_allclose(np.diag(covariance), expected, rtol=0.1)
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=0.02 * expected[0])


def test_a_vector_alone_in_a_batch_and_zero(vectors):
    fitted = Whitening.fit(vectors, dim=3)
    assert (fitted.dim, fitted.power) == (3, 0.5)
    found = fitted.apply(vectors[:5])
    expected = unit((vectors[:5] - fitted.mean) @ fitted.matrix)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(fitted.apply(vectors[2]), found[2], atol=1e-6)
    assert not fitted.apply(np.zeros(6, np.float32)).any()
    assert found.dtype == np.float32


def test_the_file(vectors, tmp_path):
    fitted = Whitening.fit(vectors, dim=4, power=0.25)
    fitted.save(tmp_path / "x.safetensors")
    read = Whitening.load(tmp_path / "x.safetensors")
    assert (read.dim, read.power) == (4, 0.25)
    np.testing.assert_array_equal(read.matrix, fitted.matrix.astype(np.float16).astype(np.float32))
    np.testing.assert_allclose(read.apply(vectors[:9]), fitted.apply(vectors[:9]), atol=2e-3)
    assert read.fingerprint() == fitted.fingerprint()
    assert Whitening.fit(vectors, dim=4).fingerprint() != fitted.fingerprint()


def test_variances_that_fp16_cannot_hold(tmp_path):
    rng = np.random.default_rng(1)
    tiny = (rng.normal(size=(50, 3)) * [1, 1e-6, 1e-7]).astype(np.float32)
    fitted = Whitening.fit(tiny, dim=3, power=1.0)
    fitted.save(tmp_path / "x.safetensors")
    assert np.isfinite(Whitening.load(tmp_path / "x.safetensors").matrix).all()


def test_what_is_refused(vectors, tmp_path):
    with pytest.raises(AmesError, match="whitening: 9 dimensions of 4000 vectors 6-d"):
        Whitening.fit(vectors, dim=9)
    with pytest.raises(AmesError, match="5 dimensions of 5 vectors 6-d: give more than 5"):
        Whitening.fit(vectors[:5], dim=5)
    state = {"mean": torch.zeros(5), "matrix": torch.zeros(6, 2), "power": torch.zeros(1)}
    save_state(tmp_path / "x.safetensors", state, {})
    with pytest.raises(AmesError, match=r"not a whitening: mean is \(5,\), this model's is \(6,\)"):
        Whitening.load(tmp_path / "x.safetensors")
    save_state(tmp_path / "y.safetensors", {"mean": torch.zeros(6)}, {})
    with pytest.raises(AmesError, match="not a whitening"):
        Whitening.load(tmp_path / "y.safetensors")
