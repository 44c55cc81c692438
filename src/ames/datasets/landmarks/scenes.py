"""Scenes: each view is a perspective crop of one photograph, so two views are related by a homography."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from ames.datasets.landmarks import camera
from ames.datasets.landmarks.textures import Array

ANCHOR = 0.6  # side of the anchor, share of the photograph's shorter side
CORE = 0.12  # half the side of the part of the anchor that all views show, share of its side
TRIES = 60
LOOSENING = 0.96  # factor of angles and shifts from try to try, so that a narrow photograph ends


class Conditions(NamedTuple):
    """How a view differs from the anchor: angles in degrees, zoom, shift in shares of the view's sides."""

    angles: tuple[float, float, float]
    zoom: float  # 1 shows an area as large as the anchor's, 2 a quarter of it
    shift: tuple[float, float]
    overlap: float  # least share of the smaller of view and anchor that both show


def anchor_of(region: tuple[int, int], view: tuple[int, int]) -> tuple[float, float]:
    """(height, width) of the part in the middle of a photograph that all its views are about.

    region, view: (height, width) of photograph and view. Anchors of all shapes of views have one area.
    """
    side, ratio = ANCHOR * min(region), float(np.sqrt(view[1] / view[0]))
    return side / ratio, side * ratio


def scene_homography(region: tuple[int, int], view: tuple[int, int], at: Conditions) -> Array:
    """Homography (float64 [3, 3]) from photograph pixels to view pixels, filled by the photograph.

    Angles and shift are reduced until no corner of the view lies outside of the photograph, the overlap with
    the anchor is large enough and the anchor's core is seen.
    """
    anchor = anchor_of(region, view)
    corner = np.array([[1, 0, -(region[1] - anchor[1]) / 2], [0, 1, -(region[0] - anchor[0]) / 2], [0, 0, 1]])
    angles, shift, zoom = np.array(at.angles), np.array(at.shift) * view[::-1], at.zoom
    size = (anchor[0], anchor[1])
    for _ in range(TRIES):
        turned = (float(angles[0]), float(angles[1]), float(angles[2]))
        moved = (float(shift[0]), float(shift[1]))
        homography = camera.plane_homography(size, view, turned, zoom, moved) @ corner
        if fits(homography, region, view, at.overlap):
            return homography
        angles, shift, zoom = angles * LOOSENING, shift * LOOSENING, 1 + (zoom - 1) * LOOSENING
    return camera.plane_homography(size, view, (0.0, 0.0, 0.0), 1.0, (0.0, 0.0)) @ corner


def fits(homography: Array, region: tuple[int, int], view: tuple[int, int], overlap: float) -> bool:
    """Return whether a view lies inside the photograph, shows the core and overlaps with the anchor."""
    seen = outline_of(homography, view)
    if seen is None or seen.min() < 0 or (seen > np.array(region[::-1])).any():
        return False
    middle = np.array(region[::-1]) / 2
    half = CORE * np.array(anchor_of(region, view)[::-1])
    core = middle + np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half
    if any(cv2.pointPolygonTest(seen, (float(x), float(y)), False) < 0 for x, y in core):
        return False
    return overlap_of(seen, region, view) >= overlap


def outline_of(homography: Array, view: tuple[int, int]) -> Array | None:
    """Corners float32 [4, 2] (x, y) of what a view shows, in photograph pixels; None behind the camera."""
    h, w = view
    corners = np.array([(0, 0, 1), (w, 0, 1), (w, h, 1), (0, h, 1)], float) @ np.linalg.inv(homography).T
    if (corners[:, 2] * corners[0, 2] <= 0).any():
        return None
    return (corners[:, :2] / corners[:, 2:]).astype(np.float32)


def overlap_of(seen: Array, region: tuple[int, int], view: tuple[int, int]) -> float:
    """Share of the smaller of an outline and the anchor that lies in both."""
    size = np.array(anchor_of(region, view)[::-1])
    first = np.array(region[::-1]) / 2 - size / 2
    anchor = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * size + first
    common, _ = cv2.intersectConvexConvex(seen, anchor.astype(np.float32))
    return float(common) / min(float(cv2.contourArea(seen)), float(size.prod()))
