"""Features of several networks in one space: what every fusion begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ames.embedders.base import GALLERY, FeatureEmbedder
from ames.embedders.features import GLOBAL, LOCAL, FeatureSpec, check_features, specs
from ames.features import LocalFeatures
from ames.models.base import constructor_arguments


class Projected(FeatureEmbedder):
    """One linear layer per feature, shared by the vectors of a set, to ``dim`` dimensions (AFF, CVPR 2023).
    Locations and scales are ignored. Subclasses fuse the tokens.
    """

    side = GALLERY

    def __init__(self, features: Sequence[Mapping[str, Any] | FeatureSpec], dim: int) -> None:
        super().__init__()
        self.features, self.dim = specs(features), dim
        self.project = nn.ModuleDict({x.name: nn.Linear(x.width, dim) for x in self.features})

    def tokens(self, features: Mapping[str, LocalFeatures]) -> tuple[Tensor, Tensor]:
        """Return the tokens [B, S, dim] of all features, in their order, and which are real, bool [B, S]."""
        found = self.sets(features)
        return torch.cat([x.descriptors for x in found], 1), torch.cat([x.valid for x in found], 1)

    def sets(self, features: Mapping[str, LocalFeatures]) -> list[LocalFeatures]:
        """Return the projected vectors of each feature, [B, n, dim], n at most its ``count``."""
        found = given(features, self.features)
        return [
            x.with_descriptors(self.project[spec.name](x.descriptors.float()))
            for spec, x in zip(self.features, found, strict=True)
        ]

    def pooled(self, features: Mapping[str, LocalFeatures]) -> tuple[Tensor, Tensor]:
        """Return the mean projected vector of each feature, [B, F, dim], and whether it has one, [B, F]."""
        found = self.sets(features)
        means = [mean(x.descriptors, x.valid) for x in found]
        return torch.stack(means, 1), torch.stack([x.valid.any(1) for x in found], 1)


class Mlp(Projected):
    """The mean vectors of all features side by side, through two linear layers (the ablation of AFF)."""

    def __init__(
        self, *, features: Sequence[Mapping[str, Any]], dim: int = 512, hidden: int | None = None
    ) -> None:
        constructor_arguments(locals())
        super().__init__(features, dim)
        self.arguments = described(self, hidden=hidden)
        inner = hidden or 2 * dim
        self.mlp = nn.Sequential(nn.Linear(dim * len(self.features), inner), nn.ReLU(), nn.Linear(inner, dim))

    def forward(self, features: Mapping[str, LocalFeatures]) -> Tensor:
        vectors, valid = self.pooled(features)
        return unit_or_zero(self.mlp((vectors * valid[..., None]).flatten(1)), valid)


class AttentiveSum(Projected):
    """A weighted sum of the features' mean vectors; one linear layer gives each its weight, through a softmax
    (LAFF, Hu et al., ECCV 2022; the ablation of AFF).
    """

    def __init__(self, *, features: Sequence[Mapping[str, Any]], dim: int = 512) -> None:
        constructor_arguments(locals())
        super().__init__(features, dim)
        self.arguments = described(self)
        self.weight = nn.Linear(dim, 1)

    def forward(self, features: Mapping[str, LocalFeatures]) -> Tensor:
        vectors, valid = self.pooled(features)
        vectors = vectors.tanh()
        scores = self.weight(vectors)[..., 0].masked_fill(~valid, -torch.inf)
        share = torch.where(valid, scores.softmax(1), 0)
        return unit_or_zero((share[..., None] * vectors).sum(1), valid)


class Orthogonal(Projected):
    """The sum g of the global vectors, beside the mean of what is orthogonal to it in all other vectors,
    through a linear layer (DOLG, Yang et al., ICCV 2021; the ablation of AFF). "Other" are the local vectors,
    or, without any, the global ones.
    """

    def __init__(self, *, features: Sequence[Mapping[str, Any]], dim: int = 512) -> None:
        constructor_arguments(locals())
        super().__init__(features, dim)
        self.arguments = described(self)
        self.join = nn.Linear(2 * dim, dim)

    def forward(self, features: Mapping[str, LocalFeatures]) -> Tensor:
        found = self.sets(features)
        kinds = [x.kind for x in self.features]
        first = [x for x, kind in zip(found, kinds, strict=True) if kind == GLOBAL] or found
        others = [x for x, kind in zip(found, kinds, strict=True) if kind == LOCAL] or found
        whole = sum((x.descriptors * x.valid[..., None]).sum(1) for x in first)
        axis = F.normalize(torch.as_tensor(whole), dim=-1)[:, None]
        vectors = torch.cat([x.descriptors for x in others], 1)
        rest = vectors - (vectors * axis).sum(-1, keepdim=True) * axis
        beside = mean(rest, torch.cat([x.valid for x in others], 1))
        joined = self.join(torch.cat((torch.as_tensor(whole), beside), -1))
        return unit_or_zero(joined, torch.cat([x.valid for x in found], 1))


class Concatenation(FeatureEmbedder):
    """The unit mean vectors of all features side by side, without any weight: the ensemble that fusion is
    compared with. Its inner product is the mean of the features' cosines.
    """

    side = GALLERY

    def __init__(self, *, features: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.features = specs(features)
        self.arguments = {"features": [x.to_dict() for x in self.features]}
        self.dim = sum(x.width for x in self.features)

    def forward(self, features: Mapping[str, LocalFeatures]) -> Tensor:
        found = given(features, self.features)
        vectors = [F.normalize(mean(x.descriptors.float(), x.valid), dim=-1) for x in found]
        return F.normalize(torch.cat(vectors, -1), dim=-1)


def given(features: Mapping[str, LocalFeatures], wanted: Sequence[FeatureSpec]) -> list[LocalFeatures]:
    """Return an embedder's features in its order, each cut to its ``count``; AmesError as
    ``check_features``.
    """
    check_features(features, wanted)
    return [features[x.name].trim(x.count or features[x.name].size) for x in wanted]


def unit_or_zero(vectors: Tensor, valid: Tensor) -> Tensor:
    """Return float32 vectors [B, dim] at unit length; zeros for an image without any of its features, bool
    [B, n]: it must not find, or be found by, others of the kind.
    """
    return F.normalize(vectors.float(), dim=-1) * valid.any(1, keepdim=True)


def mean(vectors: Tensor, valid: Tensor) -> Tensor:
    """Mean of the real ones among [B, n, D]; zeros where there is none."""
    return (vectors * valid[..., None]).sum(1) / valid.sum(1, keepdim=True).clamp(min=1)


def described(embedder: Projected, **more: Any) -> dict[str, Any]:
    """Return the arguments that rebuild a fusion."""
    return {"features": [x.to_dict() for x in embedder.features], "dim": embedder.dim, **more}
