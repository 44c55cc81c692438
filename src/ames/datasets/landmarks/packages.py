"""Packages: boxes with a printed design. Those of one make differ in the front's picture and small print."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ames.datasets.landmarks import ornaments
from ames.datasets.landmarks.boxes import Box
from ames.datasets.landmarks.textures import Array, Colour, Tones, mixed

LONG_SIDE = 640  # pixels of the front's longer side


@dataclass(frozen=True)
class Make:
    """What packages of one make share: size, colours, places of picture and name, and the name itself."""

    sides: tuple[int, int, int]  # height, width, depth, pixels
    tones: Tones
    window: tuple[float, float, float, float]  # of the picture: left, top, right, bottom, shares of the front
    name: tuple[float, float]  # top and height of the line with the name, shares of the front
    seed: int  # of the name's letters and the decoration


def draw_make(rng: np.random.Generator) -> Make:
    """A make of packages: upright or lying, flat or deep."""
    ratio = float(rng.uniform(0.55, 1.6))
    height, width = (LONG_SIDE, int(LONG_SIDE * ratio)) if ratio < 1 else (int(LONG_SIDE / ratio), LONG_SIDE)
    sides = (height, width, int(min(height, width) * rng.uniform(0.25, 0.9)))
    ground, accent = colourful(rng), colourful(rng)
    dark, light = mixed(ground, (20, 20, 20), 0.8), mixed(accent, (245, 245, 245), 0.8)
    tones = Tones(ground, mixed(ground, accent, 0.5), dark, light, accent)
    line = float(rng.uniform(0.1, 0.18))
    if rng.random() < 0.5:  # the name above the picture, or below it
        name, window = (0.05, line), (0.08, line + 0.1, 0.92, 0.88)
    else:
        name, window = (0.93 - line, line), (0.08, 0.06, 0.92, 0.88 - line)
    if rng.random() < 0.35:  # the picture fills the front, the name is printed over it
        window = (0.0, 0.0, 1.0, 1.0)
    return Make(sides, tones, window, name, int(rng.integers(2**31)))


def colourful(rng: np.random.Generator) -> Colour:
    """Any colour that ink has, BGR."""
    hsv = np.array([[[rng.integers(180), rng.integers(60, 230), rng.integers(60, 240)]]], np.uint8)
    b, g, r = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0]
    return int(b), int(g), int(r)


def draw_package(rng: np.random.Generator, make: Make, own: Array | None, common: Array | None) -> Box:
    """One package of a make. rng: of what differs from its siblings.

    own, common: pictures uint8 [h, w, 3] of the front of this package and of the make's sides; None: printed.
    """
    height, width, depth = make.sides
    design = np.random.default_rng(make.seed)
    front = panel(design, make, (height, width))
    side = panel(np.random.default_rng([make.seed, 1]), make, (height, depth))
    top = panel(np.random.default_rng([make.seed, 2]), make, (depth, width))
    printed = np.random.default_rng([make.seed, 3])
    if own is None:
        own = ornaments.printed(rng, (height, width), make.tones)[0]
    if common is None:
        common = ornaments.printed(printed, (height, depth), make.tones)[0]
    place(front, own, make.window)
    place(side, common, (0.1, 0.3, 0.9, 0.75))
    letter(np.random.default_rng([make.seed, 4]), front, make.name, make.tones)
    letter(np.random.default_rng([make.seed, 5]), side, (0.06, 0.12), make.tones)
    letter(np.random.default_rng([make.seed, 4]), top, (0.3, 0.4), make.tones)
    # The small print tells the sort, as on real packages.
    below = make.name[0] + make.name[1] + 0.01 if make.name[0] < 0.5 else make.name[0] - 0.08
    letter(rng, front, (below, 0.06), make.tones, (0.3, 0.9))
    return Box(front, side, top)


def panel(rng: np.random.Generator, make: Make, size: tuple[int, int]) -> Array:
    """An empty face: the make's colour with large shapes and a frame, uint8 [h, w, 3]."""
    image = np.full((*size, 3), make.tones.wall, np.uint8)
    shades = (make.tones.accent, make.tones.joint, mixed(make.tones.wall, make.tones.light, 0.4))
    ornaments.throw_shapes(rng, image, shades, int(rng.integers(3, 9)), (0.15, 0.9))
    cv2.rectangle(image, (0, 0), (size[1] - 1, size[0] - 1), make.tones.accent, max(3, min(size) // 40))
    return image


def place(face: Array, picture: Array, window: tuple[float, float, float, float]) -> None:
    """Print a picture into a window (left, top, right, bottom, shares) of a face; what is too long is cut."""
    h, w = face.shape[:2]
    left, top, right, bottom = (round(s * x) for s, x in zip((w, h, w, h), window, strict=True))
    wanted = (right - left) / (bottom - top)
    rows, columns = picture.shape[:2]
    if columns / rows > wanted:
        cut = (columns - int(rows * wanted)) // 2
        picture = picture[:, cut : columns - cut]
    else:
        cut = (rows - int(columns / wanted)) // 2
        picture = picture[cut : rows - cut]
    way = cv2.INTER_AREA if picture.shape[0] > bottom - top else cv2.INTER_CUBIC
    face[top:bottom, left:right] = cv2.resize(picture, (right - left, bottom - top), interpolation=way)


def letter(
    rng: np.random.Generator,
    face: Array,
    line: tuple[float, float],
    tones: Tones,
    across: tuple[float, float] = (0.08, 0.92),
) -> None:
    """One line of made-up letters on a band.

    line: its top and height; across: its left and right; shares of the face.
    """
    h, w = face.shape[:2]
    top, height = round(line[0] * h), max(8, round(line[1] * h))
    left, right = round(across[0] * w), round(across[1] * w)
    cv2.rectangle(face, (left, top), (right, top + height), tones.light, -1)
    pad = max(2, height // 8)
    box = (left + pad, top + pad, right - left - 2 * pad, max(4, height - 2 * pad))
    ornaments.inscription(rng, face, box, tones.dark)
