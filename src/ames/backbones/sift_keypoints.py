"""The strongest SIFT keypoints of an image and their descriptors (Lowe, IJCV 2004), from OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

# Half of OpenCV's default: keypoints are ranked by response, and dark or hazy images need the weak ones.
CONTRAST = 0.02


def strongest(gray: np.ndarray, count: int, *, sigma: float = 1.6) -> tuple[list[Any], np.ndarray]:
    """Return the first ``count`` keypoints by falling response, one a location, and descriptors [N, 128].

    gray: uint8 [H, W]. sigma: blur of the doubled image, where keypoints are first looked for, in its pixels.
    The result is that of detecting and describing all keypoints, and sorting them, without the time for
    thousands of descriptors. OpenCV counts a location once an orientation. So somewhat more than ``count``
    are asked for, and twice as many again until ``count`` locations are among them.
    """
    limit = count + count * 3 // 5 + 16
    while True:
        found, described = _sift(sigma, limit).detectAndCompute(gray, None)
        order = _order(found, count)
        if len(order) == count or len(found) < limit:
            break
        limit *= 2
    return [found[i] for i in order], described[order] if order else np.zeros((0, 128), np.float32)


def _sift(sigma: float, limit: int) -> Any:
    """Of equal responses at the limit OpenCV keeps all."""
    return cv2.SIFT_create(  # type: ignore[attr-defined]  # not in the stubs
        nfeatures=limit, contrastThreshold=CONTRAST, sigma=sigma
    )


def _order(keypoints: Sequence[Any], count: int) -> list[int]:
    """Places of the first ``count`` by falling response, one a location; ties in a fixed order."""

    def key(place: int) -> tuple[float, ...]:
        k = keypoints[place]
        return -k.response, k.pt[1], k.pt[0], k.angle, -k.size

    first: dict[tuple[float, float, float], int] = {}
    for place in sorted(range(len(keypoints)), key=key):
        first.setdefault((*keypoints[place].pt, keypoints[place].size), place)
    return list(first.values())[:count]
