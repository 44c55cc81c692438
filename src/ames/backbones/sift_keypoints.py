"""The strongest SIFT keypoints of an image and their descriptors (Lowe, IJCV 2004), from OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

# Half of OpenCV's default: keypoints are ranked by response, and dark or hazy images need the weak ones.
CONTRAST = 0.02


def strongest(gray: np.ndarray, count: int) -> tuple[list[Any], np.ndarray]:
    """Return the first ``count`` keypoints by falling response, one a location, and descriptors [N, 128].

    gray: uint8 [H, W]. The result is that of detecting all keypoints, sorting them, and describing the first.
    OpenCV would then build its pyramid twice. So detection describes somewhat more than ``count``, because it
    counts a location once an orientation, and twice as many again until ``count`` locations are among them.
    """
    limit = count + count * 3 // 5 + 16
    while True:
        found, described = _sift(limit).detectAndCompute(gray, None)
        order = _order(found, count)
        if len(order) == count or len(found) < limit:
            break
        limit *= 2
    chosen = [found[i] for i in order]
    # OpenCV describes keypoints on a pyramid that starts at octave 0, unless one lies in the doubled image.
    if chosen and not any(_is_of_doubled_image(k) for k in chosen):
        return chosen, _sift().compute(gray, chosen)[1]
    return chosen, described[order] if chosen else np.zeros((0, 128), np.float32)


def _sift(limit: int = 0) -> Any:
    """Of equal responses at the limit OpenCV keeps all; 0: no limit."""
    return cv2.SIFT_create(nfeatures=limit, contrastThreshold=CONTRAST)  # type: ignore[attr-defined]


def _order(keypoints: Sequence[Any], count: int) -> list[int]:
    """Places of the first ``count`` by falling response, one a location; ties in a fixed order."""

    def key(place: int) -> tuple[float, ...]:
        k = keypoints[place]
        return -k.response, k.pt[1], k.pt[0], k.angle, -k.size

    first: dict[tuple[float, float, float], int] = {}
    for place in sorted(range(len(keypoints)), key=key):
        first.setdefault((*keypoints[place].pt, keypoints[place].size), place)
    return list(first.values())[:count]


def _is_of_doubled_image(keypoint: Any) -> bool:
    return bool(keypoint.octave & 128)  # the octave is a signed byte, and this one is -1
