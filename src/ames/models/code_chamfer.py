"""Chamfer similarity of another model's tokens: a cheap first look at the codes that its database holds."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.models.base import Similarity
from ames.models.chamfer import Chamfer


class CodeChamfer(Chamfer):
    """``Chamfer`` between the L2-normalized tokens of ``model``.

    Its projection, codes and fingerprint are those of ``model``, so that a database of that model serves
    both: many candidates are ordered by this, and the best of them by the model. Scores are cosines, in
    [-1, 1]. AmesError for a model whose tokens are not those of descriptors alone (a global token).
    """

    links_are = "best cosines of tokens"

    def __init__(self, model: Similarity, *, symmetric: bool = False) -> None:
        super().__init__(local_dim=model.local_dim, symmetric=symmetric)
        if model.extra_slots or model.reads_locations or model.reads_vector:
            kind = type(model).__name__
            raise AmesError(
                f"{kind} reads more of an image than descriptors: its codes alone have no Chamfer"
            )
        self.arguments = {"symmetric": symmetric, **model.arguments}
        self.base = model
        self.code_bytes, self.code_bits, self.most = model.code_bytes, model.code_bits, model.most

    def tokens(self, local: LocalFeatures) -> LocalFeatures:
        return self.base.tokens(local)

    def compress(self, local: LocalFeatures) -> LocalFeatures:
        return self.base.compress(local)

    def expand(self, codes: LocalFeatures) -> LocalFeatures:
        return self.base.expand(codes)

    def encode(self, tokens: LocalFeatures) -> LocalFeatures:
        return tokens.with_descriptors(F.normalize(tokens.descriptors.float(), dim=-1))

    def projection(self) -> dict[str, Tensor]:
        return self.base.projection()

    def fingerprint(self) -> str:
        return self.base.fingerprint()
