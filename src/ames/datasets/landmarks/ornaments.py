"""Details that only one landmark has: glyphs, reliefs, prints, painted curves, damage.

They are drawn from the landmark's own generator and never repeat elsewhere. A local matcher has to find them
among the shared building parts.
"""

from __future__ import annotations

import cv2
import numpy as np

from ames.datasets.landmarks.motifs import Motif
from ames.datasets.landmarks.textures import Array, Colour, Tones, grain, greyish, mixed, smooth_noise


def glyph(rng: np.random.Generator, size: tuple[int, int], thickness: int) -> Array:
    """One made-up letter as a mask uint8 [h, w]: strokes between the points of a 3 × 4 grid."""
    h, w = size
    mask = np.zeros((h, w), np.uint8)
    right, bottom = w - 1 - thickness, h - 1 - thickness
    xs = [thickness + (right - thickness) * i // 2 for i in range(3)]
    nodes = [(x, thickness + (bottom - thickness) * i // 3) for x in xs for i in range(4)]
    at = nodes[rng.integers(len(nodes))]
    for _ in range(int(rng.integers(3, 6))):
        to = nodes[rng.integers(len(nodes))]
        if rng.random() < 0.25:
            cv2.circle(mask, to, max(2, w // 5), 255, thickness, cv2.LINE_AA)
        cv2.line(mask, at, to, 255, thickness, cv2.LINE_AA)
        at = to
    return mask


def inscription(
    rng: np.random.Generator, canvas: Array, box: tuple[int, int, int, int], ink: Colour, share: float = 0.62
) -> None:
    """Fill ``box`` (x, y, width, height) with one line of glyphs as wide as ``share`` of their height."""
    x, y, width, height = box
    step = max(5, int(height * share))
    for left in range(x, x + width - step, int(step * 1.15) + 1):
        if rng.random() < 0.12:
            continue
        region = canvas[y : y + height, left : left + step]
        letter = glyph(rng, (height, step), max(2, height // 8))[: region.shape[0], : region.shape[1]]
        region[letter > 127] = ink


def throw_shapes(
    rng: np.random.Generator,
    canvas: Array,
    colours: tuple[Colour, ...],
    count: int,
    size: tuple[float, float],
) -> None:
    """Throw ``count`` filled shapes on the canvas, from size[0] to size[1] of its shorter side wide."""
    h, w = canvas.shape[:2]
    for _ in range(count):
        radius = max(2.0, float(np.exp(rng.uniform(*np.log(size)))) * (min(h, w) / 2))
        x, y = int(rng.integers(0, w)), int(rng.integers(0, h))
        colour = colours[rng.integers(len(colours))]
        kind = rng.integers(8)
        if kind == 0:
            cv2.circle(canvas, (x, y), int(radius), colour, max(2, int(radius / 4)), cv2.LINE_AA)
        elif kind == 1:
            axes = (int(radius) + 1, int(radius * rng.uniform(0.25, 0.6)) + 1)
            turn, span = float(rng.uniform(0, 360)), float(rng.uniform(120, 360))
            cv2.ellipse(canvas, (x, y), axes, turn, 0, span, colour, -1, cv2.LINE_AA)
        else:
            # Irregular stars and blobs rather than discs: a disc looks the same on every landmark.
            corners = int(rng.integers(4, 10))
            angles = (np.arange(corners) + rng.uniform(0, 0.9, corners)) * (2 * np.pi / corners)
            reach = radius * rng.uniform(0.3, 1.35, corners)
            points = np.stack([x + reach * np.cos(angles), y + reach * np.sin(angles)], axis=1)
            cv2.fillPoly(canvas, [points.astype(np.int32)], colour, cv2.LINE_AA)


def relief(rng: np.random.Generator, size: tuple[int, int], tones: Tones) -> Motif:
    """A carved panel: light and dark shapes, mirrored about its axis in half of the panels."""
    h, w = size
    image = np.full((h, w, 3), mixed(tones.wall, tones.dark, 0.35), np.uint8)
    colours = (tones.light, tones.dark, tones.wall, mixed(tones.light, tones.dark, 0.5))
    throw_shapes(rng, image, colours, int(rng.integers(10, 20)), (0.12, 0.6))
    if rng.random() < 0.5:
        image[:, (w + 1) // 2 :] = image[:, : w // 2][:, ::-1]
    throw_shapes(rng, image, colours[:2], 4, (0.08, 0.25))
    cv2.rectangle(image, (0, 0), (w - 1, h - 1), tones.light, max(2, min(h, w) // 18))
    return image, np.full((h, w), 255, np.uint8)


def printed(rng: np.random.Generator, size: tuple[int, int], tones: Tones) -> Motif:
    """A poster or a package's side: ground, a field of shapes, stripes, dots and lines of glyphs."""
    h, w = size
    ground = tones.light if rng.random() < 0.5 else mixed(tones.accent, tones.dark, 0.3)
    image = np.full((h, w, 3), ground, np.uint8)
    colours = (tones.dark, tones.light, tones.accent, greyish(rng, 70, 200))
    throw_shapes(rng, image, colours, int(rng.integers(4, 8)), (0.35, 1.0))
    throw_shapes(rng, image, colours, int(rng.integers(14, 30)), (0.06, 0.35))
    x, y, step = int(rng.integers(0, w // 2)), int(rng.integers(0, h // 2)), max(4, int(min(h, w) / 22))
    ink = colours[rng.integers(2)]
    for i in range(int(rng.integers(4, 9))):
        if rng.random() < 0.5:
            cv2.line(image, (x, y + 2 * i * step), (x + w // 4, y + 2 * i * step), ink, max(2, step // 2))
        else:
            for j in range(5):
                cv2.circle(image, (x + 2 * j * step, y + 2 * i * step), step // 2, ink, -1, cv2.LINE_AA)
    line = max(10, int(h * rng.uniform(0.06, 0.14)))
    top = int(h * rng.uniform(0.05, 0.3)) if rng.random() < 0.5 else int(h * rng.uniform(0.6, 0.8))
    for row in range(int(rng.integers(1, 3))):
        inscription(rng, image, (w // 12, top + int(row * 1.3 * line), w * 5 // 6, line), ink)
    cv2.rectangle(image, (0, 0), (w - 1, h - 1), colours[0], max(2, step // 2))
    return image, np.full((h, w), 255, np.uint8)


def paint_curves(rng: np.random.Generator, canvas: Array, tones: Tones, count: int) -> None:
    """Thick outlined curves as sprayed on walls."""
    h, w = canvas.shape[:2]
    for _ in range(count):
        anchors = rng.normal(0, 0.16, (int(rng.integers(5, 9)), 2)).astype(np.float32)
        anchors += rng.uniform(0.15, 0.85, 2).astype(np.float32)
        line = cv2.resize(anchors, (2, 48), interpolation=cv2.INTER_CUBIC) * (w, h)
        width = int(max(3, min(h, w) * rng.uniform(0.012, 0.035)))
        points = [line.astype(np.int32)]
        outline, fill = (tones.dark, tones.light) if rng.random() < 0.6 else (tones.light, tones.dark)
        cv2.polylines(canvas, points, False, outline, width + max(3, width // 2), cv2.LINE_AA)
        cv2.polylines(canvas, points, False, fill, width, cv2.LINE_AA)


def crumble(rng: np.random.Generator, canvas: Array, tones: Tones, share: float) -> None:
    """Let the surface fall off in spots over about ``share`` of the canvas, bare stone showing."""
    h, w = canvas.shape[:2]
    field = grain(rng, (h, w), min(h, w) / rng.uniform(5, 9), 3)
    hole = field > np.quantile(field[::4, ::4], 1 - share)
    bare = mixed(tones.wall, tones.dark if rng.random() < 0.5 else tones.light, 0.55)
    canvas[hole] = (np.array(bare) + rng.normal(0, 12)).clip(0, 255).astype(np.uint8)
    rim, _ = cv2.findContours(hole.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, rim, -1, tones.dark, 1, cv2.LINE_AA)


def crack(rng: np.random.Generator, canvas: Array, tones: Tones, count: int) -> None:
    """Dark random walks."""
    h, w = canvas.shape[:2]
    for _ in range(count):
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.5, 24))
        steps = np.stack([np.cos(heading), np.sin(heading)], axis=1) * min(h, w) * 0.02
        walk = np.cumsum(steps, axis=0) + rng.uniform(0, 1, 2) * (w, h)
        width = int(rng.integers(1, 4))
        cv2.polylines(canvas, [walk.astype(np.int32)], False, tones.dark, width, cv2.LINE_AA)


def weather(rng: np.random.Generator, canvas: Array) -> Array:
    """Stains of all sizes, and streaks running down: brightness factors between about 0.5 and 1.5."""
    shape = canvas.shape[:2]
    half = (shape[0] // 2, shape[1] // 2)  # stains are smooth: half the resolution is enough
    stain = 0.085 * grain(rng, half, 60, 5)
    streak = rng.standard_normal((max(2, half[0] // 60), max(2, half[1] // 5)), dtype=np.float32)
    stain += 0.05 * cv2.resize(streak, half[::-1], interpolation=cv2.INTER_LINEAR)
    factor = cv2.resize(1 + stain, shape[::-1]) + 0.03 * smooth_noise(rng, shape, 2.5)
    return cv2.convertScaleAbs(cv2.multiply(canvas, cv2.merge([factor] * 3), dtype=cv2.CV_32F))
