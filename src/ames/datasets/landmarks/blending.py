"""Put layers on a photograph without a trace: soft borders, and the shadow that a thing casts."""

from __future__ import annotations

import cv2
import numpy as np

from ames.datasets.landmarks.motifs import Motif
from ames.datasets.landmarks.textures import Array

_RIM = np.ones((3, 3), np.uint8)


def softened(mask: Array) -> Array:
    """Opacity float32 [h, w] in [0, 1] of a mask of 0 and 255: its border fades over two pixels, inwards.

    Nothing outside the mask becomes visible, so the layer's own border leaves no dark rim.
    """
    return cv2.blur(cv2.erode(mask, _RIM), (3, 3)).astype(np.float32) / 255


def put(image: Array, motif: Motif, x: int = 0, y: int = 0) -> None:
    """Blend a motif into an image in place, its top left corner at (x, y); the rest is cut off."""
    layer, mask = motif
    left, top = max(0, -x), max(0, -y)
    right, bottom = min(mask.shape[1], image.shape[1] - x), min(mask.shape[0], image.shape[0] - y)
    if right <= left or bottom <= top:
        return
    seen = softened(mask)[top:bottom, left:right]
    below = image[y + top : y + bottom, x + left : x + right]
    part = np.ascontiguousarray(layer[top:bottom, left:right])
    below[:] = cv2.blendLinear(part, np.ascontiguousarray(below), seen, 1 - seen)


def cast_shadow(rng: np.random.Generator, image: Array, mask: Array, darkness: float) -> None:
    """Darken an image in place beside a thing with this mask, by up to the share ``darkness``."""
    h, w = mask.shape
    small = cv2.resize(mask, (max(2, w // 4), max(2, h // 4)), interpolation=cv2.INTER_AREA)
    reach = min(h, w) / 4 * rng.uniform(0.01, 0.08)
    turn = rng.uniform(-0.2, 1.2) * np.pi  # light comes from above: the shadow falls to a side or down
    move = np.array([[1, 0, reach * np.cos(turn)], [0, 1, reach * np.sin(turn)]])
    small = cv2.warpAffine(small, move, small.shape[::-1])
    small = cv2.GaussianBlur(small, (0, 0), max(0.6, reach * rng.uniform(0.2, 0.8)))
    shade = 1 - darkness / 255 * cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    image[:] = cv2.convertScaleAbs(cv2.multiply(image, cv2.merge([shade] * 3), dtype=cv2.CV_32F))
