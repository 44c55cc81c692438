"""What a backbone offers: from an image to its local and global descriptors."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ames.features import LocalFeatures


class ImageFeatures(NamedTuple):
    """Features of one image: local [N, D], and the global vector float32 [G] (None if not asked for)."""

    local: LocalFeatures
    vector: np.ndarray | None


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
