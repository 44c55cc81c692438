"""How an image becomes the input of an image embedder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from ames.errors import AmesError

RESIZES = ("crop", "square", "long")
_MARGIN = 8 / 7  # 256 pixels of which 224 are cropped


@dataclass(frozen=True)
class InputSpec:
    """size: pixels. resize: what is done to an image of any size.

    "crop": the shorter side becomes 8/7 of ``size``, and the centre size x size is cropped (RAML, the usual
    test transform of metric learning). "square": both sides become 8/7 of ``size``, which loses the aspect
    ratio, then the same crop (RRT on products). "long": the longer side becomes ``size``, nothing is cropped
    (landmarks). Images are resized by area where they become smaller, linearly where they become larger; the
    published transforms use Pillow's Lanczos or bilinear filter. mean, std: of the channels, RGB, in 0 ... 1;
    bgr: the network takes blue first.
    """

    size: int = 224
    resize: str = "crop"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    bgr: bool = False

    def __post_init__(self) -> None:
        if self.resize not in RESIZES:
            raise AmesError(f"resize {self.resize!r} is none of {', '.join(RESIZES)}")
        if self.size < 8:
            raise AmesError(f"size {self.size}: give at least 8 pixels")

    def fit(self, image: np.ndarray) -> np.ndarray:
        """Resize and crop an image uint8 [H, W, 3] BGR -> uint8 [h, w, 3] BGR."""
        height, width = image.shape[:2]
        if self.resize == "long":
            scale = self.size / max(height, width)
            return resized(image, max(1, round(height * scale)), max(1, round(width * scale)))
        if self.resize == "crop":  # what is not in the centre is cut before it is resized
            image = _centre(image, min(height, width))
        target = round(self.size * _MARGIN)
        return _centre(resized(image, target, target), self.size)

    def tensor(self, images: Sequence[np.ndarray] | np.ndarray, device: torch.device | str = "cpu") -> Tensor:
        """Images uint8 [h, w, 3] BGR of one size -> normalized float32 [B, 3, h, w]."""
        planes = torch.from_numpy(np.asarray(images)).to(device).permute(0, 3, 1, 2).contiguous()
        ordered = planes if self.bgr else planes.flip(1)
        mean, std = (
            torch.tensor(x[::-1] if self.bgr else x, device=device)[:, None, None]
            for x in (self.mean, self.std)
        )
        return ordered.float().div_(255).sub_(mean).div_(std)


def _centre(image: np.ndarray, side: int) -> np.ndarray:
    top, left = ((x - side) // 2 for x in image.shape[:2])
    return image[top : top + side, left : left + side]


def resized(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return the image [rows, columns, 3]: by area where it becomes smaller, else linearly."""
    if image.shape[:2] == (rows, columns):
        return image
    smaller = rows * columns < image.shape[0] * image.shape[1]
    return cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
