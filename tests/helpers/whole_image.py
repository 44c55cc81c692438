"""A toy pair-wise model that reads more than descriptors: a global vector and scales."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.models.base import PairSimilarity, constructor_arguments


class WholeImage(PairSimilarity):
    """Cosine of the global vectors plus the mean descriptors' product, a descriptor weighing 1 + its scale.

    Slot 0 of tokens and codes is the global vector, of the width of the descriptors.
    """

    reads_vector = True
    reads_scale = True
    extra_slots = 1

    def __init__(self, *, local_dim: int = 8) -> None:
        arguments = constructor_arguments(locals())
        super().__init__()
        self.arguments, self.local_dim, self.global_dim = arguments, local_dim, local_dim
        self.code_bytes = 2 * local_dim
        self.weight = nn.Parameter(torch.tensor(1.0))

    def tokens(self, local: LocalFeatures) -> LocalFeatures:
        if local.vector is None or local.scale is None:
            raise AmesError("WholeImage reads a global descriptor of each image and scales")
        x = self.normalized(local, torch.float32) * (1 + local.scale[..., None])
        first = nn.functional.normalize(local.vector.float(), dim=-1)[..., None, :]
        valid = nn.functional.pad(local.valid, (1, 0), value=True)
        return LocalFeatures(torch.cat((first, x), -2), valid)

    def score_encoded(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        (a, x), (b, y) = map(_split, (query, database))
        return self.weight * (a * b).sum(-1) + (x * y).sum(-1)


def _split(tokens: LocalFeatures) -> tuple[Tensor, Tensor]:
    x, real = tokens.descriptors, tokens.valid[..., 1:, None]
    mean = (x[..., 1:, :] * real).sum(-2) / real.sum(-2).clamp(min=1)
    return x[..., 0, :], mean
