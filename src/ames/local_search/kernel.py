"""The kernel of ASMK: what two aggregated residuals of one visual word add to a similarity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from ames.errors import AmesError

Numbers = TypeVar("Numbers", np.ndarray, Tensor)


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """Settings of the aggregated selective match kernel (Tolias, Avrithis, Jégou, IJCV 2016, equations 9-13).

    binary: residuals are stored as signs, one bit a dimension. alpha, threshold: of u(σ) = σ^alpha for
    σ >= threshold, else 0. query_assign, db_assign: words of a descriptor of a query, of a database image.
    idf: words weigh ln(images / images with the word)². released_padding: bits count in blocks of 32, as in
    the released code, where the bits that fill the last block are always equal: with 40 dimensions, 24 bits
    of 64 are. False: only the bits of dimensions count. The two differ only in dimensions that are no
    multiple of 32. AmesError for a value out of its range.
    """

    binary: bool = True
    alpha: float = 3.0
    threshold: float = 0.0
    query_assign: int = 5
    db_assign: int = 1
    idf: bool = False
    released_padding: bool = True

    def __post_init__(self) -> None:
        for name in ("binary", "idf", "released_padding"):
            if not isinstance(getattr(self, name), bool):
                raise AmesError(f"{name} is {getattr(self, name)!r}: give true or false")
        for name in ("query_assign", "db_assign"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise AmesError(f"{name} is {value!r}: give a whole number of at least 1")
        if not _is_number(self.alpha) or self.alpha <= 0:
            raise AmesError(f"alpha is {self.alpha!r}: give a number above 0")
        if not _is_number(self.threshold) or not 0 <= self.threshold <= 1:
            raise AmesError(f"threshold is {self.threshold!r}: give a number in [0, 1]")

    def selective(self, sigma: Numbers) -> Numbers:
        """u(σ), elementwise, of similarities in [-1, 1]."""
        above: Numbers = sigma >= self.threshold
        return above * sigma.clip(self.threshold, None) ** self.alpha

    def bits(self, width: int) -> int:
        """Bits by which a Hamming distance of codes of ``width`` dimensions is divided."""
        return 32 * -(-width // 32) if self.released_padding else width

    def table(self, width: int) -> np.ndarray:
        """u(1 - 2 h / bits) of the Hamming distances h = 0 ... ``width``, float64 [width + 1]."""
        return self.selective(1 - 2 * np.arange(width + 1) / self.bits(width))


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
