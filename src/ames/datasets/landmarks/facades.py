"""Generated landmarks, drawn flat: facades and objects with shared parts and many details of their own.

Each family composes a wall or ground (``textures``), parts from the shared library (``motifs``) and detail of
its own (``ornaments``) on one canvas, with a mask of the pixels that belong to the landmark.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np

from ames.datasets.landmarks import motifs, ornaments
from ames.datasets.landmarks.textures import (
    Array,
    Tones,
    cell_borders,
    cells,
    draw_tones,
    draw_wall,
    greyish,
    mixed,
    plaster,
)

Family = Callable[[np.random.Generator, tuple[int, int], Tones], tuple[Array, Array]]


def draw_landmark(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Array, Array]:
    """One landmark: canvas uint8 [H, W, 3] in BGR order, and its mask, uint8 [H, W] of 0 and 255.

    rng: the only source of chance; the same state draws the same landmark. size: (H, W), at least 96 × 96.
    """
    tones = draw_tones(rng)
    canvas, mask = FAMILIES[rng.choice(len(FAMILIES), p=FAMILY_SHARES)](rng, size, tones)
    ornaments.crack(rng, canvas, tones, int(rng.integers(1, 5)))
    return ornaments.weather(rng, canvas), mask


def _kind(rng: np.random.Generator) -> int:
    return int(rng.integers(motifs.KINDS))


def skyline(rng: np.random.Generator, size: tuple[int, int], roof: int) -> Array:
    """Mask of a building's outline whose roof takes the top ``roof`` rows: gable, steps, dome ..."""
    h, w = size
    mask = np.zeros((h, w), np.uint8)
    cv2.rectangle(mask, (0, roof), (w - 1, h - 1), 255, -1)
    kind = rng.integers(6)
    if kind == 0:
        cv2.fillPoly(mask, [np.array([(0, roof), (w // 2, 0), (w - 1, roof)], np.int32)], 255)
    elif kind == 1:
        steps = int(rng.integers(3, 6))
        for i in range(steps):
            inset = w * i // (2 * steps)
            cv2.rectangle(mask, (inset, roof - roof * (i + 1) // steps), (w - 1 - inset, roof), 255, -1)
    elif kind == 2:
        cv2.ellipse(mask, (w // 2, roof), (int(w * rng.uniform(0.25, 0.48)), roof), 0, 180, 360, 255, -1)
    elif kind == 3:
        tower = int(w * rng.uniform(0.16, 0.28))
        for x in (0, w - tower):
            cv2.rectangle(mask, (x, roof // 2), (x + tower - 1, roof), 255, -1)
            tip = np.array([(x, roof // 2), (x + tower // 2, 0), (x + tower - 1, roof // 2)], np.int32)
            cv2.fillPoly(mask, [tip], 255)
    elif kind == 4:
        tooth = max(8, w // int(rng.integers(8, 18)))
        for x in range(0, w, 2 * tooth):
            cv2.rectangle(mask, (x, roof // 2), (x + tooth, roof), 255, -1)
    else:
        x, tower = int(w * rng.uniform(0.05, 0.6)), int(w * rng.uniform(0.22, 0.36))
        cv2.rectangle(mask, (x, 0), (x + tower, roof), 255, -1)
    return mask


def dress_roof(rng: np.random.Generator, canvas: Array, roof: int, tones: Tones) -> None:
    """Tiles or carving in the roof zone, and a round window in its middle."""
    h, w = roof, canvas.shape[1]
    if rng.random() < 0.5:
        step = int(rng.integers(8, 15))
        canvas[:roof] = plaster(rng, (h, w), Tones(*([mixed(tones.accent, tones.dark, 0.3)] * 5)))
        for row, y in enumerate(range(0, roof, step)):
            for x in range(-(row % 2) * step // 2, w, step):
                centre = (x + step // 2, y)
                cv2.ellipse(canvas, centre, (step // 2, step), 0, 0, 180, tones.dark, 1, cv2.LINE_AA)
    else:
        panel, mask = ornaments.relief(rng, (max(8, roof), w), tones)
        motifs.paste(canvas, (panel, mask), 0, 0)
    diameter = int(min(roof * 0.7, w * 0.3))
    if diameter > 16:
        centre_x = int(w * rng.uniform(0.35, 0.65))
        round_part = motifs.rosette(_kind(rng), diameter, tones)
        motifs.paste(canvas, round_part, centre_x - diameter // 2, roof - int(diameter * 1.1))


def furnish(rng: np.random.Generator, canvas: Array, box: tuple[int, int, int, int], tones: Tones) -> None:
    """Make one window (x, y, width, height) unlike its neighbours: blind, curtain, plant, lamp, boards."""
    x, y, w, h = box
    inner = canvas[y + h // 4 : y + int(h * 0.9), x + w // 5 : x + w - w // 5]
    if inner.shape[0] < 8 or inner.shape[1] < 8:
        return
    kind, (ih, iw) = rng.integers(5), inner.shape[:2]
    if kind == 0:
        inner[: int(ih * rng.uniform(0.2, 0.8))] = mixed(tones.light, tones.wall, float(rng.uniform(0, 1)))
    elif kind == 1:
        edge = int(iw * rng.uniform(0.3, 0.8))
        points = np.array([(0, 0), (edge, 0), (edge // 3, ih)], np.int32)
        colour = mixed(tones.light, tones.accent, float(rng.uniform(0, 0.7)))
        cv2.fillPoly(inner, [points], colour, cv2.LINE_AA)
    elif kind == 2:
        ornaments.throw_shapes(rng, inner[ih // 2 :], (tones.light, tones.accent, tones.dark), 8, (0.15, 0.7))
    elif kind == 3:
        centre = (int(rng.integers(0, iw)), int(rng.integers(0, ih)))
        cv2.circle(inner, centre, max(3, iw // 4), tones.light, -1, cv2.LINE_AA)
    else:
        for _ in range(3):
            a, b = (0, int(rng.integers(0, ih))), (iw, int(rng.integers(0, ih)))
            cv2.line(inner, a, b, mixed(tones.accent, tones.light, 0.4), max(3, ih // 8), cv2.LINE_AA)


def draw_floor(
    rng: np.random.Generator, canvas: Array, top: int, height: int, bays: int, tones: Tones
) -> None:
    """One storey between ``top`` and ``top + height``: bays of windows or portals, columns, panels."""
    w = canvas.shape[1]
    kind, bay = _kind(rng), w / bays
    part_w, part_h = int(bay * rng.uniform(0.5, 0.72)), int(height * rng.uniform(0.62, 0.8))
    part = (motifs.portal if rng.random() < 0.2 else motifs.window)(kind, (part_h, part_w), tones)
    y = top + (height - part_h) // 2
    columns = rng.random() < 0.3
    pillar = motifs.column(_kind(rng), (height, max(8, int(bay * 0.16))), tones) if columns else None
    for i in range(bays):
        x = int((i + 0.5) * bay - part_w / 2)
        chance = rng.random()
        if chance < 0.22:
            panel = ornaments.relief if rng.random() < 0.6 else ornaments.printed
            motifs.paste(canvas, panel(rng, (part_h, part_w), tones), x, y)
        else:
            motifs.paste(canvas, part, x, y, float(rng.uniform(0.85, 1.15)))
            if chance < 0.6:
                furnish(rng, canvas, (x, y, part_w, part_h), tones)
        if pillar is not None:
            motifs.paste(canvas, pillar, int(i * bay - pillar[1].shape[1] / 2), top)


def facade(rng: np.random.Generator, size: tuple[int, int], tones: Tones) -> tuple[Array, Array]:
    """A building's front."""
    h, w = size
    canvas, roof = draw_wall(rng, size, tones), int(h * rng.uniform(0.1, 0.26))
    if rng.random() < 0.6:
        ornaments.crumble(rng, canvas, tones, float(rng.uniform(0.05, 0.2)))
    mask = skyline(rng, size, roof)
    dress_roof(rng, canvas, roof, tones)
    floors = int(rng.integers(2, 5))
    edges = roof + np.cumsum(np.r_[0, rng.dirichlet(np.full(floors, 12.0))]) * (h - roof)
    bays = int(rng.integers(2, 6))
    for top, bottom in pairwise(edges.astype(int)):
        draw_floor(rng, canvas, int(top), int(bottom - top), max(2, bays + int(rng.integers(-1, 2))), tones)
        band = int(max(8, h * rng.uniform(0.02, 0.045)))
        if rng.random() < 0.75:
            motifs.paste(canvas, motifs.frieze(_kind(rng), (band, w), tones), 0, int(top) - band // 2)
    for _ in range(int(rng.integers(1, 4))):
        put_sign(rng, canvas, tones)
    if rng.random() < 0.4:
        ornaments.paint_curves(rng, canvas[h // 2 :], tones, int(rng.integers(1, 4)))
    return canvas, mask


def put_sign(rng: np.random.Generator, canvas: Array, tones: Tones) -> None:
    """A board with one line of glyphs, somewhere."""
    h, w = canvas.shape[:2]
    height, width = int(h * rng.uniform(0.05, 0.1)), int(w * rng.uniform(0.25, 0.6))
    x, y = int(rng.integers(0, w - width)), int(rng.integers(h // 5, h - height))
    ground, ink = (tones.light, tones.dark) if rng.random() < 0.5 else (tones.dark, tones.light)
    cv2.rectangle(canvas, (x, y), (x + width, y + height), ground, -1)
    cv2.rectangle(canvas, (x, y), (x + width, y + height), ink, 2)
    pad = max(2, height // 8)
    ornaments.inscription(rng, canvas, (x + pad, y + pad, width - 2 * pad, height - 2 * pad), ink)


def poster(rng: np.random.Generator, size: tuple[int, int], tones: Tones) -> tuple[Array, Array]:
    """A poster wall or a package: one large print and a few smaller ones over it."""
    canvas, mask = ornaments.printed(rng, size, tones)
    for _ in range(int(rng.integers(2, 6))):
        h, w = int(size[0] * rng.uniform(0.2, 0.4)), int(size[1] * rng.uniform(0.2, 0.45))
        part = (ornaments.printed, ornaments.relief)[rng.integers(2)](rng, (h, w), draw_tones(rng))
        motifs.paste(canvas, part, int(rng.integers(0, size[1] - w)), int(rng.integers(0, size[0] - h)))
    if rng.random() < 0.6:
        band = motifs.frieze(_kind(rng), (size[0] // 18, size[1]), tones)
        motifs.paste(canvas, band, 0, int(rng.integers(0, size[0])))
    return canvas, mask


def mosaic(rng: np.random.Generator, size: tuple[int, int], tones: Tones) -> tuple[Array, Array]:
    """A picture of large shapes laid in small irregular stones, framed by a frieze."""
    picture = np.full((*size, 3), tones.wall, np.uint8)
    colours = (tones.dark, tones.light, tones.accent, mixed(tones.wall, tones.light, 0.5))
    ornaments.throw_shapes(rng, picture, colours, int(rng.integers(16, 30)), (0.1, 0.7))
    labels, _ = cells(rng, size, rng.uniform(9, 15))
    flat = labels.ravel()
    count = int(flat.max()) + 1
    first = np.zeros(count, np.int64)
    first[flat] = np.arange(flat.size)
    stones = picture.reshape(-1, 3)[first] + rng.normal(0, 12, (count, 1))
    canvas = stones.clip(0, 255).astype(np.uint8)[labels]
    canvas[cell_borders(labels)] = mixed(tones.joint, tones.wall, 0.4)
    canvas = np.ascontiguousarray(canvas)
    band = motifs.frieze(_kind(rng), (max(10, size[0] // 16), size[1]), tones)
    for y in (0, size[0] - band[1].shape[0]):
        motifs.paste(canvas, band, 0, y)
    if rng.random() < 0.5:
        put_sign(rng, canvas, tones)
    return canvas, np.full(size, 255, np.uint8)


def totem(rng: np.random.Generator, size: tuple[int, int], tones: Tones) -> tuple[Array, Array]:
    """A statue-like stack of blocks, discs and vases, each carved in its own way."""
    h, w = size
    canvas, mask = motifs.blank(size)
    edges = (np.cumsum(np.r_[0, rng.dirichlet(np.full(int(rng.integers(3, 6)), 8.0))]) * h).astype(int)
    for top, bottom in pairwise(edges):
        height, width = max(12, int(bottom - top)), int(w * rng.uniform(0.45, 1.0))
        kind, left = rng.integers(4), (w - width) // 2
        part, part_mask = ornaments.relief(rng, (height, width), tones)
        if kind == 0:
            part_mask[:] = 0
            cv2.ellipse(part_mask, (width // 2, height // 2), (width // 2, height // 2), 0, 0, 360, 255, -1)
        elif kind == 1:
            inset = int(width * rng.uniform(0.08, 0.3))
            corners = [(inset, 0), (width - inset, 0), (width, height), (0, height)]
            part_mask[:] = 0
            cv2.fillPoly(part_mask, [np.array(corners, np.int32)], 255)
        elif kind == 2:
            motifs.paste(part, motifs.frieze(_kind(rng), (max(8, height // 4), width), tones), 0, height // 3)
            shaft = motifs.column(_kind(rng), (height, max(8, width // 7)), tones)
            for x in (0, width - shaft[1].shape[1]):
                motifs.paste(part, shaft, x, 0)
        else:
            diameter = int(min(height, width) * 0.8)
            disc = motifs.rosette(_kind(rng), max(12, diameter), tones)
            motifs.paste(part, disc, (width - diameter) // 2, (height - diameter) // 2)
        motifs.add((canvas, mask), (part, part_mask), left, int(top))
    if rng.random() < 0.5:
        put_sign(rng, canvas, tones)
    return canvas, mask


def painted_wall(rng: np.random.Generator, size: tuple[int, int], tones: Tones) -> tuple[Array, Array]:
    """A wall covered with sprayed curves, signs, and a window or two."""
    canvas = draw_wall(rng, size, tones)
    ornaments.crumble(rng, canvas, tones, float(rng.uniform(0.05, 0.2)))
    h, w = size
    for _ in range(int(rng.integers(1, 4))):
        part = motifs.window(_kind(rng), (int(h * 0.3), int(w * 0.2)), tones)
        motifs.paste(canvas, part, int(rng.integers(0, int(w * 0.8))), int(rng.integers(0, int(h * 0.7))))
    ornaments.throw_shapes(rng, canvas, (tones.light, tones.dark, greyish(rng, 60, 200)), 8, (0.05, 0.3))
    ornaments.paint_curves(rng, canvas, tones, int(rng.integers(4, 9)))
    put_sign(rng, canvas, tones)
    return canvas, np.full(size, 255, np.uint8)


FAMILIES: tuple[Family, ...] = (facade, poster, mosaic, totem, painted_wall)
FAMILY_SHARES = (0.56, 0.1, 0.1, 0.14, 0.1)
