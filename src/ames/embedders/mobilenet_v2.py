"""MobileNetV2 (Sandler et al., CVPR 2018), to its last feature map.

Parts and parameters are named as those of torchvision's ``features``, so that its files are read as they are.
"""

from __future__ import annotations

from torch import Tensor, nn

from ames.embedders.resnet import initialize

# Table 2 of the paper: expansion, channels, blocks, stride of the first block.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_STEM, _HEAD = 32, 1280


class InvertedResidual(nn.Module):
    """Expansion, a convolution of each channel, a linear projection; with the input added where it fits."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [_convolution(inputs, inner, 1)]
        layers += [
            _convolution(inner, inner, 3, stride, groups=inner),
            nn.Conv2d(inner, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        self.conv = nn.Sequential(*layers)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv(images)
        return images + x if self.adds else x


def mobilenet_v2(width: float = 1.0) -> tuple[nn.Sequential, int]:
    """Return the network and the channels of its map, at 1/32 of the input.

    width: factor of the channels; the last convolution keeps 1,280 where it is less than 1, as published.
    """
    inputs = rounded(_STEM * width)
    parts: list[nn.Module] = [_convolution(3, inputs, 3, 2)]
    for expansion, channels, repeats, stride in STAGES:
        outputs = rounded(channels * width)
        for number in range(repeats):
            parts.append(InvertedResidual(inputs, outputs, stride if not number else 1, expansion))
            inputs = outputs
    head = rounded(_HEAD * max(1.0, width))
    parts.append(_convolution(inputs, head, 1))
    network = nn.Sequential(*parts)
    initialize(network)
    return network, head


def rounded(channels: float) -> int:
    """Return the nearest multiple of 8, at least 8, no less than nine tenths of ``channels``."""
    found = max(8, int(channels + 4) // 8 * 8)
    return found + 8 if found < 0.9 * channels else found


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )
