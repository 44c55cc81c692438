"""A toy list-wise model: a candidate's score depends on the list around it, and on its place there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ames.features import LocalFeatures
from ames.models.base import Similarity, constructor_arguments


class ToyList(Similarity):
    """Mean cosine to the query, relative to the list's mean, minus a small price for each place.

    Codes are float16 descriptors of unit length.
    """

    def __init__(self, *, local_dim: int = 8, window: int = 4, price: float = 0.01) -> None:
        arguments = constructor_arguments(locals())
        super().__init__()
        self.arguments, self.local_dim, self.window = arguments, local_dim, window
        self.code_bytes = 2 * local_dim
        self.price = nn.Parameter(torch.tensor(price))

    def tokens(self, local: LocalFeatures) -> LocalFeatures:
        return local.with_descriptors(self.normalized(local, torch.float32))

    def score_tokens(self, query: LocalFeatures, candidates: LocalFeatures) -> Tensor:
        own = _mean(query)[:, None]  # [B, 1, d]
        cosine = (own * _mean(candidates)).sum(-1)  # [B, K]
        place = torch.arange(cosine.shape[1])
        return cosine - cosine.mean(1, keepdim=True) - self.price * place


def _mean(local: LocalFeatures) -> Tensor:
    real = local.valid[..., None]
    total = (local.descriptors * real).sum(-2)
    return total / real.sum(-2).clamp(min=1)
