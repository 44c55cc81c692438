"""The camera: perspective of a plane, and effects of light, lens and sensor."""

from __future__ import annotations

import cv2
import numpy as np

from ames.datasets.landmarks.textures import Array, smooth_noise

FOCAL = 1.1  # focal length in units of the image's longer side: a lens of about 50 degrees


def rotation(angles: tuple[float, float, float]) -> Array:
    """Rotation (float64 [3, 3]) by yaw, then pitch, then roll, degrees; x right, y down, z away."""
    (cy, cp, cr), (sy, sp, sr) = np.cos(np.radians(angles)), np.sin(np.radians(angles))
    turn_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    turn_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    turn_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return turn_z @ turn_x @ turn_y


def plane_homography(
    canvas: tuple[float, float],
    view: tuple[int, int],
    angles: tuple[float, float, float],
    scale: float,
    shift: tuple[float, float],
) -> Array:
    """Homography (float64 [3, 3]) from canvas pixels to view pixels of a plane turned in front of a camera.

    canvas, view: (height, width) in pixels of the drawn plane and of the photograph. angles: yaw (seen from
    the side), pitch (from below or above) and roll (in the image plane), degrees. scale: 1 lets the plane,
    seen from the front, just fit into the view. shift: (x, y) in pixels from the view's centre to where the
    canvas's centre is seen.
    """
    turn = rotation(angles)
    fit = scale * min(view[0] / canvas[0], view[1] / canvas[1])
    focal = FOCAL * max(view)
    plane = np.column_stack([turn[:, 0], turn[:, 1], [0, 0, focal / fit]])
    to_centre = np.array([[1, 0, -canvas[1] / 2], [0, 1, -canvas[0] / 2], [0, 0, 1.0]])
    lens = np.array([[focal, 0, view[1] / 2], [0, focal, view[0] / 2], [0, 0, 1.0]])
    moved = np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1.0]])
    return moved @ (lens @ plane @ to_centre)


def warp(
    image: Array, mask: Array, homography: Array, view: tuple[int, int], bend: float
) -> tuple[Array, Array]:
    """See a plane through a homography: image [h, w, 3] and mask [h, w] (0 or 255) of the view's size.

    ``bend`` curves the plane slightly: its middle is raised or lowered by that share of the canvas's height.
    Strong reductions are done in halves first, so that fine texture does not alias.
    """
    corner = homography @ np.array([mask.shape[1] / 2, mask.shape[0] / 2, 1.0])
    step = homography @ np.array([mask.shape[1] / 2, mask.shape[0] / 2 + 1.0, 1.0])
    reduction = float(np.hypot(*(step[:2] / step[2] - corner[:2] / corner[2])))
    while reduction < 0.6 and min(mask.shape) > 32:
        rows, columns = mask.shape[0] // 2, mask.shape[1] // 2
        back = np.diag([mask.shape[1] / columns, mask.shape[0] / rows, 1.0])
        image = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
        mask = cv2.resize(mask, (columns, rows), interpolation=cv2.INTER_AREA)
        homography, reduction = homography @ back, reduction * 2
    if not bend:
        image, mask = (cv2.warpPerspective(layer, homography, view[::-1]) for layer in (image, mask))
        return image, solid(mask)
    x, y = np.meshgrid(np.arange(view[1], dtype=np.float32), np.arange(view[0], dtype=np.float32))
    inverse = np.linalg.inv(homography).astype(np.float32)
    depth = inverse[2, 0] * x + inverse[2, 1] * y + inverse[2, 2]
    u = (inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]) / depth
    v = (inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]) / depth
    v += bend * mask.shape[0] * ((2 * u / mask.shape[1] - 1) ** 2 - 0.5)
    image, mask = (cv2.remap(layer, u, v, cv2.INTER_LINEAR) for layer in (image, mask))
    return image, solid(mask)


def solid(mask: Array) -> Array:
    """A mask of 0 and 255 from an interpolated one."""
    return cv2.threshold(mask, 127, 255, cv2.THRESH_BINARY)[1]


def lit(rng: np.random.Generator, image: Array, gamma: float, gain: float, shadow: float) -> Array:
    """Light: gamma and gain, a colour cast, and a shadow that takes up to the share ``shadow`` of it.

    The shadow is a slope across the picture or a soft spot, as cast by a neighbour or by trees.
    """
    ramp = np.arange(256) / 255.0
    cast = 1 + rng.normal(0, 0.04, 3)
    table = (255 * gain * ramp[:, None] ** gamma * cast).clip(0, 255).astype(np.uint8)
    image = cv2.LUT(image, table[None])
    if shadow <= 0:
        return image
    h, w = image.shape[:2]
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        x, y = np.linspace(-1, 1, w)[None], np.linspace(-1, 1, h)[:, None]
        edge = (x * np.cos(angle) + y * np.sin(angle) + rng.uniform(-0.5, 0.5)) / rng.uniform(0.05, 0.8)
        dimming = shadow / (1 + np.exp(-np.clip(edge, -20, 20) * 2))
    else:
        spots = smooth_noise(rng, (h, w), max(h, w) / rng.uniform(2, 4))
        dimming = shadow * np.clip(0.5 + spots, 0, 1)
    factor = cv2.merge([(1 - dimming).astype(np.float32)] * 3)
    return cv2.convertScaleAbs(cv2.multiply(image, factor, dtype=cv2.CV_32F))


def blurred(rng: np.random.Generator, image: Array, defocus: float, motion: float) -> Array:
    """Defocus (standard deviation in pixels) and motion blur (length in pixels, any direction)."""
    if defocus > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), defocus)
    if motion > 1.5:
        side = int(motion) | 1
        kernel = np.zeros((side, side), np.float32)
        angle, half = rng.uniform(0, np.pi), side / 2
        reach = (half * np.cos(angle), half * np.sin(angle))
        start = (round(half - 0.5 - reach[0]), round(half - 0.5 - reach[1]))
        cv2.line(kernel, start, (round(half - 0.5 + reach[0]), round(half - 0.5 + reach[1])), 1.0, 1)
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    return image


def noisy(rng: np.random.Generator, image: Array, level: float) -> Array:
    """Sensor noise of ``level`` grey levels, the same in the three channels."""
    grey = rng.standard_normal(image.shape[:2], dtype=np.float32) * level
    return cv2.add(image, cv2.merge([grey] * 3), dtype=cv2.CV_8U)
