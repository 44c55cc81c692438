"""Depth of a landmark that is no plane: its near parts move against its far ones as the camera turns.

A flat photograph alone would make all views of a landmark homographies of each other. Those of real things
are not, so matching must bear smooth deviations.
"""

from __future__ import annotations

import cv2
import numpy as np

from ames.datasets.landmarks.textures import Array, smooth_noise

GRID = 48  # rows and columns of a relief
DEPTH = (0.01, 0.06)  # of a relief, share of the longer side
SHARE = 0.6  # of the objects and scenes that have one


def draw_relief(rng: np.random.Generator) -> Array | None:
    """Depth float32 [GRID, GRID] in shares of the longer side, towards the camera; None for a plane."""
    if rng.random() >= SHARE:
        return None
    field = smooth_noise(rng, (GRID, GRID), GRID / float(rng.uniform(2, 5)))
    return (field.clip(-1.5, 1.5) * float(rng.uniform(*DEPTH))).astype(np.float32)


def parallax(layer: Array, relief: Array, angles: tuple[float, float, float]) -> Array:
    """A layer [H, W, ...] whose points are moved over the canvas as the camera turns by angles in degrees.

    A point of depth d appears at d × (-tan yaw, tan pitch) from its place (parallel projection). This
    is to first order in d: the source of a pixel is looked up with the depth at the pixel itself.
    """
    h, w = layer.shape[:2]
    depth = cv2.resize(relief, (w, h), interpolation=cv2.INTER_LINEAR) * max(h, w)
    along, down = np.tan(np.radians(np.clip(angles[:2], -60, 60)))
    x = np.arange(w, dtype=np.float32)[None] + depth * np.float32(along)
    y = np.arange(h, dtype=np.float32)[:, None] - depth * np.float32(down)
    return cv2.remap(layer, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
