"""Select an image's local descriptors from the cells of feature maps, and pool its global one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ames.backbones.base import FeatureMaps
from ames.backbones.detector import DETECTOR_INPUTS, SpatialAttention, global_descriptor
from ames.backbones.pooling import largest_of_scales
from ames.errors import AmesError
from ames.features import LocalFeatures

WEIGHTS = ("detector", "attention", "norm", "cls")
DESCRIPTORS = ("raw", "projected")
VECTORS = ("cls", "average", "gem", "superglobal")
_GEM_POWER, _GEM_LEAST = 3.0, 1e-6  # Radenovic et al., PAMI 2018


@dataclass(frozen=True)
class Selection:
    """What is taken from feature maps; all of it is recorded in the files.

    desc_num: local descriptors per image, at most, those of the largest weights over all scales.
    weight_by: the weights: "detector", "attention" (the network's own, ``FeatureMaps.weight``, times the
        number of cells: 1 is an equal share), "norm" (L2 norm of a cell's features) or "cls" (cosine of the
        cell and the network's global vector).
    descriptors: "raw" (the cell's features, L2-normalized) or "projected" (the detector's).
    vector: the global descriptor: "cls" (the network's), "average" (of the descriptors of all cells, by their
        weights), "gem" (generalized mean of all cells' features, power 3), "superglobal" (the network's, as
        ``ames.backbones.pooling`` does), or None. It is the mean over scales of unit vectors
        (superglobal: Scale-GeM), L2-normalized.
    nms: a cell counts only as the largest of nms x nms cells of its scale; 1: all of them do.
    detector_input: "network" (features as the network gives them) or "normalized" (L2, as in files of raw
        descriptors, which train a detector).
    """

    desc_num: int = 700
    weight_by: str = "norm"
    descriptors: str = "raw"
    vector: str | None = "cls"
    nms: int = 1
    detector_input: str = "network"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("weight_by", self.weight_by, WEIGHTS),
            ("descriptors", self.descriptors, DESCRIPTORS),
            ("vector", self.vector, (*VECTORS, None)),
            ("detector_input", self.detector_input, DETECTOR_INPUTS),
        ):
            if value not in known:
                raise AmesError(f"{name} {value!r} is none of {', '.join(map(str, known))}")
        if self.nms < 1 or self.nms % 2 == 0:
            raise AmesError(f"nms {self.nms}: give an odd number of cells, 1 for none")

    @property
    def needs_detector(self) -> bool:
        return self.weight_by == "detector" or self.descriptors == "projected"

    def provenance(self) -> dict[str, Any]:
        """Under the keys of descriptor files (``ames.descriptors.provenance``)."""
        return {
            "descriptors": self.desc_num,
            "by": self.weight_by,
            "features": self.descriptors,
            "vector": self.vector,
            "suppression": self.nms,
            "detector_input": self.detector_input if self.needs_detector else None,
        }


def check(selection: Selection, maps: FeatureMaps, detector: SpatialAttention | None) -> None:
    """AmesError where a network that gives such maps, or the detector, cannot serve the selection."""
    width = maps.local.shape[1]
    if selection.needs_detector and detector is None:
        what = "weights by detector" if selection.weight_by == "detector" else "projected descriptors"
        raise AmesError(f"{what} need the detector's file (--detector)")
    if selection.needs_detector and detector is not None and detector.width != width:
        raise AmesError(f"the detector takes {detector.width}-d features, the network gives {width}-d")
    if selection.weight_by == "attention" and maps.weight is None:
        raise AmesError("the network gives no attention: select by detector, norm or cls")
    if maps.vector is None and {"cls", "superglobal"} & {selection.weight_by, selection.vector}:
        raise AmesError("the network has no global vector: select by detector or norm, global average or gem")
    whole = None if maps.vector is None else maps.vector.shape[1]
    if selection.weight_by == "cls" and whole != width:
        raise AmesError(f"the network's global vector is {whole}-d, its cells {width}-d: no cosine (cls)")


def select(
    scales: Sequence[FeatureMaps],
    centers: Sequence[Tensor],
    selection: Selection,
    detector: SpatialAttention | None = None,
) -> tuple[LocalFeatures, Tensor | None]:
    """Select local features [B, n, D] of B images, and their global vectors float32 [B, G] (or None).

    scales: the images' maps at each scale; centers: float [h, w, 2], the cells' middles at each scale, in any
    unit, which become ``positions``. ``scale`` of a feature is the number of its scale. n is ``desc_num``, or
    the number of all cells if smaller; suppressed cells come last, as padding.
    """
    weights, cells, vectors = [], [], []
    for maps in scales:
        cell, weight = _weighted(maps, selection, detector)  # [B, h, w, D], [B, h, w]
        vectors.append(_vector(maps, cell, weight, selection))
        weights.append(_suppressed(weight, selection.nms).flatten(1))
        cells.append(cell.flatten(1, 2))
    weight = torch.cat(weights, 1)
    # Stable, so that equal weights have an order: a resumed run writes the same.
    weight, order = weight.sort(dim=1, descending=True, stable=True)
    weight, order = weight[:, : selection.desc_num], order[:, : selection.desc_num]
    number = torch.cat([torch.full_like(x[0], i) for i, x in enumerate(weights)])
    place = torch.cat([x.reshape(-1, 2) for x in centers]).to(weight)
    descriptors = torch.cat(cells, 1).gather(1, order[..., None].expand(-1, -1, cells[0].shape[-1]))
    valid = weight != -torch.inf  # NaN stays, for whoever looks at it
    local = LocalFeatures(
        descriptors=F.normalize(descriptors, dim=-1) * valid[..., None],
        valid=valid,
        positions=place[order],
        scale=number[order],
        weight=torch.where(valid, weight, 0),
    )
    return local, _joined([x for x in vectors if x is not None], selection)


def _weighted(
    maps: FeatureMaps, selection: Selection, detector: SpatialAttention | None
) -> tuple[Tensor, Tensor]:
    """float32 descriptors [B, h, w, D], not normalized where they are raw, and weights [B, h, w]."""
    raw = maps.local.float()
    projected = found = raw
    if selection.needs_detector:
        assert detector is not None
        taken = F.normalize(raw, dim=1) if selection.detector_input == "normalized" else raw
        projected, found = detector(taken)
    if selection.weight_by == "norm":
        found = raw.norm(dim=1)
    elif selection.weight_by == "attention":
        assert maps.weight is not None
        # Multiples of an equal share can be compared between scales; shares are lost in float16.
        found = maps.weight.float() * maps.weight[0].numel()
    elif selection.weight_by == "cls":
        assert maps.vector is not None
        found = F.cosine_similarity(raw, maps.vector.float()[..., None, None], dim=1)
    cell = projected if selection.descriptors == "projected" else raw
    return cell.movedim(1, -1).float(), found.float()


def _suppressed(weight: Tensor, size: int) -> Tensor:
    """Weights [B, h, w], -inf where a neighbour's is larger."""
    if size == 1:
        return weight
    largest = F.max_pool2d(weight[:, None], size, stride=1, padding=size // 2)[:, 0]
    return torch.where(weight < largest, -torch.inf, weight)


def _vector(maps: FeatureMaps, cell: Tensor, weight: Tensor, selection: Selection) -> Tensor | None:
    """The global descriptor of one scale, unit length, [B, G]."""
    if selection.vector is None:
        return None
    if selection.vector in ("cls", "superglobal"):
        assert maps.vector is not None
        return F.normalize(maps.vector.float(), dim=-1)
    if selection.vector == "gem":
        powers = maps.local.float().clamp(min=_GEM_LEAST) ** _GEM_POWER
        return F.normalize(powers.mean((2, 3)) ** (1 / _GEM_POWER), dim=-1)
    # A cell of negative cosine has no part in the sum. Where all are negative (SigLIP pools by a layer of its
    # own), they count alike: nothing finds a zero vector.
    share = weight.clamp(min=0).flatten(1)
    share = torch.where(share.any(1, keepdim=True), share, 1.0)
    return global_descriptor(F.normalize(cell, dim=-1).flatten(1, 2), share)


def _joined(vectors: Sequence[Tensor], selection: Selection) -> Tensor | None:
    """One vector of those of all scales."""
    if not vectors:
        return None
    scale_gem = selection.vector == "superglobal"
    found = largest_of_scales(vectors) if scale_gem else torch.stack(list(vectors)).mean(0)
    return F.normalize(found, dim=-1)
