"""Backbones by name. None of them loads transformers or kornia before it is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ames.backbones.aliked import Aliked
from ames.backbones.base import Backbone, KeypointBackbone, MapBackbone
from ames.backbones.composed import Composed
from ames.backbones.cvnet import CvNet
from ames.backbones.dinov2 import DinoV2
from ames.backbones.dinov3 import DinoV3
from ames.backbones.efficientnet_lite import EfficientNetLite
from ames.backbones.keypoints import Disk, KorniaNetwork, XFeat
from ames.backbones.pretrained import PUBLISHED
from ames.backbones.rootsift import RootSift
from ames.backbones.siglip2 import SigLip2
from ames.backbones.vit import VisionTransformer
from ames.backbones.vlad import Vlad
from ames.errors import AmesError
from ames.weights import ROOTSIFT_GLOBAL, shipped_path

Family = type[CvNet | VisionTransformer | EfficientNetLite | KorniaNetwork]

# Name -> the class that makes it; its published settings are the class's, and those of its ``SIZES``.
NETWORKS: dict[str, Family] = {
    name: family
    for family in (DinoV2, CvNet, DinoV3, SigLip2, XFeat, Aliked, Disk, EfficientNetLite)
    for name in family.SIZES
}
NAMES = ("rootsift", *NETWORKS)
JOINT = "+"  # "aliked+efficientnet-lite2": the local features of one, the vector of the other


def make_backbone(
    name: str,
    *,
    weights: str | Path | None = PUBLISHED,
    device: Any = "cpu",
    attention: bool = False,
    seed: int = 0,
) -> Backbone:
    """Make the backbone ``name``, in evaluation mode.

    name: one of ``NAMES``, or two of them, "LOCAL+GLOBAL" (``ames.backbones.composed``). weights: a file of
    the network's authors, a Hugging Face folder (vision transformers), a name of the hub, or ``PUBLISHED``;
    None: random ones from ``seed``. attention: maps with weights, where a network has a class token or a
    pooling head. AmesError lists the known names.
    """
    if name == "rootsift":
        if weights != PUBLISHED:
            raise AmesError("rootsift has no weights to choose: leave weights out")
        return RootSift(vlad=Vlad.load(shipped_path(ROOTSIFT_GLOBAL)))
    if attention and (
        JOINT in name or not issubclass(NETWORKS.get(name, VisionTransformer), VisionTransformer)
    ):
        raise AmesError(f"{name} has no attention of its own: leave attention out")
    if JOINT in name:
        if weights not in (PUBLISHED, None):
            raise AmesError(f"{name}: two networks have no common file: leave weights out")
        return _composed(name, lambda part: make_backbone(part, weights=weights, seed=seed)).to(device)
    if name not in NETWORKS:
        raise AmesError(f"backbone {name!r} is none of: {', '.join(NAMES)}")
    family = NETWORKS[name]
    if issubclass(family, VisionTransformer):
        return family(name, weights=weights, attention=attention, seed=seed).to(device)
    return family(name, weights=weights, seed=seed).to(device)


def is_backbone(name: str) -> bool:
    """Whether ``make_backbone`` knows the name, or the two that it is made of."""
    first, joint, last = name.partition(JOINT)
    return first in NAMES and (last in NAMES if joint else True)


def _composed(name: str, make: Callable[[str], Backbone]) -> Composed:
    first, _, last = name.partition(JOINT)
    local, vector = make(first), make(last)
    if not isinstance(local, KeypointBackbone) or not isinstance(vector, MapBackbone):
        points = [one for one, family in NETWORKS.items() if issubclass(family, KeypointBackbone)]
        maps = [one for one, family in NETWORKS.items() if issubclass(family, MapBackbone)]
        raise AmesError(
            f"backbone {name!r}: give one of {', '.join(points)} first, one of {', '.join(maps)} second"
        )
    return Composed(name, local, vector)
