"""A composed backbone: local features of one network, the global vector of another one."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from ames.backbones.base import Backbone, KeypointBackbone, MapBackbone
from ames.backbones.whitening import Whitening
from ames.errors import AmesError

POOLING = ("cls", "gem")  # of ``ames.backbones.selection``


class Composed(Backbone, nn.Module):
    """Keypoints of ``local``, and the vector of ``vector``, at the size of each; both run once an image.

    pooling: of the vector, "cls" (the network's own) or "gem". whitening: of the pooled unit vector, fitted
    with the same network and pooling.
    """

    def __init__(
        self,
        name: str,
        local: KeypointBackbone,
        vector: MapBackbone,
        *,
        pooling: str = "cls",
        whitening: Whitening | None = None,
    ) -> None:
        super().__init__()
        if pooling not in POOLING:
            raise AmesError(f"{name}: pooling {pooling!r} is none of {', '.join(POOLING)}")
        self.name, self.local, self.vector = name, local, vector
        self.pooling, self.whitening = pooling, whitening
        width = vector.global_dim if pooling == "cls" else vector.local_dim
        if width is None:
            raise AmesError(f"{name}: {vector.name} has no global vector; take pooling gem")
        if whitening is not None and len(whitening.mean) != width:
            raise AmesError(
                f"{name}: its whitening takes {len(whitening.mean)}-d vectors, these are {width}-d"
            )
        self.local_dim = local.local_dim
        self.global_dim = width if whitening is None else whitening.dim
        self.eval()

    def finish(self, vectors: np.ndarray) -> np.ndarray:
        """Pooled vectors float32 [..., D] of unit length -> what files hold, [..., G] of unit length."""
        return vectors if self.whitening is None else self.whitening.apply(vectors)

    def provenance(self) -> dict[str, Any]:
        """The local network's record, and that of the global one under "global_network"."""
        made = {"pooling": self.pooling}
        if self.whitening is not None:
            made["whitening"] = self.whitening.fingerprint()
        return self.local.provenance() | {
            "backbone": self.name,
            "local_network": self.local.name,
            "global_network": self.vector.provenance() | made,
        }
