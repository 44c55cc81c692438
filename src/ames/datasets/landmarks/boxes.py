"""A box in true perspective: where its faces are seen by the camera of ``camera.plane_homography``."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from ames.datasets.landmarks import camera
from ames.datasets.landmarks.motifs import Motif
from ames.datasets.landmarks.textures import Array


class Pose(NamedTuple):
    """How a thing stands before the camera, in the terms of ``camera.plane_homography``."""

    angles: tuple[float, float, float]  # yaw, pitch, roll, degrees
    scale: float
    shift: tuple[float, float]  # pixels


class Box(NamedTuple):
    """Textures of the faces, uint8 [height, width, 3], one pixel a unit of length.

    front: [h, w]. side: [h, d], left and right alike. top: [d, w], top and bottom alike.
    """

    front: Array
    side: Array
    top: Array


# Each face: its first corner, the direction of its texture's x, that of its y; in half widths, heights and
# depths from the centre. x points right, y down, z away from the camera. x × y points into the box.
FACES: dict[str, tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]] = {
    "front": ((-1, -1, -1), (1, 0, 0), (0, 1, 0)),
    "right": ((1, -1, -1), (0, 0, 1), (0, 1, 0)),
    "left": ((-1, -1, 1), (0, 0, -1), (0, 1, 0)),
    "top": ((-1, -1, 1), (1, 0, 0), (0, 0, -1)),
    "bottom": ((-1, 1, -1), (1, 0, 0), (0, 0, 1)),
}


def face_homographies(
    sides: tuple[float, float, float], view: tuple[int, int], pose: Pose
) -> dict[str, Array]:
    """Homographies (float64 [3, 3]) from texture pixels to view pixels of the faces that the camera sees.

    sides: height, width and depth of the box. view: (height, width) in pixels. A box without depth is seen as
    ``camera.plane_homography`` sees its front.
    """
    height, width, depth = sides
    turn = camera.rotation(pose.angles)
    focal = camera.FOCAL * max(view)
    fit = pose.scale * min(view[0] / height, view[1] / width)
    centre = np.array([0, 0, focal / fit])
    lens = np.array([[focal, 0, view[1] / 2], [0, focal, view[0] / 2], [0, 0, 1.0]])
    moved = np.array([[1, 0, pose.shift[0]], [0, 1, pose.shift[1]], [0, 0, 1.0]])
    half = np.array([width, height, depth]) / 2
    seen = {}
    for name, (corner, along, down) in FACES.items():
        start = turn @ (half * corner) + centre
        x, y = turn @ np.array(along, float), turn @ np.array(down, float)
        if np.cross(x, y) @ start > 0:  # the camera looks into the box through this face
            seen[name] = moved @ lens @ np.column_stack([x, y, start])
    return seen


def see_box(box: Box, view: tuple[int, int], pose: Pose, gains: dict[str, float]) -> Motif:
    """A box as the camera sees it: image [h, w, 3] and mask [h, w]. gains: brightness of each face."""
    sides = (float(box.front.shape[0]), float(box.front.shape[1]), float(box.top.shape[0]))
    image, mask = np.zeros((*view, 3), np.uint8), np.zeros(view, np.uint8)
    textures = {"front": box.front, "left": box.side, "right": box.side}
    for name, homography in face_homographies(sides, view, pose).items():
        texture = textures.get(name, box.top)
        full = np.full(texture.shape[:2], 255, np.uint8)
        face, part = camera.warp(texture, full, homography, view, 0.0)
        cv2.copyTo(cv2.convertScaleAbs(face, alpha=gains.get(name, 1.0)), part, image)
        mask |= part
    # Borders of faces are rounded to pixels on their own, which can leave a gap between two of them.
    return image, cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
