"""SuperGlobal: global descriptors that are pooled from feature maps without training.

Shao, Chen, Karpur, Cui, Araujo, Cao: "Global Features are All You Need for Image Retrieval and Reranking"
(ICCV 2023). Written from the paper's description. **Nothing here has been compared with the authors' figures
or vectors.** What the paper states and is taken over: p = 4.6 of GeM, p = 2.5 of the regional pooling, the
threshold 0.014. What is our reading, and therefore an option or said where it
is done: the size of the windows and how they go on beyond the border, the order of the steps on the map,
the limit of Scale-GeM.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ames.errors import AmesError


def relu_p(maps: Tensor, threshold: float = 0.014) -> Tensor:
    """ReLU-P, max(x, threshold): what is small does not count as less than that. Any shape; 0 is ReLU."""
    return maps.clamp(min=threshold)


def gem(maps: Tensor, p: float = 4.6, *, least: float = 1e-6) -> Tensor:
    """GeM, (mean of x^p over the cells)^(1/p): float [B, C, h, w] -> [B, C]; with the tuned p, GeM+.

    p = 1 is the mean, large p approaches the maximum. Values below ``least`` count as that.
    """
    _check_power(p)
    cells = maps.flatten(2).clamp(min=least)
    largest = cells.amax(-1, keepdim=True)  # taken out, so that no power leaves the range of floats
    return (cells / largest).pow(p).mean(-1).pow(1 / p) * largest[..., 0]


def regional_gem(
    maps: Tensor, p: float = 2.5, *, size: int = 5, share: float = 0.5, least: float = 1e-6
) -> Tensor:
    """Regional-GeM: a cell of float [B, C, h, w] becomes ``share`` of its surroundings, the rest of itself.

    The surroundings are the generalized mean (mean of x^p)^(1/p) of the ``size`` x ``size`` window around
    it; beyond the border the map is mirrored. Our reading: size 5, mirroring, equal shares.
    """
    _check_power(p)
    if size < 1 or size % 2 == 0:
        raise AmesError(f"Regional-GeM: windows of {size} x {size} have no middle: give an odd size")
    largest = maps.flatten(2).amax(-1)[..., None, None].clamp(min=least)
    wide = (maps.clamp(min=least) / largest).pow(p)
    for axis in (2, 3):
        wide = wide.index_select(axis, _mirrored(maps.shape[axis], size // 2, maps.device))
    around = F.avg_pool2d(wide, size, stride=1).pow(1 / p) * largest
    return share * around + (1 - share) * maps


def scale_gem(descriptors: Tensor, p: float = math.inf) -> Tensor:
    """Scale-GeM: float [S, B, C] of S scales -> [B, C], the generalized mean over them; inf is the maximum.

    Finite powers need numbers that are not negative: each image's are shifted by its least one, and back.
    Our reading: the maximum, of descriptors that were brought to unit length before (``describe`` does).
    """
    if math.isinf(p):
        return descriptors.amax(0)
    _check_power(p)
    least = descriptors.amin((0, 2), keepdim=True)
    shifted = descriptors - least
    largest = shifted.amax(0, keepdim=True).clamp(min=torch.finfo(shifted.dtype).tiny)
    return ((shifted / largest).pow(p).mean(0).pow(1 / p) * largest[0]) + least[0]


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """The constants of ``describe``; the functions say what each is."""

    gem_p: float = 4.6
    threshold: float = 0.014
    region_p: float = 2.5
    region_size: int = 5
    region_share: float = 0.5
    scale_p: float = math.inf


def describe(
    maps: Sequence[Tensor], whiten: Callable[[Tensor], Tensor], pooling: Pooling | None = None
) -> Tensor:
    """Global descriptors [B, G], of unit length, of B images.

    maps: one float [B, C, h, w] a scale, CVNet's stage 4 (C = 2048); whiten: its layer [B, C] -> [B, G].
    Our reading of the order: ReLU-P, Regional-GeM, GeM+, the layer, unit length, Scale-GeM, unit length.
    """
    if not maps:
        raise AmesError("SuperGlobal: no feature maps were given")
    with_ = pooling or Pooling()
    found = [F.normalize(whiten(pooled(scale, with_)), dim=-1) for scale in maps]
    return F.normalize(scale_gem(torch.stack(found), with_.scale_p), dim=-1)


def pooled(scale: Tensor, pooling: Pooling | None = None) -> Tensor:
    """One scale's map float [B, C, h, w] -> [B, C]: ReLU-P, Regional-GeM, GeM+."""
    with_ = pooling or Pooling()
    scale = relu_p(scale, with_.threshold)
    scale = regional_gem(scale, with_.region_p, size=with_.region_size, share=with_.region_share)
    return gem(scale, with_.gem_p)


def _mirrored(n: int, reach: int, device: torch.device) -> Tensor:
    """Rows of a map of n that lie at -reach ... n - 1 + reach, the first and the last one being mirrors."""
    if n == 1:
        return torch.zeros(1 + 2 * reach, dtype=torch.int64, device=device)
    place = torch.arange(-reach, n + reach, device=device) % (2 * n - 2)
    return torch.where(place < n, place, 2 * n - 2 - place)


def _check_power(p: float) -> None:
    if not 0 < p < math.inf:
        raise AmesError(f"generalized mean: p is {p}; give a number above 0")
