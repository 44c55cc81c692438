"""Surroundings of a landmark: sky, ground, other buildings, clutter, and objects in front of it.

All of it has strong texture of its own, so that a good share of a view's keypoints is not on the landmark.
"""

from __future__ import annotations

import cv2
import numpy as np

from ames.datasets.landmarks import camera, motifs, ornaments
from ames.datasets.landmarks.facades import draw_landmark
from ames.datasets.landmarks.motifs import Motif
from ames.datasets.landmarks.textures import Array, draw_tones, greyish, mixed, smooth_noise, tinted


def background(rng: np.random.Generator, size: tuple[int, int], neighbours: int) -> Array:
    """A street without the landmark, [h, w, 3]: sky, ground and ``neighbours`` other buildings or objects."""
    h, w = size
    small = (max(2, h // 2), max(2, w // 2))  # sky and ground are soft: half the resolution is enough
    horizon = int(small[0] * rng.uniform(0.6, 0.9))
    levels = 14 * smooth_noise(rng, small, small[1] / 5) + np.linspace(-20, 20, small[0])[:, None]
    image = tinted(greyish(rng, 120, 215), levels.astype(np.float32))
    ground = (small[0] - horizon, small[1])
    levels = 10 * smooth_noise(rng, ground, 20) + 10 * smooth_noise(rng, ground, 4)
    image[horizon:] = tinted(greyish(rng, 70, 140), levels)
    image = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
    pave(rng, image, 2 * horizon)
    for _ in range(neighbours):
        add_neighbour(rng, image)
    return image


def pave(rng: np.random.Generator, image: Array, horizon: int) -> None:
    """Joints of a pavement running to the horizon, with scattered leaves and stones."""
    h, w = image.shape[:2]
    if horizon >= h - 4:
        return
    ink, vanish = greyish(rng, 40, 90), int(w * rng.uniform(0.2, 0.8))
    for x in range(-w, 2 * w, max(20, w // 10)):
        cv2.line(image, (vanish + (x - vanish) // 6, horizon), (x, h), ink, 1, cv2.LINE_AA)
    for depth in np.geomspace(0.06, 1, 7):
        y = int(horizon + depth * (h - horizon))
        cv2.line(image, (0, y), (w, y), ink, 1)
    ornaments.throw_shapes(rng, image[horizon:], (ink, greyish(rng, 120, 220)), 10, (0.05, 0.2))


def add_neighbour(rng: np.random.Generator, image: Array) -> None:
    """Set another building or object somewhere into the picture, in place."""
    h, w = image.shape[:2]
    canvas, mask = draw_landmark(rng, (int(rng.integers(170, 250)), int(rng.integers(140, 230))))
    angles = (float(rng.uniform(-40, 40)), float(rng.uniform(-8, 8)), float(rng.normal(0, 3)))
    scale, side = float(rng.uniform(0.45, 1.0)), rng.choice((-1.0, 1.0))
    shift = (side * w * rng.uniform(0.15, 0.5), h * rng.uniform(-0.1, 0.15))
    homography = camera.plane_homography(mask.shape, (h, w), angles, scale, shift)
    motifs.paste(image, camera.warp(canvas, mask, homography, (h, w), 0.0), 0, 0)


def clutter(rng: np.random.Generator, size: tuple[int, int], count: int) -> Array:
    """A scene without any landmark: ``count`` shop signs, panels and windows heaped over a street."""
    h, w = size
    image = background(rng, size, 1)
    for _ in range(count):
        part = patch(rng, int(min(h, w) * rng.uniform(0.15, 0.45)))
        x, y = int(rng.integers(-20, w - 20)), int(rng.integers(-20, h - 20))
        motifs.paste(image, part, x, y, float(rng.uniform(0.7, 1.2)))
    return image


def patch(rng: np.random.Generator, side: int) -> Motif:
    """A turned piece of texture about ``side`` pixels wide, cut from what landmarks are made of."""
    tones, kind = draw_tones(rng), int(rng.integers(motifs.KINDS))
    shape = (int(side * rng.uniform(0.6, 1.2)) + 8, int(side * rng.uniform(0.6, 1.2)) + 8)
    choice = rng.integers(5)
    if choice == 0:
        part = motifs.window(kind, shape, tones)
    elif choice == 1:
        part = motifs.rosette(kind, min(shape), tones)
    elif choice == 2:
        part = ornaments.printed(rng, shape, tones)
    elif choice == 3:
        part = motifs.frieze(kind, (max(8, shape[0] // 4), shape[1] * 2), tones)
    else:
        part = ornaments.relief(rng, shape, tones)
    h, w = part[1].shape
    reach = int(np.hypot(h, w)) + 2
    turn = cv2.getRotationMatrix2D((w / 2, h / 2), float(rng.normal(0, 14)), 1.0)
    turn[:, 2] += (reach / 2 - w / 2, reach / 2 - h / 2)
    image, mask = (cv2.warpAffine(layer, turn, (reach, reach)) for layer in part)
    return image, camera.solid(mask)


def pole(rng: np.random.Generator, size: tuple[int, int]) -> Motif:
    """A lamp post or tree trunk through the whole height."""
    h, w = size
    image, mask = motifs.blank(size)
    x, lean, width = int(rng.integers(0, w)), int(rng.normal(0, w * 0.04)), int(w * rng.uniform(0.015, 0.06))
    colour = greyish(rng, 30, 120)
    for layer, ink in ((image, colour), (mask, (255,))):
        cv2.line(layer, (x, h), (x + lean, 0), ink, max(3, width), cv2.LINE_AA)
        if rng.random() < 0.5:
            cv2.circle(layer, (x + lean, h // 5), width * 2, ink, -1, cv2.LINE_AA)
    return image, mask


def tree(rng: np.random.Generator, size: tuple[int, int]) -> Motif:
    """A crown of leaves: noise cut off by a threshold, leafy at its rim."""
    h, w = size
    side = int(min(h, w) * rng.uniform(0.35, 0.8))
    field = 0.5 * smooth_noise(rng, (side, side), side / 4) + 0.35 * smooth_noise(rng, (side, side), 7)
    axis = np.linspace(-1, 1, side, dtype=np.float32) ** 2
    mask = ((1.6 * (axis[None] + axis[:, None]) + field) < 1).astype(np.uint8) * 255
    green = greyish(rng, 50, 100)
    colour = (int(green[0] * 0.8), int(green[1] * 1.1), green[2])
    leaves = tinted(colour, 26 * smooth_noise(rng, mask.shape, 4.5))
    x, y = int(rng.integers(-side // 2, w - side // 2)), int(rng.integers(-side // 3, h - side // 2))
    return motifs.add(motifs.blank(size), (leaves, mask), x, y)


def people(rng: np.random.Generator, size: tuple[int, int]) -> Motif:
    """One to three standing figures."""
    h, w = size
    image, mask = motifs.blank(size)
    for _ in range(int(rng.integers(1, 4))):
        tall, x = int(h * rng.uniform(0.25, 0.65)), int(rng.integers(0, w))
        top = int(h * rng.uniform(0.95, 1.15)) - tall
        coat, skin = greyish(rng, 25, 200), greyish(rng, 120, 190)
        third = max(2, tall // 8)
        for layer, cloth, face in ((image, coat, skin), (mask, (255,), (255,))):
            cv2.circle(layer, (x, top + third // 2), third // 2 + 1, face, -1, cv2.LINE_AA)
            axes = (int(third * 1.1), int(third * 2.1))
            cv2.ellipse(layer, (x, top + 3 * third), axes, 0, 0, 360, cloth, -1, cv2.LINE_AA)
            for side in (-1, 1):
                foot = (x + side * third, top + tall)
                cv2.line(layer, (x + side * third // 2, top + 4 * third), foot, cloth, max(2, third * 3 // 4))
        cv2.line(image, (x, top + 2 * third), (x, top + 4 * third), mixed(coat, (128, 128, 128), 0.6), 2)
    return image, mask


def textured_patch(rng: np.random.Generator, size: tuple[int, int]) -> Motif:
    """A banner, shop sign or package held into the picture."""
    h, w = size
    part = patch(rng, int(min(h, w) * rng.uniform(0.2, 0.5)))
    reach = part[1].shape[0] // 2
    x, y = int(rng.integers(0, w)) - reach, int(rng.integers(0, h)) - reach
    return motifs.add(motifs.blank(size), part, x, y)


OCCLUDERS = (pole, tree, people, textured_patch)


def occlude(rng: np.random.Generator, image: Array, visible: Array, share: float) -> Array:
    """Draw things on a view [h, w, 3] until about ``share`` of the landmark is hidden; return what is not.

    visible: mask [h, w] of the landmark's pixels. An occluder that would hide 0.15 more than ``share`` of
    them is left out.
    """
    whole = cv2.countNonZero(visible)
    if whole == 0 or share <= 0.02:
        return visible
    for _ in range(14):
        layer, mask = OCCLUDERS[rng.integers(len(OCCLUDERS))](rng, visible.shape)
        left = cv2.bitwise_and(visible, cv2.bitwise_not(mask))
        hidden = 1 - cv2.countNonZero(left) / whole
        if hidden > share + 0.15:
            continue
        motifs.paste(image, (layer, mask), 0, 0)
        visible = left
        if hidden >= share:
            break
    return visible
