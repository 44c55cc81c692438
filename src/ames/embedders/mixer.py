"""The mixer of AFF: a transformer that fuses the features of several networks into one vector.

Wu, Wang, Zhou, Lu, Li: "Asymmetric Feature Fusion for Image Retrieval" (CVPR 2023). No code of it was
released. What the paper's text leaves open (layers, heads, width of the feed-forward part) are arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ames.embedders.fusion import Projected, described, unit_or_zero
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.models.base import constructor_arguments


class Mixer(Projected):
    """A learnable fusion token before the projected features, ``layers`` transformer layers; the final fusion
    token, at unit length, is the image's vector. There are no positions: the order does not matter.

    An image without any feature has a zero vector, which nothing finds.

    A layer: multi-head self-attention, residual, LayerNorm; two linear layers, residual, LayerNorm (post-norm
    unless ``pre_norm``). feedforward: width between the two, None: 2 dim. dropout: in training.
    """

    def __init__(
        self,
        *,
        features: Sequence[Mapping[str, Any]],
        dim: int = 512,
        layers: int = 2,
        heads: int = 8,
        feedforward: int | None = None,
        dropout: float = 0.1,
        pre_norm: bool = False,
    ) -> None:
        constructor_arguments(locals())
        if dim % heads:
            raise AmesError(f"dim {dim} is not divisible by {heads} heads")
        super().__init__(features, dim)
        options = {"layers": layers, "heads": heads, "feedforward": feedforward, "dropout": dropout}
        self.arguments = described(self, **options, pre_norm=pre_norm)
        self.token = nn.Parameter(torch.empty(dim).normal_(std=0.02))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dim,
                heads,
                feedforward or 2 * dim,
                dropout,
                activation="gelu",
                batch_first=True,
                norm_first=pre_norm,
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim) if pre_norm else None

    def forward(self, features: Mapping[str, LocalFeatures]) -> Tensor:
        tokens, valid = self.tokens(features)
        x = torch.cat((self.token.expand(len(tokens), 1, -1).to(tokens.dtype), tokens), 1)
        padding = F.pad(~valid, (1, 0))  # the fusion token is always there
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=padding)
        first = x[:, 0] if self.norm is None else self.norm(x[:, 0])
        return unit_or_zero(first, valid)
