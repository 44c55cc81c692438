"""Backbones by name. None of them loads transformers or kornia before it is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ames.backbones.aliked import Aliked
from ames.backbones.base import Backbone, ImageNetwork, KeypointBackbone, MapBackbone
from ames.backbones.composed import Composed
from ames.backbones.cvnet import CvNet
from ames.backbones.dinov2 import DinoV2, DinoV2Plain
from ames.backbones.dinov3 import DinoV3
from ames.backbones.efficientnet_lite import EfficientNetLite
from ames.backbones.keypoints import Disk, KorniaNetwork, XFeat
from ames.backbones.pretrained import PUBLISHED
from ames.backbones.rootsift import RootSift
from ames.backbones.siglip2 import SigLip2
from ames.backbones.vit import VisionTransformer
from ames.backbones.vlad import Vlad
from ames.backbones.whitening import Whitening
from ames.errors import AmesError
from ames.weights import ROOTSIFT_GLOBAL, shipped_path

Family = type[CvNet | VisionTransformer | EfficientNetLite | KorniaNetwork]

# Name -> the class that makes it; its published settings are the class's, and those of its ``SIZES``.
NETWORKS: dict[str, Family] = {
    name: family
    for family in (DinoV2, DinoV2Plain, CvNet, DinoV3, SigLip2, XFeat, Aliked, Disk, EfficientNetLite)
    for name in family.SIZES
}
NAMES = ("rootsift", *NETWORKS)
JOINT = "+"  # "aliked+efficientnet-lite2": the local features of one, the vector of the other


class Composition(NamedTuple):
    """The networks of a composed backbone. whitening: the name of a shipped file of ``Whitening``."""

    local: str
    vector: str
    pooling: str = "cls"
    whitening: str | None = None


# Composed backbones that have a name of their own, which may be that of the local network.
COMPOSITIONS = {"aliked": Composition("aliked", "efficientnet-lite0", whitening="aliked_global")}


def make_backbone(
    name: str,
    *,
    weights: str | Path | None = PUBLISHED,
    device: Any = "cpu",
    attention: bool = False,
    vector: bool = True,
    seed: int = 0,
) -> Backbone:
    """Make the backbone ``name``, in evaluation mode.

    name: one of ``NAMES`` or ``COMPOSITIONS``, or "LOCAL+GLOBAL", two of ``NAMES``
    (``ames.backbones.composed``). weights: a file of the network's authors, a Hugging Face folder (vision
    transformers), a name of the hub, or ``PUBLISHED``; None: random ones from ``seed``. attention: maps with
    weights, where a network has a class token or a pooling head. vector: False: of two networks, the one of
    local features alone; of rootsift, no VLAD. AmesError lists the known names.
    """
    if name == "rootsift":
        if weights != PUBLISHED:
            raise AmesError("rootsift has no weights to choose: leave weights out")
        return RootSift(vlad=Vlad.load(shipped_path(ROOTSIFT_GLOBAL)) if vector else None)
    made_of = _composition(name)
    if made_of is not None:
        _check_parts(name, made_of)
        if not vector:
            return _network(made_of.local, weights, attention=attention, seed=seed).to(device)
        if attention:
            raise _no_attention(name)
        if weights not in (PUBLISHED, None):
            raise AmesError(f"{name}: two networks have no common file: leave weights out")
        return _composed(name, made_of, weights, seed).to(device)
    return _network(name, weights, attention=attention, seed=seed).to(device)


def is_backbone(name: str) -> bool:
    """Whether ``make_backbone`` knows the name, or the two that it is made of."""
    made_of = _composition(name)
    return name in NAMES if made_of is None else {made_of.local, made_of.vector} <= NETWORKS.keys()


def _network(name: str, weights: str | Path | None, *, attention: bool, seed: int) -> ImageNetwork:
    if name not in NETWORKS:
        raise AmesError(f"backbone {name!r} is none of: {', '.join(dict.fromkeys((*NAMES, *COMPOSITIONS)))}")
    family = NETWORKS[name]
    if issubclass(family, VisionTransformer):
        return family(name, weights=weights, attention=attention, seed=seed)
    if attention:
        raise _no_attention(name)
    return family(name, weights=weights, seed=seed)


def _no_attention(name: str) -> AmesError:
    return AmesError(f"{name} has no attention of its own: leave attention out")


def _composition(name: str) -> Composition | None:
    if name in COMPOSITIONS:
        return COMPOSITIONS[name]
    local, joint, vector = name.partition(JOINT)
    return Composition(local, vector) if joint else None


def _check_parts(name: str, made_of: Composition) -> None:
    for part, kind in zip(made_of[:2], (KeypointBackbone, MapBackbone), strict=True):
        fitting = [one for one, family in NETWORKS.items() if issubclass(family, kind)]
        if part not in fitting:
            place = "local features" if kind is KeypointBackbone else "global vector"
            raise AmesError(f"backbone {name!r}: {part!r} gives no {place} here; take {', '.join(fitting)}")


def _composed(name: str, made_of: Composition, weights: str | Path | None, seed: int) -> Composed:
    parts = (made_of.local, made_of.vector)
    local, vector = (_network(part, weights, attention=False, seed=seed) for part in parts)
    assert isinstance(local, KeypointBackbone)
    assert isinstance(vector, MapBackbone)
    fitted = None if made_of.whitening is None else Whitening.load(shipped_path(made_of.whitening))
    return Composed(name, local, vector, pooling=made_of.pooling, whitening=fitted)
