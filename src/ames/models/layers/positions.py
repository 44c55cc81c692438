"""Sine embeddings of the cells of a feature map (DETR, ECCV 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

_TEMPERATURE, _TURN = 10000.0, 2.0  # of the published code, in which a full turn is 2, not 2 pi


def sine_positions(height: int, width: int, dim: int) -> Tensor:
    """Return the embedding of each cell, row by row: float32 [height * width, dim]; dim: a multiple of 4.

    The first half of the channels shows the row, the second half the column. Channels 2i and 2i + 1 of a
    half are sine and cosine of v / 10000^(4i / dim), where v is 2 (row + 1) / height, or the same of columns.
    """
    half = dim // 2
    rows, columns = (_waves(count, half) for count in (height, width))
    return torch.cat(
        (
            rows[:, None].expand(height, width, half),
            columns[None].expand(height, width, half),
        ),
        -1,
    ).reshape(height * width, dim)


def _waves(count: int, channels: int) -> Tensor:
    """Return sine and cosine of each of ``count`` places, float32 [count, channels]."""
    place = torch.arange(1, count + 1) / (count + 1e-6) * _TURN
    wave = _TEMPERATURE ** (2 * torch.arange(channels // 2) / channels)
    angle = place[:, None] / wave
    return torch.stack((angle.sin(), angle.cos()), -1).flatten(1)


def cells_of(positions: Tensor, height: int, width: int) -> Tensor:
    """Return the cell in which a position lies, row by row: positions float [..., 2] (row, column) in [0, 1]
    of the image -> int64 [...] in 0 ... height * width - 1.
    """
    row, column = (
        (positions[..., axis].float() * count).long().clamp(0, count - 1)
        for axis, count in enumerate((height, width))
    )
    return row * width + column
