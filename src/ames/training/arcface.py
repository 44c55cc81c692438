"""Classification with an additive angular margin, its momentum twin, and a part of the classes at a time.

ArcFace: Deng et al., CVPR 2019. The momentum classifier: Wu et al., "Asymmetric Feature Fusion", CVPR 2023.
Sampled classes: An et al., "Partial FC", ICCVW 2021.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ames.errors import AmesError

_LARGEST = 1 - 1e-6  # of a cosine: the arc cosine has no finite gradient at 1


def arcface_logits(vectors: Tensor, weight: Tensor, labels: Tensor, *, margin: float, scale: float) -> Tensor:
    """Return logits float [B, C]: ``scale`` times the cosine of vector and row, where the angle of the true
    class is larger by ``margin``; an angle that would then exceed pi stays as it is.

    vectors [B, d] and weight [C, d] of any length; labels int64 [B]; margin in radians.
    """
    cosine = F.linear(F.normalize(vectors, dim=-1), F.normalize(weight, dim=-1))
    cosine = cosine.clamp(-_LARGEST, _LARGEST)
    true = labels[:, None]
    angle = cosine.gather(1, true).acos()
    raised = torch.where(angle > math.pi - margin, angle, angle + margin).cos()
    return scale * cosine.scatter(1, true, raised)


class Classifier(nn.Module):
    """One row per class, and its momentum twin, which no gradient reaches.

    weight: float [classes, dim]. twin: alpha * twin + (1 - alpha) * weight after every step. They start
    equal.
    """

    twin: Tensor

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, dim))
        nn.init.xavier_uniform_(self.weight)
        self.register_buffer("twin", self.weight.detach().clone())

    @torch.no_grad()
    def follow(self, alpha: float) -> None:
        """Move the twin towards the weight: alpha 0 copies it."""
        self.twin.lerp_(self.weight, 1 - alpha)


def sampled_classes(
    labels: np.ndarray, classes: int, share: float, rng: np.random.Generator
) -> np.ndarray | None:
    """Return the classes that a batch is compared with, ascending int64, all of ``labels`` among them.

    share: of all classes, drawn evenly beside the batch's own; 1: None, all of them.
    """
    if not 0 < share <= 1:
        raise AmesError(f"class_share {share} is outside (0, 1]: a share of the classes")
    if share == 1:
        return None
    own = np.unique(labels)
    others = np.setdiff1d(np.arange(classes), own, assume_unique=True)
    more = max(round(share * classes) - len(own), 0)
    return np.union1d(own, rng.choice(others, min(more, len(others)), replace=False)).astype(np.int64)
