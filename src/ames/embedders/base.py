"""What maps an image, or an image's stored features, to a global vector.

A query and the gallery may be mapped by different embedders, the two *sides*. Their vectors live in one
*space*: the inner product of a query's vector and a gallery image's is their similarity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ames.embedders.features import FeatureSpec
from ames.embedders.inputs import InputSpec
from ames.errors import AmesError
from ames.features import LocalFeatures

QUERY, GALLERY, BOTH = "query", "gallery", "both"
SIDES = (QUERY, GALLERY)


class Embedder(nn.Module):
    """Maps images to unit vectors of ``dim`` dimensions.

    side: of what it was trained for, "query" or "gallery"; "both" for a network that serves as either. space:
    an identifier; only vectors of one space can be compared. arguments: the constructor's, which rebuild it.
    """

    dim: int
    side: str = BOTH
    space: str | None = None
    arguments: dict[str, Any]

    @property
    def device(self) -> torch.device:
        """Where the weights are; the CPU without any."""
        return next((x.device for x in self.state_dict().values()), torch.device("cpu"))


class ImageEmbedder(Embedder):
    """An embedder that reads pixels. inputs: how an image is resized and normalized for it."""

    inputs: InputSpec

    def forward(self, images: Tensor) -> Tensor:
        """images float [B, 3, H, W], normalized as ``inputs`` says -> unit vectors float [B, dim]."""
        raise NotImplementedError


class FeatureEmbedder(Embedder):
    """An embedder that reads an image's stored features. features: which ones, in order."""

    features: tuple[FeatureSpec, ...]

    def forward(self, features: Mapping[str, LocalFeatures]) -> Tensor:
        """Features of B images by name, each [B, n, D] (a global vector is a set of one) -> [B, dim], unit
        length. AmesError names a feature that is missing or of another width.
        """
        raise NotImplementedError


def check_one_space(query: Embedder, gallery: Embedder) -> None:
    """AmesError unless vectors of two embedders can be compared."""
    if query.dim != gallery.dim:
        raise AmesError(f"the query side gives {query.dim}-d vectors, the gallery side {gallery.dim}-d")
    if query.space != gallery.space:
        raise AmesError(
            f"query and gallery embedders are of two spaces ({query.space} and {gallery.space}): their "
            "vectors cannot be compared; give two sides of one training"
        )
