"""Backbones by name."""

from __future__ import annotations

from ames.backbones.base import Backbone
from ames.backbones.rootsift import RootSift
from ames.backbones.vlad import Vlad
from ames.errors import AmesError
from ames.weights import ROOTSIFT_GLOBAL, path_of

NAMES = ("rootsift",)


def make_backbone(name: str) -> Backbone:
    """The backbone ``name`` with its shipped weights; AmesError lists the names there are."""
    if name != "rootsift":
        raise AmesError(f"backbone {name!r} is none of: {', '.join(NAMES)}")
    return RootSift(vlad=Vlad.load(path_of(ROOTSIFT_GLOBAL)))
