"""What a backbone offers: from an image to its local and global descriptors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from ames.features import LocalFeatures


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """Features of one image: local [N, D], and the global vector float32 [G] (None if not asked for). Of B
    images: [B, N, D], shorter ones padded, and [B, G].

    backbone: what made them, where it is known. space: of the embedder that made the vector, None: the
    backbone did, or nobody knows.
    """

    local: LocalFeatures
    vector: np.ndarray | None
    backbone: str | None = None
    space: str | None = None


class FeatureMaps(NamedTuple):
    """What a network makes of B images of one size.

    local: float [B, D, h, w], as the network gives it. vector: float [B, G], not normalized. weight: float
    [B, h, w], the network's own attention to each cell. None where the network has no such output.
    """

    local: Tensor
    vector: Tensor | None
    weight: Tensor | None


class Backbone:
    """Turns images into descriptors; ``name`` is what files record and models ask for.

    Objects can be pickled, so that worker processes get a copy.
    """

    name: str
    local_dim: int
    global_dim: int | None

    def extract(self, image: np.ndarray, count: int) -> ImageFeatures:
        """image uint8 [H, W, 3] BGR -> its ``count`` strongest local descriptors and its global one.

        An image without descriptors gives N = 0 and a zero vector: nothing finds it, nothing fails.
        """
        raise NotImplementedError

    def provenance(self) -> dict[str, Any]:
        """What has to be the same for two files to be comparable."""
        return {"backbone": self.name}


class ImageNetwork(Backbone, nn.Module):
    """A network that takes batches of images of one size.

    mean, std: of the channels, in 0 ... 1, in the order of ``channels`` ("rgb" or "bgr"). long_side: of an
    image in pixels, as published. multiple: what both sides are rounded to. scales: sizes relative to that,
    each of which gives descriptors. weights: what files record of them, None: nothing.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: str = "rgb"
    long_side: int = 770
    multiple: int = 1
    scales: tuple[float, ...] = (1.0,)
    weights: str | None = None

    def provenance(self) -> dict[str, Any]:
        return {
            "backbone": self.name,
            "weights": self.weights,
            "long_side": self.long_side,
            "multiple": self.multiple,
            "scales": list(self.scales),
        }


class MapBackbone(ImageNetwork):
    """A network that maps images of one size to feature maps."""

    def maps(self, images: Tensor) -> FeatureMaps:
        """images float [B, 3, H, W], normalized -> their maps."""
        raise NotImplementedError

    def centers(self, rows: int, columns: int, height: int, width: int) -> Tensor:
        """float [rows, columns, 2]: (row, col) of each cell's middle, in pixels of a height x width input."""
        raise NotImplementedError


class KeypointBackbone(ImageNetwork):
    """A network that finds points in images of one size and describes them; it has no global descriptor."""

    global_dim = None

    def keypoints(self, images: Tensor, count: int) -> LocalFeatures:
        """images float [B, 3, H, W], normalized -> the ``count`` points of the highest score, [B, n, D].

        Descriptors have unit length. positions: (row, col) in pixels of the input, edges counted: the middle
        of the first pixel is (0.5, 0.5). weight: the score, highest first. n is that of the image with the
        most points, ``count`` at most; the others are padded.
        """
        raise NotImplementedError
