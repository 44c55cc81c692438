"""ShuffleNetV2 (Ma et al., ECCV 2018), to its last feature map.

Parameters are named as those of torchvision's network, whose children have the numbers 0 ... 5 here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ames.embedders.resnet import initialize

# Table 5 of the paper: channels of the three stages and of the last convolution, by width.
PUBLISHED = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}
REPEATS, _STEM = (4, 8, 4), 24


class Unit(nn.Module):
    """Half of the channels pass, the others are convolved; then both are shuffled. With a stride, all are
    convolved in two branches.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.stride = stride
        self.branch1 = nn.Sequential()
        if stride > 1:
            self.branch1 = nn.Sequential(
                *_depthwise(inputs, stride), nn.Conv2d(inputs, half, 1, bias=False), *_normalized(half)
            )
        given = inputs if stride > 1 else half
        self.branch2 = nn.Sequential(
            nn.Conv2d(given, half, 1, bias=False),
            *_normalized(half),
            *_depthwise(half, stride),
            nn.Conv2d(half, half, 1, bias=False),
            *_normalized(half),
        )

    def forward(self, images: Tensor) -> Tensor:
        if self.stride > 1:
            parts = self.branch1(images), self.branch2(images)
        else:
            kept, changed = images.chunk(2, 1)
            parts = kept, self.branch2(changed)
        return torch.stack(parts, 2).flatten(1, 2)  # channel i of one half beside channel i of the other


def shufflenet_v2(width: float = 1.0) -> tuple[nn.Sequential, int]:
    """Return the network and the channels of its map, at 1/32 of the input.

    width: one of the published 0.5, 1, 1.5, 2; another one scales the channels of 1.
    """
    scaled = [max(4, 2 * round(x * width / 2)) for x in PUBLISHED[1.0][:3]]
    *stages, head = PUBLISHED.get(width, (*scaled, PUBLISHED[1.0][3]))
    parts: list[nn.Module] = [
        nn.Sequential(nn.Conv2d(3, _STEM, 3, 2, 1, bias=False), *_normalized(_STEM)),
        nn.MaxPool2d(3, 2, 1),
    ]
    inputs = _STEM
    for channels, repeats in zip(stages, REPEATS, strict=True):
        units = [Unit(inputs if not n else channels, channels, 1 if n else 2) for n in range(repeats)]
        parts.append(nn.Sequential(*units))
        inputs = channels
    parts.append(nn.Sequential(nn.Conv2d(inputs, head, 1, bias=False), *_normalized(head)))
    network = nn.Sequential(*parts)
    initialize(network)
    return network, head


def _depthwise(channels: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
    return [convolution, nn.BatchNorm2d(channels)]


def _normalized(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
