"""What extraction passes on: regions of images, their features, and what makes these."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ames.backbones.base import Backbone, ImageFeatures
from ames.backbones.composed import Composed
from ames.datasets.images import read_image
from ames.descriptors.encoding import LocalRows
from ames.descriptors.provenance import Provenance
from ames.errors import AmesError
from ames.extraction.config import ExtractionConfig
from ames.extraction.preprocessing import Box
from ames.features import LocalFeatures
from ames.models.base import Similarity
from ames.models.load import Loaded, load

ExtractionResult = ImageFeatures | str  # or why there are none


def is_finite(features: ImageFeatures) -> bool:
    """Whether neither a descriptor or weight of an image nor its global vector is NaN or infinite."""
    local, vector = features.local, features.vector
    tensors = [x for x in (local.descriptors, local.weight) if x is not None]
    whole = all(bool(x[local.valid].isfinite().all()) for x in tensors)
    return whole and (vector is None or bool(np.isfinite(vector).all()))


class ImageRegion(NamedTuple):
    """An image, or what a box in it shows. image: its file, or its pixels uint8 [H, W, 3] BGR."""

    image: Path | np.ndarray
    box: Box | None = None

    def read(self, max_pixels: int) -> np.ndarray:
        """Return the pixels of the whole image; UnreadableImage says why not."""
        if isinstance(self.image, np.ndarray):
            return self.image
        return read_image(self.image, max_pixels=max_pixels)


class BaseExtractor:
    """Extracts features as ``config``, which has no open option, says; ``provenance`` records it.

    local_dim: of local descriptors before packing. global_dim: None without a global descriptor. AmesError
    where the model of ``config.pack`` cannot pack such descriptors.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: ExtractionConfig,
        *,
        local_dim: int,
        global_dim: int | None,
        made: Provenance,
    ) -> None:
        self.name, self.config = backbone.name, config
        self.local_dim, self.global_dim = local_dim, global_dim
        assert config.desc_num is not None
        self.rows = LocalRows(config.desc_num, local_dim, config.dtype)
        self.packer: Similarity | None = None
        if config.pack is not None:
            local = backbone.local if isinstance(backbone, Composed) else backbone
            found = _load_packer(config.pack, local_dim, local.name)
            self.packer = found.model
            self.rows = LocalRows(config.desc_num, self.packer.code_bytes, "uint8")
            fingerprint = self.packer.fingerprint()[:16]
            made = replace(made, packed_by=found.name, projection=fingerprint)
        self.provenance = made

    def chunks(
        self, photos: Sequence[ImageRegion], size: int, tick: Callable[[], object] = lambda: None
    ) -> Iterator[list[ExtractionResult]]:
        """Yield features of the regions, in order, ``size`` at a time; ``tick`` is called for each."""
        raise NotImplementedError

    def pack(self, local: LocalFeatures) -> LocalFeatures:
        """Return features as they are stored: codes uint8 [N, bytes] where a binary model packs them."""
        if self.packer is None:
            return local
        if not local.size:
            return local.with_descriptors(torch.zeros(0, self.packer.code_bytes, dtype=torch.uint8))
        return self.packer.compress(local)


def _load_packer(name_or_path: Path, width: int, backbone: str) -> Loaded:
    found = load(name_or_path, backbone=backbone)
    if found.model.code_bits is None:
        raise AmesError(
            f"{name_or_path}: a full-precision model, which has no bits to pack; give a binary one"
        )
    if found.model.local_dim != width:
        raise AmesError(f"{name_or_path}: takes {found.model.local_dim}-d descriptors, these are {width}-d")
    return found
