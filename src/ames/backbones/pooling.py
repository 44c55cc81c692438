"""SuperGlobal's pooling: feature maps -> a global vector, without training.

Shao, Chen, Karpur, Cui, Araujo, Cao: "Global Features are All You Need for Image Retrieval and Reranking"
(ICCV 2023). The functions and their constants are those of the authors' released modules, which golden
figures compare (tests/backbones/test_pooling.py). No vector of an image was compared with the authors'.
``backbones.cvnet`` says where a network calls them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ames.errors import AmesError

THRESHOLD = 0.014  # of ReLU-P


def relu_p(maps: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """ReLU-P, max(x, threshold): what is small does not count as less than that. Any shape; 0 is ReLU."""
    return maps.clamp(min=threshold)


def gem(maps: Tensor, p: float = 4.6, *, least: float = 1e-8) -> Tensor:
    """GeM, (mean of x^p over the cells)^(1/p): float [B, C, h, w] -> [B, C]; with the tuned p, GeM+.

    p = 1 is the mean, large p approaches the maximum. Values below ``least`` count as that.
    """
    _check_power(p)
    cells = maps.flatten(2).clamp(min=least)
    largest = cells.amax(-1, keepdim=True)  # taken out, so that no power leaves the range of floats
    return (cells / largest).pow(p).mean(-1).pow(1 / p) * largest[..., 0]


def regional_gem(maps: Tensor, p: float = 2.5, *, size: int = 5, share: float = 0.5) -> Tensor:
    """Regional-GeM: a cell of float [B, C, h, w] becomes ``share`` of its surroundings, the rest of itself.

    The surroundings are the generalized mean (mean of x^p)^(1/p) of the ``size`` x ``size`` window around
    it, in which values below 0 count as 0; beyond the border the map is mirrored.
    """
    _check_power(p)
    if size < 1 or size % 2 == 0:
        raise AmesError(f"Regional-GeM: windows of {size} x {size} have no middle: give an odd size")
    tiny = torch.finfo(maps.dtype).tiny  # of a map of zeros
    largest = maps.flatten(2).amax(-1)[..., None, None].clamp(min=tiny)
    wide = (maps.clamp(min=0) / largest).pow(p)
    for axis in (2, 3):
        wide = wide.index_select(axis, _mirrored(maps.shape[axis], size // 2, maps.device))
    around = F.avg_pool2d(wide, size, stride=1).pow(1 / p) * largest
    return share * around + (1 - share) * maps


def pooled(last: Tensor) -> Tensor:
    """Pool the last stage's map of one scale, float [B, C, h, w] -> unit vectors [B, C]: Regional-GeM, GeM+,
    L2.
    """
    return F.normalize(gem(regional_gem(last)), dim=-1)


def largest_of_scales(vectors: Sequence[Tensor]) -> Tensor:
    """Scale-GeM with p = infinity: in each dimension the maximum of the scales' vectors [B, C], each brought
    to unit length before. The result is not of unit length.
    """
    return torch.stack([F.normalize(x, dim=-1) for x in vectors]).amax(0)


def _mirrored(n: int, reach: int, device: torch.device) -> Tensor:
    """Rows of a map of n that lie at -reach ... n - 1 + reach, the first and the last one being mirrors."""
    if n == 1:
        return torch.zeros(1 + 2 * reach, dtype=torch.int64, device=device)
    place = torch.arange(-reach, n + reach, device=device) % (2 * n - 2)
    return torch.where(place < n, place, 2 * n - 2 - place)


def _check_power(p: float) -> None:
    if not 0 < p < math.inf:
        raise AmesError(f"generalized mean: p is {p}; give a number above 0")
