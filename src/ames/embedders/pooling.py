"""Generalized-mean pooling with a learned power, and unit length as released networks have it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEAST = 1e-6


class GeM(nn.Module):
    """GeM (Radenovic et al., PAMI 2018): (mean of x^p over the cells)^(1/p), p learned, one for all channels.

    Values below 1e-6 count as that.
    """

    def __init__(self, p: float = 3.0) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), p))

    def forward(self, maps: Tensor) -> Tensor:
        """maps float [B, C, h, w] -> [B, C]."""
        return maps.float().clamp(min=LEAST).pow(self.p).mean((2, 3)).pow(1 / self.p)


def unit(x: Tensor) -> Tensor:
    """Divide [..., D] by the L2 norm plus 1e-6, as RAML's released networks do."""
    return x / (x.norm(dim=-1, keepdim=True) + LEAST)
