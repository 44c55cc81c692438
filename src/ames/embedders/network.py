"""A network from an image to a global vector: AFF's light query network, and both of RAML's networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ames.embedders.base import ImageEmbedder
from ames.embedders.inputs import InputSpec
from ames.embedders.pooling import GeM, unit
from ames.embedders.trunks import build_trunk
from ames.errors import AmesError
from ames.models.base import constructor_arguments


class GlobalNetwork(ImageEmbedder):
    """Trunk -> GeM -> L2 -> whitening (a linear layer) -> L2 (RAML, WACV 2023; AFF, CVPR 2023).

    trunk: a name of ``ames.embedders.trunks``. width: factor of its channels. dim: of the vector; None: no
    whitening, the vector has the trunk's channels. reduce: channels of a 1 x 1 convolution with ReLU between
    trunk and GeM (the query networks of Token and SSP have one; None: none). p: of GeM at the start. size,
    resize: of ``InputSpec``. Weights are random: files are read by ``ames.embedders.checkpoints``. Parameters
    are named as RAML's released files name them.
    """

    def __init__(
        self,
        *,
        trunk: str = "resnet50",
        width: float = 1.0,
        dim: int | None = 512,
        reduce: int | None = None,
        p: float = 3.0,
        size: int = 224,
        resize: str = "crop",
    ) -> None:
        arguments = constructor_arguments(locals())
        if not p > 0:
            raise AmesError(f"p {p} of GeM must be above 0: 3 is usual")
        super().__init__()
        self.arguments = arguments
        built = build_trunk(trunk, width)
        if size % built.multiple or (resize == "long" and built.multiple > 1):
            raise AmesError(
                f"trunk {trunk} takes sides that are multiples of {built.multiple}: give resize=crop or "
                f"square, and a size such as {max(size // built.multiple, 1) * built.multiple}"
            )
        self.backbone = built.module
        self.inputs = InputSpec(size, resize, built.mean, built.std, built.bgr)
        channels = built.channels
        self.reduce = None if reduce is None else nn.Conv2d(channels, reduce, 1)
        channels = reduce or channels
        self.pool = GeM(p)
        self.whiten = None if dim is None else nn.Linear(channels, dim)
        self.dim = dim or channels
        self.frozen_statistics = False  # True: batch normalization keeps its statistics in training

    def forward(self, images: Tensor) -> Tensor:
        """As the interface says; batches of any size, images of any size that the trunk takes."""
        maps = self.backbone(images)
        if self.reduce is not None:
            maps = self.reduce(maps).relu()
        return self.describe(maps)

    def describe(self, maps: Tensor) -> Tensor:
        """Feature maps float [B, C, h, w] -> vectors [B, dim]: everything after the trunk."""
        with torch.autocast(maps.device.type, enabled=False):  # powers leave the range of 16 bits
            pooled = unit(self.pool(maps))
            return pooled if self.whiten is None else unit(self.whiten(pooled))

    def train(self, mode: bool = True) -> GlobalNetwork:
        super().train(mode)
        if self.frozen_statistics:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self
