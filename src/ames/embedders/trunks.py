"""Trunks: networks from an image to a feature map, to be trained. Those of the library's backbones, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from ames.backbones import NETWORKS, make_backbone
from ames.backbones.base import MapBackbone
from ames.backbones.pretrained import IMAGENET_MEAN, IMAGENET_STD, PUBLISHED
from ames.backbones.vit import VisionTransformer
from ames.embedders.mobilenet_v2 import mobilenet_v2
from ames.embedders.resnet import DEPTHS, resnet
from ames.embedders.shufflenet_v2 import shufflenet_v2
from ames.errors import AmesError, unknown

Triple = tuple[float, float, float]


class Trunk(NamedTuple):
    """module: images float [B, 3, H, W] -> maps [B, channels, h, w]. mean, std: of the input, RGB; bgr: it
    takes blue first. multiple: of what both sides must be multiples.
    """

    module: nn.Module
    channels: int
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    bgr: bool = False
    multiple: int = 1


_BUILT: dict[str, Callable[[str, float], tuple[nn.Module, int]]] = {
    **dict.fromkeys(DEPTHS, resnet),
    "mobilenet_v2": lambda _, width: mobilenet_v2(width),
    "shufflenet_v2": lambda _, width: shufflenet_v2(width),
}
FROM_SCRATCH = tuple(_BUILT)  # random weights of these can be trained
TRUNKS = (*_BUILT, *(name for name, family in NETWORKS.items() if issubclass(family, MapBackbone)))


def build_trunk(name: str, width: float = 1.0, *, weights: str | None = None) -> Trunk:
    """Build a trunk with random weights from torch's random state.

    name: one of ``TRUNKS``; width: factor of its channels (1 for the library's backbones). weights: of a
    library backbone, "published" for those of its authors. AmesError lists the known names.
    """
    if name in _BUILT:
        if weights is not None:
            raise AmesError(f"trunk {name}: its weights are read from a file of trunk_weights")
        if not 0.05 <= width <= 4:
            raise AmesError(f"trunk {name}: width {width} is outside 0.05 ... 4")
        return Trunk(*_BUILT[name](name, width))
    if name not in TRUNKS:
        raise AmesError(unknown("trunk", name, TRUNKS))
    if width != 1:
        raise AmesError(f"trunk {name}: its channels are those of the published network; leave width out")
    backbone = make_backbone(name, weights=PUBLISHED if weights == PUBLISHED else None)
    assert isinstance(backbone, MapBackbone)
    bgr = backbone.channels == "bgr"
    mean, std = (x[::-1] if bgr else x for x in (backbone.mean, backbone.std))
    multiple = backbone.multiple if isinstance(backbone, VisionTransformer) else 1
    return Trunk(_Maps(backbone), backbone.local_dim, mean, std, bgr, multiple)


class _Maps(nn.Module):
    """The feature map of a backbone of the library, all of whose weights learn."""

    def __init__(self, network: MapBackbone) -> None:
        super().__init__()
        self.network = network.requires_grad_(True)  # biases that came from a normalization are constants

    def forward(self, images: Tensor) -> Tensor:
        return self.network.maps(images).local
