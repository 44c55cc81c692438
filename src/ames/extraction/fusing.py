"""Vectors of images by an embedder that reads features: of files, or as they are extracted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ames.backbones.base import ImageFeatures
from ames.embedders.base import FeatureEmbedder
from ames.embedders.features import GLOBAL, FeatureSpec
from ames.extraction.embedding import NOT_FINITE, EmbeddingResult, evaluating
from ames.features import LocalFeatures

FUSED = 32  # images whose features go through an embedder together


@torch.inference_mode()
def fuse(embedder: FeatureEmbedder, features: Mapping[str, LocalFeatures]) -> list[EmbeddingResult]:
    """Return the vectors of B images with features [B, n, D] by name, where the embedder is.

    The embedder computes in evaluation mode; its mode is restored. An image without any feature has zeros:
    nothing finds it. AmesError for a feature that is missing or of another width.
    """
    moved = {name: x.to(embedder.device) for name, x in features.items()}
    with evaluating(embedder):
        vectors = embedder(moved).float().cpu().numpy()
    there = torch.stack([features[x.name].valid.any(-1) for x in embedder.features]).any(0).numpy()
    vectors[~there] = 0
    return [vector if np.isfinite(vector).all() else NOT_FINITE for vector in vectors]


def feature_sets(
    specs: Sequence[FeatureSpec], found: Mapping[str, Sequence[ImageFeatures]], dtype: str
) -> dict[str, LocalFeatures]:
    """Return the features of B images by name, [B, n, D] each, as ``StoredFeatures`` reads them from files.

    found: what each backbone gave for the images. dtype: of local descriptors in files.
    """
    sets = {}
    for spec in specs:
        images = found[str(spec.backbone)]
        if spec.kind == GLOBAL:
            vectors = torch.from_numpy(np.stack([x.vector for x in images]))  # type: ignore[misc]
            sets[spec.name] = LocalFeatures(vectors[:, None], vectors.any(1, keepdim=True))
        else:
            sets[spec.name] = LocalFeatures.stack([_rounded(x.local, spec.count, dtype) for x in images])
    return sets


def _rounded(local: LocalFeatures, count: int | None, dtype: str) -> LocalFeatures:
    kept = local.trim(local.size if count is None else count)
    return LocalFeatures(kept.descriptors.cpu().to(getattr(torch, dtype)).float(), kept.valid.cpu())
