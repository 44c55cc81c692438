"""RootSIFT (Arandjelovic and Zisserman, CVPR 2012): the embedded backbone that needs no weights."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch

from ames.backbones.base import Backbone, ImageFeatures
from ames.backbones.sift_keypoints import strongest
from ames.backbones.vlad import Vlad
from ames.features import LocalFeatures

# OpenCV doubles an image before it looks for keypoints, and blurs it to 1.6 pixels of that. Here it doubles
# three quarters of the size, in half the time. The blur is the same in pixels of the image.
_SAMPLING, _SIGMA = 0.75, 1.6


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
        made = {"backbone": self.name, "max_size": self.max_size, "sampling": _SAMPLING}
        made |= {"opencv": cv2.__version__}
        return made if self.vlad is None else made | {"vlad": self.vlad.fingerprint()}


def _rootsift(gray: np.ndarray, count: int) -> LocalFeatures:
    height, width = (max(1, round(_SAMPLING * side)) for side in gray.shape)
    sampled = cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA)
    keypoints, sift_descriptors = strongest(sampled, count, sigma=_SAMPLING * _SIGMA)
    l1 = np.maximum(np.abs(sift_descriptors).sum(1, keepdims=True), 1e-12)
    rows = [(k.pt[1] / height, k.pt[0] / width, k.size / max(height, width), k.response) for k in keypoints]
    table = torch.from_numpy(np.array(rows, np.float32).reshape(-1, 4))
    return LocalFeatures.from_descriptors(
        torch.from_numpy(np.sqrt(sift_descriptors / l1).astype(np.float32)),
        positions=table[:, :2].contiguous(),
        scale=table[:, 2].contiguous(),
        weight=table[:, 3].contiguous(),
    )
