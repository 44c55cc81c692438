"""Descriptors of one bit per dimension: projection, fit, surrogate in training, and bit packing."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ames.errors import AmesError

# Width of the smooth sign in training (AMES, released recipe): erf(x / sqrt(2 sigma)).
ERF_SIGMA = 1e-6
_ITERATIONS = 50  # of ITQ
_BIT_VALUES = (128, 64, 32, 16, 8, 4, 2, 1)


class Binarize(nn.Module):
    """x [..., D] -> sign(x W) in {-1, +1} [..., d]; in training the differentiable erf in its place."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.W = nn.Parameter(nn.init.orthogonal_(torch.empty(in_features, out_features)))

    def forward(self, x: Tensor) -> Tensor:
        x = x @ self.W
        if self.training:
            return torch.erf(x / math.sqrt(2 * ERF_SIGMA))
        # Never 0, as torch.sign would give for 0: what is stored is a bit.
        return torch.where(x > 0, 1.0, -1.0).to(x.dtype)


def pack_bits(signs: Tensor) -> Tensor:
    """float {-1, +1} [..., d] -> uint8 [..., d / 8], most significant bit first (``numpy.packbits``)."""
    if signs.shape[-1] % 8:
        raise ValueError(f"{signs.shape[-1]} dimensions do not fill whole bytes")
    bits = (signs > 0).unflatten(-1, (-1, 8))
    values = torch.tensor(_BIT_VALUES, dtype=torch.uint8, device=signs.device)
    return (bits * values).sum(-1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 [..., d / 8] -> {-1, +1} [..., d]."""
    values = torch.tensor(_BIT_VALUES, dtype=torch.uint8, device=packed.device)
    bits = (packed.unsqueeze(-1) & values).ne(0).flatten(-2)
    return bits.to(dtype) * 2 - 1


def fit_itq(x: Tensor, bits: int, *, seed: int = 0) -> Tensor:
    """Iterative quantization (Gong and Lazebnik, CVPR 2011): PCA, then the rotation nearest to its signs.

    x: [n, D] L2-normalized descriptors. Returns W [D, bits]; sign(x W) is the code. The projection has no
    offset (published checkpoints have none), so the direction of the mean is projected out first: without
    this, the bits of descriptors that are all positive (RootSIFT) would be constant.
    """
    D = x.shape[1]
    if bits > D:
        raise ValueError(f"ITQ cannot make {bits} bits of {D} dimensions")
    x = x.double()
    mean = x.mean(0)
    away = torch.eye(D, dtype=x.dtype, device=x.device)
    if mean.norm() > 1e-9:
        direction = mean / mean.norm()
        away = away - torch.outer(direction, direction)
    centred = x @ away
    _, vectors = torch.linalg.eigh(centred.T @ centred)  # rising eigenvalues
    basis = vectors.flip(1)[:, :bits]
    v = centred @ basis
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(bits, bits, generator=generator, dtype=torch.float64))
    rotation = rotation.to(x.device)
    for _ in range(_ITERATIONS):
        u, _, vh = torch.linalg.svd(v.T @ torch.sign(v @ rotation))
        rotation = u @ vh
    return (away @ basis @ rotation).float()


def read_itq(path: Path | str) -> Tensor:
    """Read W float32 [D, bits] of a binary projection: itq_<backbone>_D128.pt ('W') or .npz ('proj')."""
    from ames.io.archives import reading_npz
    from ames.weights.files import read_weights  # building a model needs torch alone

    path = Path(path)
    if path.suffix == ".npz":
        with reading_npz(path, "a readable .npz file"), np.load(path, allow_pickle=False) as archive:
            if "proj" not in archive:
                raise AmesError(f"{path}: no ITQ projection: it has no array proj")
            stored = archive["proj"]
        if stored.dtype.kind != "f":
            raise AmesError(f"{path}: no ITQ projection: proj holds {stored.dtype}")
        W = torch.from_numpy(stored.astype(np.float32))
    else:
        found = read_weights(path).state
        if "W" not in found:
            raise AmesError(f"{path}: no ITQ projection: it has no tensor W")
        W = found["W"]
    if W.ndim != 2 or W.shape[1] % 8 or not 0 < W.shape[1] <= W.shape[0]:
        raise AmesError(
            f"{path}: no ITQ projection: W is {tuple(W.shape)}, expected (width, bits), bits a multiple of 8"
        )
    return W
