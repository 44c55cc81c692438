"""SuperGlobal's pooling: feature maps -> a global vector, without training.

Shao, Chen, Karpur, Cui, Araujo, Cao: "Global Features are All You Need for Image Retrieval and Reranking"
(ICCV 2023). Written from the paper's description. **It has not been compared with the authors' vectors.**
From the paper: p = 4.6 of GeM, p = 2.5 of the regional pooling, the threshold 0.014. Our reading: the size of
the windows and their mirrored border, the order of the steps. Scales are joined by their maximum
(``backbones.selection``).
"""

from __future__ import annotations

import math

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


def pooled(scale: Tensor) -> Tensor:
    """Pool one scale's map float [B, C, h, w] -> [B, C]: ReLU-P, Regional-GeM, GeM+."""
    return gem(regional_gem(relu_p(scale)))


def _mirrored(n: int, reach: int, device: torch.device) -> Tensor:
    """Rows of a map of n that lie at -reach ... n - 1 + reach, the first and the last one being mirrors."""
    if n == 1:
        return torch.zeros(1 + 2 * reach, dtype=torch.int64, device=device)
    place = torch.arange(-reach, n + reach, device=device) % (2 * n - 2)
    return torch.where(place < n, place, 2 * n - 2 - place)


def _check_power(p: float) -> None:
    if not 0 < p < math.inf:
        raise AmesError(f"generalized mean: p is {p}; give a number above 0")
