"""Surfaces: smooth noise, colours and wall materials, the ground layer of every drawn landmark.

Images are uint8 [H, W, 3] in BGR order, fields float32 [H, W] in grey levels, masks uint8 [H, W] with
0 or 255. Everything is drawn from the generator passed in, so a surface is a function of its seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Tones:
    """The few colours of one landmark, all near grey-brown, so that colour alone identifies none."""

    wall: Colour
    joint: Colour
    dark: Colour
    light: Colour
    accent: Colour


def greyish(rng: np.random.Generator, low: float, high: float) -> Colour:
    """A grey between ``low`` and ``high`` with a faint warm or cold tint (BGR)."""
    grey, tint = rng.uniform(low, high), rng.uniform(-0.04, 0.16)
    return int(grey * (1 - tint)), int(grey), int(min(255, grey * (1 + 0.6 * tint)))


def draw_tones(rng: np.random.Generator) -> Tones:
    """The colours of one landmark."""
    wall = greyish(rng, 95, 180)
    joint = greyish(rng, 60, 90) if rng.random() < 0.5 else greyish(rng, 170, 215)
    return Tones(wall, joint, greyish(rng, 18, 50), greyish(rng, 195, 240), greyish(rng, 60, 130))


def mixed(a: Colour, b: Colour, share: float) -> Colour:
    """Colour ``share`` of the way from ``a`` to ``b``."""
    first, second, third = (int(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return first, second, third


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> Array:
    """Noise of unit variance at its grid points, with features about ``cell`` pixels wide: [H, W]."""
    grid = (max(2, int(shape[0] / cell) + 2), max(2, int(shape[1] / cell) + 2))
    coarse = rng.standard_normal(grid, dtype=np.float32)
    return cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)


def grain(rng: np.random.Generator, shape: tuple[int, int], coarsest: float, octaves: int) -> Array:
    """A sum of smooth noises, each half as wide and 0.6 as strong as the one before: [H, W]."""
    total = smooth_noise(rng, shape, coarsest)
    for octave in range(1, octaves):
        total += 0.6**octave * smooth_noise(rng, shape, max(2.0, coarsest / 2**octave))
    return total


def tinted(colour: Colour, levels: Array) -> Array:
    """``colour`` plus ``levels`` grey levels ([H, W]) as an image."""
    return cv2.merge([cv2.convertScaleAbs(np.maximum(levels + float(c), 0)) for c in colour])


def cells(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> tuple[Array, Array]:
    """Irregular cells about ``cell`` pixels wide: (number int32, distance to the cell's seed float32)."""
    count = max(4, int(shape[0] * shape[1] / cell**2))
    seeds = np.full(shape, 255, np.uint8)
    seeds[rng.integers(0, shape[0], count), rng.integers(0, shape[1], count)] = 0
    distance, labels = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    return labels, distance


def cell_borders(labels: Array) -> Array:
    """Mask (bool [H, W]) of the two-pixel lines between cells."""
    border = np.zeros(labels.shape, bool)
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    border[:, :-1] |= border[:, 1:]
    return border


def coursed(
    rng: np.random.Generator, shape: tuple[int, int], tones: Tones, height: float, ratio: float, spread: float
) -> Array:
    """Courses of blocks ``height`` pixels high and ``ratio`` times as wide; block tones differ by ``spread``.

    Course heights, offsets and tones are irregular: landmarks share the layout, but not the pattern of tones.
    """
    heights = rng.uniform(0.75, 1.25, int(shape[0] / height / 0.75) + 2) * height
    tops = np.cumsum(heights)
    rows = np.arange(shape[0])
    course = np.searchsorted(tops, rows, side="right")
    into = tops[course] - rows
    widths = height * ratio * rng.uniform(0.8, 1.2, len(heights))
    shifts = rng.uniform(0, height * ratio, len(heights))
    along = (np.arange(shape[1])[None] + shifts[course][:, None]) / widths[course][:, None]
    block = along.astype(np.int32)
    joint = max(1.2, height * 0.09)
    gap = (into[:, None] < joint) | ((along - block) * widths[course][:, None] < joint)
    table = rng.normal(0, spread, (len(heights), int(block.max()) + 1)).astype(np.float32)
    levels = table[course[:, None], block] + 5 * grain(rng, shape, height / 2, 2)
    wall = tinted(tones.wall, levels)
    wall[gap] = tones.joint
    return wall


def brick(rng: np.random.Generator, shape: tuple[int, int], tones: Tones) -> Array:
    """Small bricks."""
    return coursed(rng, shape, tones, rng.uniform(9, 14), rng.uniform(2.0, 2.8), 14)


def ashlar(rng: np.random.Generator, shape: tuple[int, int], tones: Tones) -> Array:
    """Large cut stones."""
    return coursed(rng, shape, tones, rng.uniform(22, 42), rng.uniform(1.3, 2.4), 20)


def rubble(rng: np.random.Generator, shape: tuple[int, int], tones: Tones) -> Array:
    """Irregular field stones of many tones."""
    labels, distance = cells(rng, shape, rng.uniform(16, 30))
    table = rng.normal(0, 26, int(labels.max()) + 1).astype(np.float32)
    wall = tinted(tones.wall, table[labels] - 1.2 * distance + 8 + 5 * smooth_noise(rng, shape, 6))
    wall[cell_borders(labels)] = tones.joint
    return wall


def plaster(rng: np.random.Generator, shape: tuple[int, int], tones: Tones) -> Array:
    """Stained plaster."""
    return tinted(tones.wall, 9 * grain(rng, shape, 60, 4))


def half_timber(rng: np.random.Generator, shape: tuple[int, int], tones: Tones) -> Array:
    """Plaster between dark beams, with braces thrown at random."""
    wall = tinted(tones.light, 8 * grain(rng, shape, 40, 3) - 20)
    width, step = int(rng.integers(6, 12)), int(rng.integers(60, 95))
    beam = mixed(tones.dark, tones.accent, 0.3)
    for x in range(0, shape[1] + step, step):
        cv2.line(wall, (x, 0), (x, shape[0]), beam, width)
        for y in range(0, shape[0], step):
            cv2.line(wall, (x, y), (x + step, y), beam, width)
            kind = rng.integers(0, 5)
            if kind in (0, 2):
                cv2.line(wall, (x, y), (x + step, y + step), beam, width - 2, cv2.LINE_AA)
            if kind in (1, 2):
                cv2.line(wall, (x + step, y), (x, y + step), beam, width - 2, cv2.LINE_AA)
    return wall


WALLS: tuple[Callable[[np.random.Generator, tuple[int, int], Tones], Array], ...] = (
    brick,
    ashlar,
    rubble,
    plaster,
    half_timber,
)


def draw_wall(rng: np.random.Generator, shape: tuple[int, int], tones: Tones) -> Array:
    """A wall of one of the materials, [H, W, 3]."""
    return WALLS[rng.integers(len(WALLS))](rng, shape, tones)
