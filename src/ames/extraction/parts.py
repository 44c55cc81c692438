"""The networks of an extraction: at which sizes each reads an image, and what is taken from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ames.backbones.base import FeatureMaps, ImageNetwork, KeypointBackbone, MapBackbone
from ames.backbones.composed import Composed
from ames.backbones.detector import SpatialAttention
from ames.backbones.selection import check, select
from ames.extraction.config import KEYPOINTS, ExtractionConfig
from ames.extraction.preprocessing import Sizing
from ames.features import LocalFeatures
from ames.io.hashing import weights_digest
from ames.precision import AUTOCAST

_PROBED = 64  # pixels a side of the image with which a network is tried before the first real one

Found = tuple[LocalFeatures | None, Tensor | None]


class Part:
    """A network at its sizes, on the device of the configuration.

    local_dim, global_dim: of what ``features`` gives, None where it gives none of that kind.
    """

    local_dim: int | None = None
    global_dim: int | None = None

    def __init__(self, network: ImageNetwork, config: ExtractionConfig) -> None:
        self.device = torch.device(config.device)
        network.to(self.device).eval()
        self.channels = network.channels
        self.sizing = Sizing(
            network.long_side if config.long_side is None else config.long_side,
            network.multiple,
            tuple(map(float, network.scales if config.scales is None else config.scales)),
        )
        self._mean, self._std = (
            torch.tensor(x, device=self.device)[:, None, None] for x in (network.mean, network.std)
        )

    def pixels(self, images: Sequence[np.ndarray]) -> Tensor:
        """uint8 [h, w, 3] BGR each -> normalized float32 [B, 3, h, w]; bytes are sent to the device."""
        stacked = torch.from_numpy(np.stack(images))
        if self.device.type == "cuda":
            stacked = stacked.pin_memory()
        # Into planes while they are bytes, then in place: seven times faster than the same on strided floats.
        planes = stacked.to(self.device, non_blocking=True).permute(0, 3, 1, 2).contiguous()
        ordered = planes if self.channels == "bgr" else planes.flip(1)
        return ordered.float().div_(255).sub_(self._mean).div_(self._std)

    def features(self, scales: Sequence[Tensor]) -> Found:
        """The same B images at each scale, float [B, 3, h, w] -> local features [B, n, D], vectors [B, G].

        ``positions`` are shares of the input's height and width.
        """
        raise NotImplementedError

    def record(self) -> dict[str, Any]:
        """The settings in use, under the keys of ``ames.descriptors.provenance``."""
        sizing = self.sizing
        return {"long_side": sizing.long_side, "multiple": sizing.multiple, "scales": list(sizing.scales)}


class MapPart(Part):
    """Cells and vectors of maps. AmesError where network or detector cannot serve the configuration."""

    def __init__(
        self, network: MapBackbone, config: ExtractionConfig, detector: SpatialAttention | None = None
    ) -> None:
        super().__init__(network, config)
        self._network, self._autocast = network, AUTOCAST[config.autocast]
        self._detector = None if detector is None else detector.to(self.device).eval()
        self._selection = config.selection("network" if detector is None else detector.input)
        maps = probe(network, self.device)
        check(self._selection, maps, self._detector)
        with torch.inference_mode():
            cells = [torch.zeros(*maps.local.shape[2:], 2)]
            local, vector = select([maps], cells, self._selection, self._detector)
        self.local_dim = local.width
        self.global_dim = None if vector is None else vector.shape[-1]

    def features(self, scales: Sequence[Tensor]) -> Found:
        found, centers = [], []
        for pixels in scales:
            h, w = pixels.shape[2:]
            with torch.autocast(self.device.type, self._autocast, enabled=self._autocast is not None):
                maps = self._network.maps(pixels)
            down, across = maps.local.shape[2:]
            grid = self._network.centers(down, across, h, w)
            found.append(maps)
            centers.append(grid.to(self.device) / grid.new_tensor([h, w]).to(self.device))
        return select(found, centers, self._selection, self._detector)

    def record(self) -> dict[str, Any]:
        taken = self._detector if self._selection.needs_detector else None
        # Another detector's rows are never put beside these.
        digest = None if taken is None else weights_digest(taken)
        return super().record() | self._selection.provenance() | {"detector": digest}


class VectorPart(MapPart):
    """The vectors of a network alone, at its own size."""

    def __init__(self, network: MapBackbone, config: ExtractionConfig, pooling: str) -> None:
        own = replace(config, long_side=None, scales=None, desc_num=1, vector=pooling)
        super().__init__(network, own)
        self.local_dim = None

    def features(self, scales: Sequence[Tensor]) -> Found:
        return None, super().features(scales)[1]


class KeypointPart(Part):
    """Keypoints, the ``desc_num`` of the highest score over all scales."""

    def __init__(self, network: KeypointBackbone, config: ExtractionConfig) -> None:
        super().__init__(network, config)
        self._network, self._count = network, config.desc_num or KEYPOINTS
        self.local_dim = network.local_dim

    def features(self, scales: Sequence[Tensor]) -> Found:
        found = []
        for number, pixels in enumerate(scales):
            points = self._network.keypoints(pixels, self._count)
            assert points.positions is not None
            assert points.weight is not None
            shares = points.positions / points.positions.new_tensor(pixels.shape[2:])
            scale = torch.full_like(points.weight, number)
            found.append(replace(points, positions=shares, scale=scale))
        return strongest(found, self._count), None

    def record(self) -> dict[str, Any]:
        return super().record() | {"descriptors": self._count}


def make_parts(
    network: ImageNetwork | Composed, config: ExtractionConfig, detector: SpatialAttention | None
) -> list[Part]:
    """The parts of a backbone: the one with local features first, then one with vectors, if it is another."""
    if isinstance(network, MapBackbone):
        return [MapPart(network, config, detector)]
    if isinstance(network, KeypointBackbone):
        return [KeypointPart(network, config)]
    assert isinstance(network, Composed)
    local = KeypointPart(network.local, config)
    return (
        [local] if config.vector == "none" else [local, VectorPart(network.vector, config, network.pooling)]
    )


def strongest(scales: Sequence[LocalFeatures], count: int) -> LocalFeatures:
    """Join points [B, n, D] of each scale: the ``count`` of the highest weight, padding behind them."""
    joined: dict[str, Any] = {
        name: torch.cat([getattr(x, name) for x in scales], 1)
        for name in ("descriptors", "valid", "positions", "scale", "weight")
    }
    ranked = joined["weight"].masked_fill(~joined["valid"], -torch.inf)
    order = ranked.argsort(dim=1, descending=True, stable=True)[:, :count]
    for name, x in joined.items():
        joined[name] = torch.take_along_dim(x, order[..., None] if x.ndim == 3 else order, 1)
    return LocalFeatures(**joined)


@torch.inference_mode()
def probe(network: MapBackbone, device: torch.device | str = "cpu") -> FeatureMaps:
    """The maps of a small black image: what the network offers, and how wide it is."""
    side = -(-_PROBED // network.multiple) * network.multiple
    return network.maps(torch.zeros(1, 3, side, side, device=device))
