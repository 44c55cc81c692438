"""Images as a network takes them: cut to their box, resized, and the way back to the original image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from torch import Tensor

from ames.datasets.images import UnreadableImage

Box = Sequence[float]  # x1, y1, x2, y2 in pixels of the original image, the last two not included


@dataclass(frozen=True)
class Sizing:
    """How large an image goes into a network.

    long_side: of the whole image in pixels, smaller ones are enlarged too; 0: as it is. multiple: of what
    each side is rounded to. scales: sizes relative to that. A box keeps the scale of the whole image, so that
    an object is as large as in the image it was cut from.
    """

    long_side: int = 770
    multiple: int = 1
    scales: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class Placement:
    """Where a network's input lies in the original image, all in pixels.

    height, width: of the original image. top, left, rows, columns: of the part that the input shows.
    input_height, input_width: of the input.
    """

    height: int
    width: int
    top: int
    left: int
    rows: int
    columns: int
    input_height: int
    input_width: int

    def pixels(self, places: Tensor) -> Tensor:
        """(row, col) [..., 2] in pixels of the input -> in pixels of the original image, both float and
        counted from the upper left corner, so that the middle of the first pixel is (0.5, 0.5).
        """
        scale = places.new_tensor([self.rows / self.input_height, self.columns / self.input_width])
        return places * scale + places.new_tensor([self.top, self.left])

    def normalized(self, places: Tensor) -> Tensor:
        """The same as shares of the original image's height and width, in [0, 1], also for a box."""
        return self.pixels(places) / places.new_tensor([self.height, self.width])


class NetworkInput(NamedTuple):
    """pixels uint8 [h, w, 3] BGR, and where they come from."""

    pixels: np.ndarray
    placement: Placement


def network_inputs(image: np.ndarray, sizing: Sizing, box: Box | None = None) -> list[NetworkInput]:
    """The image [H, W, 3], or what ``box`` shows of it, at each scale; UnreadableImage for a box outside.

    Interpolation is by area where the image becomes smaller and linear where it becomes larger.
    """
    height, width = image.shape[:2]
    top, left, bottom, right = whole_pixels(box, height, width)
    part = image[top:bottom, left:right]
    base = (sizing.long_side or max(height, width)) / max(height, width)
    found = []
    for relative in sizing.scales:
        scale = base * relative
        rows, columns = (_rounded(side * scale, sizing.multiple) for side in part.shape[:2])
        placement = Placement(height, width, top, left, bottom - top, right - left, rows, columns)
        found.append(NetworkInput(_resized(part, rows, columns, scale), placement))
    return found


def whole_pixels(box: Box | None, height: int, width: int) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of a box, rounded to pixels and cut at the image's border; None: all of it.

    UnreadableImage for a box outside of the image.
    """
    if box is None:
        return 0, 0, height, width
    x1, y1, x2, y2 = (float(value) for value in box)
    shown = f"its box {x1:g}, {y1:g}, {x2:g}, {y2:g}"
    if not np.isfinite([x1, y1, x2, y2]).all():
        raise UnreadableImage(f"{shown} is none")
    top, bottom = (min(max(round(y), 0), height) for y in (y1, y2))
    left, right = (min(max(round(x), 0), width) for x in (x1, x2))
    if bottom <= top or right <= left:
        raise UnreadableImage(f"{shown} shows nothing of {width} x {height} pixels")
    return top, left, bottom, right


def _rounded(side: float, multiple: int) -> int:
    return max(1, round(side / multiple)) * multiple


def _resized(part: np.ndarray, rows: int, columns: int, scale: float) -> np.ndarray:
    if part.shape[:2] == (rows, columns):
        return np.ascontiguousarray(part)
    return cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
