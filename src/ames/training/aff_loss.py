"""The losses of AFF's query side, beside ArcFace with the momentum classifier.

Wu et al., "Asymmetric Feature Fusion for Image Retrieval" (CVPR 2023), table 5. Their formulas for the other
losses are not given: what follows is our reading of the works that they name.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

QUERY_LOSSES = ("arcface", "regression", "csd", "lce")


def regression(query: Tensor, gallery: Tensor) -> Tensor:
    """Mean squared distance of unit vectors [B, d]: the query's and its own image's on the gallery side."""
    return (query - gallery).square().sum(-1).mean()


def contextual(query: Tensor, gallery: Tensor, first: int = 0, *, temperature: float = 0.1) -> Tensor:
    """Like CSD (Wu et al., CVPR 2022): an image's similarities to the others of the batch on the gallery
    side, as a distribution, seen from the gallery's vector (the target) and from the query's.

    query: unit vectors [B, d] of this process's images; gallery: [N, d] of the whole batch, in which they
    begin at row ``first``. Returns the mean KL divergence over the B images; 0 where N is 1.
    """
    if len(gallery) < 2:
        return query.sum() * 0
    own = gallery[first : first + len(query)]
    others = ~torch.eye(len(gallery), dtype=torch.bool, device=query.device)[first : first + len(query)]
    seen = (query @ gallery.mT / temperature).masked_fill(~others, -torch.inf)
    target = (own @ gallery.mT / temperature).masked_fill(~others, -torch.inf)
    log_ratio = target.log_softmax(1)[others] - seen.log_softmax(1)[others]
    return (target.softmax(1)[others] * log_ratio).sum() / len(query)


def compatible(query: Tensor, gallery: Tensor, centers: Tensor, labels: Tensor, *, scale: float) -> Tensor:
    """Like LCE (Meng et al., ICCV 2021): the query is classified by the gallery side's class centers, and is
    no farther from its center than the gallery's vector of the image.

    query, gallery: unit vectors [B, d]; centers [C, d] of any length; labels int64 [B].
    """
    centers = F.normalize(centers, dim=-1)
    alignment = F.cross_entropy(scale * (query @ centers.mT), labels)
    own = centers[labels]
    boundary = F.relu((gallery * own).sum(-1) - (query * own).sum(-1)).mean()
    return alignment + boundary
