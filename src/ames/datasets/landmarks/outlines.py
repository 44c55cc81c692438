"""Outlines of objects that are cut out of photographs: masks uint8 [H, W] of 0 and 255."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from ames.datasets.landmarks.facades import skyline
from ames.datasets.landmarks.textures import Array, smooth_noise

Outline = Callable[[np.random.Generator, tuple[int, int]], Array]


def building(rng: np.random.Generator, size: tuple[int, int]) -> Array:
    """A house with a gable, steps, a dome or towers."""
    return skyline(rng, size, int(size[0] * rng.uniform(0.12, 0.3)))


def ellipse(rng: np.random.Generator, size: tuple[int, int]) -> Array:
    """The ellipse that fills the canvas, slightly turned."""
    mask = np.zeros(size, np.uint8)
    axes = (int(size[1] * rng.uniform(0.44, 0.49)), int(size[0] * rng.uniform(0.44, 0.49)))
    turn = float(rng.uniform(-8, 8))
    cv2.ellipse(mask, (size[1] // 2, size[0] // 2), axes, turn, 0, 360, (255,), -1)
    return mask


def rounded_box(rng: np.random.Generator, size: tuple[int, int]) -> Array:
    """A box with round corners, as of a phone, a cushion or a tin."""
    mask = np.zeros(size, np.uint8)
    radius = max(2, int(min(size) * rng.uniform(0.08, 0.35)))
    mask[radius : size[0] - radius, radius : size[1] - radius] = 255
    return cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius - 1, 2 * radius - 1)))


def blob(rng: np.random.Generator, size: tuple[int, int]) -> Array:
    """An irregular body: a disc whose rim follows smooth noise, in one piece and without holes."""
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in size)
    field = x[None] ** 2 + y[:, None] ** 2
    field += 0.3 * smooth_noise(rng, size, min(size) / 2.5) + 0.1 * smooth_noise(rng, size, min(size) / 8)
    contours, _ = cv2.findContours((field < 0.78).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    mask = np.zeros(size, np.uint8)
    if contours:
        cv2.drawContours(mask, [max(contours, key=cv2.contourArea)], -1, (255,), -1)
    return mask


OUTLINES: tuple[Outline, ...] = (building, ellipse, rounded_box, blob)


def draw_outline(rng: np.random.Generator, size: tuple[int, int]) -> Array:
    """One of the outlines for a canvas of (height, width)."""
    return OUTLINES[rng.integers(len(OUTLINES))](rng, size)
