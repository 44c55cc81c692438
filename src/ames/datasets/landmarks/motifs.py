"""The shared library of building parts: windows, portals, columns, rosettes, friezes.

A part of one kind looks nearly the same on every landmark that has it: its recipe comes from the kind's
number, not from the landmark. So local descriptors of different landmarks match in part, and one match
decides nothing.

A motif is a pair (image uint8 [h, w, 3], mask uint8 [h, w]); ``paste`` puts it on a canvas.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ames.datasets.landmarks.textures import Array, Colour, Tones, mixed

Motif = tuple[Array, Array]

KINDS = 9  # recipes of each part: few, so that each occurs in many landmarks
_LIBRARY = 1789  # seed of the recipes; changing it changes every landmark


def _recipe(part: int, kind: int) -> np.random.Generator:
    return np.random.default_rng([_LIBRARY, part, kind])


def blank(size: tuple[int, int]) -> Motif:
    """An empty motif of (height, width)."""
    return np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)


def add(whole: Motif, part: Motif, x: int, y: int) -> Motif:
    """Put a motif on another, as ``paste`` does, and its mask on that one's; return the other."""
    paste(whole[0], part, x, y)
    paste(whole[1][..., None], (part[1][..., None], part[1]), x, y)
    return whole


def paste(canvas: Array, motif: Motif, x: int, y: int, gain: float = 1.0) -> None:
    """Put a motif with its top left corner at (x, y), its brightness times ``gain``; the rest is cut off."""
    image, mask = motif
    left, top = max(0, -x), max(0, -y)
    right = min(mask.shape[1], canvas.shape[1] - x)
    bottom = min(mask.shape[0], canvas.shape[0] - y)
    if right <= left or bottom <= top:
        return
    part = image[top:bottom, left:right]
    if gain != 1.0:
        part = cv2.convertScaleAbs(part, alpha=gain)
    # In place: the region is a view of the canvas.
    cv2.copyTo(part, mask[top:bottom, left:right], canvas[y + top : y + bottom, x + left : x + right])


def fill_box(motif: Motif, corner: tuple[int, int], opposite: tuple[int, int], colour: Colour) -> None:
    """Fill a rectangle, given by two of its corners (x, y), and its mask."""
    cv2.rectangle(motif[0], corner, opposite, colour, -1)
    cv2.rectangle(motif[1], corner, opposite, 255, -1)


def arch_outline(width: int, height: int, pointed: bool, inset: int = 0) -> Array:
    """Outline of an arched opening of the given size, moved inwards by ``inset``: int32 [n, 2] (x, y)."""
    left, right, top, bottom = inset, width - 1 - inset, inset, height - 1
    half = (right - left) / 2
    rise = min(height * 0.6, half * (1.5 if pointed else 1.0))
    t = np.linspace(0, np.pi, 17)
    bow = 1 - np.abs(np.cos(t)) ** 1.6 if pointed else np.sin(t)
    xs = (left + right) / 2 - half * np.cos(t)
    ys = top + rise - rise * bow
    points = np.stack([xs, ys], axis=1)
    return np.concatenate([[(left, bottom)], points, [(right, bottom)]]).astype(np.int32)


@dataclass(frozen=True)
class Window:
    """A window's recipe: its top, its panes and what is around it."""

    top: int  # 0 flat, 1 round, 2 pointed
    columns: int
    rows: int
    frame: float  # share of the width
    hood: int  # 0 none, 1 lintel, 2 pediment
    shutters: bool
    rose: bool  # a ring in the head of the opening


def window_recipe(kind: int) -> Window:
    """The recipe number ``kind``."""
    rng = _recipe(1, kind)
    return Window(
        top=kind % 3,
        columns=int(rng.integers(1, 4)),
        rows=int(rng.integers(2, 5)),
        frame=float(rng.uniform(0.06, 0.13)),
        hood=int(rng.integers(3)),
        shutters=bool(rng.random() < 0.35),
        rose=bool(rng.random() < 0.5),
    )


def window(kind: int, size: tuple[int, int], tones: Tones) -> Motif:
    """A window of recipe ``kind`` filling (height, width)."""
    recipe, (h, w) = window_recipe(kind), size
    image, mask = blank(size)
    side = int(w * (0.2 if recipe.shutters else 0.04))
    head = int(h * (0.16 if recipe.hood else 0.03))
    sill = int(h * 0.93)
    opening = _opening(recipe, (sill - head, w - 2 * side), max(2, int(w * recipe.frame)), tones)
    add((image, mask), opening, side, head)
    if recipe.shutters:
        for x in (0, w - side):
            fill_box((image, mask), (x, head), (x + side - 1, sill), tones.accent)
            for y in range(head, sill, max(4, h // 16)):
                cv2.line(image, (x, y), (x + side - 1, y), mixed(tones.accent, tones.dark, 0.7), 1)
    fill_box((image, mask), (0, sill), (w - 1, h - 1), tones.light)
    cv2.line(image, (0, h - 2), (w - 1, h - 2), tones.dark, 2)
    if recipe.hood == 1:
        cv2.rectangle(image, (0, 0), (w - 1, head - 3), tones.light, -1)
        cv2.line(image, (0, head - 3), (w - 1, head - 3), tones.dark, 2)
        cv2.rectangle(mask, (0, 0), (w - 1, head - 2), 255, -1)
    elif recipe.hood == 2:
        gable = np.array([(0, head - 2), (w // 2, 0), (w - 1, head - 2)], np.int32)
        cv2.fillPoly(image, [gable], tones.light)
        cv2.polylines(image, [gable], True, tones.dark, 2, cv2.LINE_AA)
        cv2.fillPoly(mask, [gable], 255)
    return image, mask


def _opening(recipe: Window, size: tuple[int, int], border: int, tones: Tones) -> Motif:
    """The frame and the panes of a window, filling (height, width)."""
    h, w = size
    image, mask = blank(size)
    if recipe.top:
        outline = arch_outline(w, h, recipe.top == 2)
        glass = arch_outline(w, h, recipe.top == 2, border)
    else:
        r, b = w - 1, h - 1
        outline = np.array([(0, 0), (r, 0), (r, b), (0, b)], np.int32)
        glass = np.array([(border, border), (r - border, border), (r - border, b), (border, b)], np.int32)
    cv2.fillPoly(mask, [outline], 255)
    cv2.fillPoly(image, [outline], tones.light)
    cv2.fillPoly(image, [glass], tones.dark, cv2.LINE_AA)
    bar, colour = max(1, border // 2), mixed(tones.light, tones.dark, 0.25)
    for i in range(1, recipe.columns + 1):
        x = border + (w - 2 * border) * i // (recipe.columns + 1)
        cv2.line(image, (x, border), (x, h), colour, bar)
    for i in range(1, recipe.rows + 1):
        y = border + (h - border) * i // (recipe.rows + 1)
        cv2.line(image, (border, y), (w - border, y), colour, bar)
    if recipe.top and recipe.rose:
        centre, radius = (w // 2, int(border + w * 0.3)), int(w * 0.2)
        cv2.circle(image, centre, radius, tones.light, -1, cv2.LINE_AA)
        cv2.circle(image, centre, max(2, radius - bar - 1), tones.dark, -1, cv2.LINE_AA)
    cv2.polylines(image, [outline], True, tones.dark, 1, cv2.LINE_AA)
    return image, mask


def portal(kind: int, size: tuple[int, int], tones: Tones) -> Motif:
    """An arched doorway of nested orders with a two-winged, panelled door."""
    rng, (h, w) = _recipe(2, kind), size
    pointed, orders, panels = bool(rng.random() < 0.5), int(rng.integers(2, 5)), int(rng.integers(2, 5))
    image, mask = blank(size)
    cv2.fillPoly(mask, [arch_outline(w, h, pointed)], 255)
    step = max(3, int(w * 0.055))
    for order in range(orders + 1):
        colour = tones.dark if order % 2 else mixed(tones.light, tones.wall, 0.15 * order)
        cv2.fillPoly(image, [arch_outline(w, h, pointed, order * step)], colour, cv2.LINE_AA)
    left = orders * step
    door = mixed(tones.accent, tones.dark, 0.4)
    cv2.fillPoly(image, [arch_outline(w, h, pointed, left)], door, cv2.LINE_AA)
    spring = int(h * 0.4)
    for wing in range(2):
        x0 = left + wing * (w - 2 * left) // 2
        for panel in range(panels):
            y0 = spring + (h - spring) * panel // panels
            corner = (x0 + (w - 2 * left) // 2 - step, y0 + (h - spring) // panels - step)
            cv2.rectangle(image, (x0 + step, y0 + step), corner, tones.dark, 2)
    cv2.line(image, (left, spring), (w - left, spring), tones.light, max(2, step // 2))
    cv2.circle(image, (w // 2, int(h * 0.27)), int(w * 0.11), tones.light, max(2, step // 2), cv2.LINE_AA)
    return image, mask


def column(kind: int, size: tuple[int, int], tones: Tones) -> Motif:
    """A fluted shaft with base and capital."""
    rng, (h, w) = _recipe(3, kind), size
    flutes, capital = int(rng.integers(2, 6)), int(rng.integers(3))
    image, mask = blank(size)
    inset, head = max(1, w // 6), max(6, int(w * 0.9))
    turn = np.sin(np.linspace(0.35, np.pi - 0.2, w - 2 * inset))[None, :, None]
    image[:, inset : w - inset] = (np.array(tones.light)[None, None] * (0.45 + 0.55 * turn)).astype(np.uint8)
    for i in range(flutes):
        x = inset + (w - 2 * inset) * (2 * i + 1) // (2 * flutes)
        cv2.line(image, (x, head), (x, h - head // 2), mixed(tones.dark, tones.wall, 0.3), max(1, w // 20))
    cv2.rectangle(mask, (inset, 0), (w - inset - 1, h), 255, -1)
    for top, bottom in ((0, head), (h - head // 2, h)):
        fill_box((image, mask), (0, top), (w - 1, bottom), tones.light)
        cv2.rectangle(image, (0, top), (w - 1, bottom), tones.dark, 1)
    if capital:
        for x in (w // 4, 3 * w // 4):
            cv2.circle(image, (x, head // 2), max(2, w // 6), tones.dark, max(1, w // 14), cv2.LINE_AA)
    if capital == 2:
        cv2.line(image, (0, head * 4 // 5), (w, head * 4 // 5), tones.dark, 2)
    return image, mask


def rosette(kind: int, diameter: int, tones: Tones) -> Motif:
    """A round window of petals around a hub."""
    rng, d = _recipe(4, kind), diameter
    petals, inner = int(rng.integers(6, 14)), float(rng.uniform(0.16, 0.3))
    (image, mask), c = blank((d, d)), d // 2
    cv2.circle(mask, (c, c), c - 1, 255, -1)
    cv2.circle(image, (c, c), c - 1, tones.light, -1)
    cv2.circle(image, (c, c), int(c * 0.88), tones.dark, max(1, d // 60), cv2.LINE_AA)
    for i in range(petals):
        angle = 2 * np.pi * i / petals
        x, y = c + 0.58 * c * np.cos(angle), c + 0.58 * c * np.sin(angle)
        axes, turn = (int(c * 0.22), max(2, int(c * 1.2 / petals))), float(np.degrees(angle))
        cv2.ellipse(image, (int(x), int(y)), axes, turn, 0, 360, tones.dark, -1, cv2.LINE_AA)
    cv2.circle(image, (c, c), int(c * inner), tones.dark, -1, cv2.LINE_AA)
    cv2.circle(image, (c, c), int(c * inner * 0.5), tones.light, -1, cv2.LINE_AA)
    return image, mask


def frieze(kind: int, size: tuple[int, int], tones: Tones) -> Motif:
    """A band of one repeated sign: teeth, waves, discs, lozenges or keys."""
    rng, (h, w) = _recipe(5, kind), size
    image = np.full((h, w, 3), mixed(tones.light, tones.wall, 0.35), np.uint8)
    step, sign = max(6, int(h * rng.uniform(0.7, 1.3))), kind % 5
    for x in range(0, w, step):
        middle = x + step // 2
        if sign == 0:
            cv2.rectangle(image, (x, h // 4), (middle, 3 * h // 4), tones.dark, -1)
        elif sign == 1:
            axes = (step // 2, h // 2)
            cv2.ellipse(image, (middle, h // 4), axes, 0, 0, 180, tones.dark, 2, cv2.LINE_AA)
        elif sign == 2:
            cv2.circle(image, (middle, h // 2), h // 4, tones.dark, -1, cv2.LINE_AA)
        elif sign == 3:
            points = [(x, h // 2), (middle, h // 5), (x + step, h // 2), (middle, 4 * h // 5)]
            cv2.fillPoly(image, [np.array(points, np.int32)], tones.dark, cv2.LINE_AA)
        else:
            turns = [(x, h - h // 4), (x, h // 4), (x + step * 2 // 3, h // 4), (x + step * 2 // 3, h // 2)]
            cv2.polylines(image, [np.array(turns, np.int32)], False, tones.dark, max(2, h // 9))
    cv2.line(image, (0, 1), (w, 1), tones.light, 2)
    cv2.line(image, (0, h - 1), (w, h - 1), tones.dark, 2)
    return image, np.full((h, w), 255, np.uint8)
