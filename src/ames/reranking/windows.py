"""Sliding windows: a list-wise model over a shortlist that is longer than the list it reads (LOCORE)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ames.errors import AmesError
from ames.reranking.fusion import Fusion

ROUTES = ("end-to-start", "start-to-end", "start-to-end-to-start", "end-to-start-to-end")

# Columns int64 [Q, W] of each query's list -> logits float32 [Q, W] of these candidates, in this order.
WindowScores = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Windows:
    """How a list of T candidates is passed in windows of W: ``route`` is one of ``ROUTES``; a window starts
    ``stride`` candidates from the one before it (None: half a window).

    Every route reaches both ends of the list, and no window reaches past one: the last step is shortened.
    With W = 2 * stride and T - W a multiple of the stride, starts are those of LOCORE's released code.
    """

    route: str = "end-to-start"
    stride: int | None = None

    def __post_init__(self) -> None:
        if self.route not in ROUTES:
            raise AmesError(f"route {self.route!r} of the windows is none of {', '.join(ROUTES)}")
        if self.stride is not None and self.stride < 1:
            raise AmesError(f"stride {self.stride} of the windows is below 1")

    def starts(self, total: int, window: int) -> list[int]:
        """Return the first columns of the windows over ``total`` candidates, in the order of the route."""
        last = max(total - window, 0)
        step = self.stride or max(window // 2, 1)
        if step > window:
            raise AmesError(f"stride {step} of the windows leaves gaps between windows of {window}")
        forth = [*range(0, last, step), last]
        back = [*range(last, 0, -step), 0]
        legs = {"start": forth, "end": back}
        starts: list[int] = []
        for origin in self.route.split("-to-")[:-1]:
            leg = legs[origin]
            starts += leg if not starts else leg[1:]  # the turning window is passed once
        return starts


def rank_by_windows(
    score: WindowScores, similarities: np.ndarray, fusion: Fusion, *, window: int, windows: Windows
) -> np.ndarray:
    """Return the order int64 [Q, T] of each query's candidates: columns of the list as it was given.

    similarities: float32 [Q, T] to the query, of the first search. The candidates in a window are sorted by
    their fused score, falling, before the next window is read; ties keep their order. Scores of different
    windows are never compared: the order is the result.
    """
    order = np.tile(np.arange(similarities.shape[1]), (len(similarities), 1))
    for start in windows.starts(order.shape[1], window):
        part = slice(start, start + window)
        columns = order[:, part]
        fused = fusion.fuse(np.take_along_axis(similarities, columns, 1), score(columns))
        order[:, part] = np.take_along_axis(columns, np.argsort(-fused, axis=1, kind="stable"), 1)
    return order
