"""RootSIFT (Arandjelovic and Zisserman, CVPR 2012): the embedded backbone that needs no weights."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch

from ames.backbones.base import Backbone, ImageFeatures
from ames.backbones.vlad import Vlad
from ames.features import LocalFeatures

# Half of OpenCV's default: keypoints are ranked by response, and dark or hazy images need the weak ones.
CONTRAST = 0.02


class RootSift(Backbone):
    """128-d RootSIFT descriptors, strongest response first; global descriptor VLAD.

    ``max_size``: longer images are reduced to this long side (pixels), smaller ones are left alone.
    ``vlad``: the fitted global model; without it ``extract`` gives local descriptors alone.
    A keypoint with several orientations is kept once, so that few descriptors cover much of the image.
    """

    name = "rootsift"
    local_dim = 128

    def __init__(self, *, max_size: int = 640, vlad: Vlad | None = None) -> None:
        self.max_size = max_size
        self.vlad = vlad
        self.global_dim = None if vlad is None else vlad.dim

    def extract(self, image: np.ndarray, count: int) -> ImageFeatures:
        gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image
        shrink = self.max_size / max(gray.shape)
        if shrink < 1:
            height, width = (max(1, round(side * shrink)) for side in gray.shape)
            gray = cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA)
        local = _rootsift(gray, count)
        vector = None if self.vlad is None else self.vlad.encode(local.descriptors.numpy())
        return ImageFeatures(local, vector)

    def provenance(self) -> dict[str, Any]:
        return {"backbone": self.name, "max_size": self.max_size, "opencv": cv2.__version__}


def _rootsift(gray: np.ndarray, count: int) -> LocalFeatures:
    sift = cv2.SIFT_create(contrastThreshold=CONTRAST)  # type: ignore[attr-defined]  # not in the stubs
    keypoints = _strongest(sift.detect(gray, None), count)
    if keypoints:
        keypoints, sift_descriptors = sift.compute(gray, keypoints)
    if not keypoints:
        sift_descriptors = np.zeros((0, 128), np.float32)
    l1 = np.maximum(np.abs(sift_descriptors).sum(1, keepdims=True), 1e-12)
    height, width = gray.shape
    return LocalFeatures.from_descriptors(
        torch.from_numpy(np.sqrt(sift_descriptors / l1).astype(np.float32)),
        positions=torch.tensor([(k.pt[1] / height, k.pt[0] / width) for k in keypoints]).reshape(-1, 2),
        scale=torch.tensor([k.size / max(height, width) for k in keypoints]).reshape(-1),
        weight=torch.tensor([k.response for k in keypoints]).reshape(-1),
    )


def _strongest(keypoints: Any, count: int) -> list[Any]:
    """The first ``count`` by falling response, one a location; ties in a fixed order."""
    ordered = sorted(keypoints, key=lambda k: (-k.response, k.pt[1], k.pt[0], k.angle))
    first: dict[tuple[float, float, float], Any] = {}
    for keypoint in ordered:
        first.setdefault((*keypoint.pt, keypoint.size), keypoint)
    return list(first.values())[:count]
