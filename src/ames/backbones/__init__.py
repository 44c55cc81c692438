"""Backbones by name. None of them loads transformers before it is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ames.backbones.base import Backbone
from ames.backbones.cvnet import CvNet
from ames.backbones.dinov2 import DinoV2
from ames.backbones.dinov3 import DinoV3
from ames.backbones.pretrained import PUBLISHED
from ames.backbones.rootsift import RootSift
from ames.backbones.siglip2 import SigLip2
from ames.backbones.vit import VisionTransformer
from ames.backbones.vlad import Vlad
from ames.errors import AmesError
from ames.weights import ROOTSIFT_GLOBAL, shipped_path

# Name -> the class that makes it; its published settings are the class's, and those of its ``SIZES``.
NETWORKS: dict[str, type[CvNet | VisionTransformer]] = {
    name: family for family in (DinoV2, CvNet, DinoV3, SigLip2) for name in family.SIZES
}
NAMES = ("rootsift", *NETWORKS)


def make_backbone(
    name: str,
    *,
    weights: str | Path | None = PUBLISHED,
    device: Any = "cpu",
    attention: bool = False,
    seed: int = 0,
) -> Backbone:
    """Make the backbone ``name``, in evaluation mode.

    weights: a file of the network's authors, a Hugging Face folder (vision transformers), a name of the hub,
    or ``PUBLISHED``; None: random ones from ``seed``. attention: maps with weights, where a network has a
    class token or a pooling head. AmesError lists the known names.
    """
    if name == "rootsift":
        if weights != PUBLISHED:
            raise AmesError("rootsift has no weights to choose: leave weights out")
        return RootSift(vlad=Vlad.load(shipped_path(ROOTSIFT_GLOBAL)))
    if name not in NETWORKS:
        raise AmesError(f"backbone {name!r} is none of: {', '.join(NAMES)}")
    family = NETWORKS[name]
    if issubclass(family, VisionTransformer):
        return family(name, weights=weights, attention=attention, seed=seed).to(device)
    if attention:
        raise AmesError(f"{name} has no attention of its own: leave attention out")
    return family(name, weights=weights, seed=seed).to(device)
