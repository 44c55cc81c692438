"""ResNet (He et al., CVPR 2016), to its last feature map, with the stride in the 3 x 3 convolutions.

The parts have the numbers of the children of torchvision's ResNet: 0 and 1 are the first convolution and its
normalization, 4 ... 7 the stages. So published files that name tensors after these numbers are read as they
are.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

# Blocks of each stage, and whether a block has a bottleneck.
DEPTHS: dict[str, tuple[Sequence[int], bool]] = {
    "resnet10": ((1, 1, 1, 1), False),  # not in the paper: half of ResNet-18
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
}
_STEM, _EXPANSION = 64, 4


class Block(nn.Module):
    """Two 3 x 3 convolutions, or with a bottleneck 1 x 1, 3 x 3 and 1 x 1, added to the input."""

    def __init__(self, inputs: int, channels: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outputs = channels * _EXPANSION if bottleneck else channels
        if bottleneck:
            self.conv1, self.bn1 = nn.Conv2d(inputs, channels, 1, bias=False), nn.BatchNorm2d(channels)
            self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(channels)
            self.conv3, self.bn3 = nn.Conv2d(channels, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        else:
            self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(channels)
            self.conv2, self.bn2 = (
                nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
                nn.BatchNorm2d(channels),
            )
        self.bottleneck = bottleneck
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, images: Tensor) -> Tensor:
        x = self.bn2(self.conv2(self.bn1(self.conv1(images)).relu()))
        if self.bottleneck:
            x = self.bn3(self.conv3(x.relu()))
        return (x + (images if self.downsample is None else self.downsample(images))).relu()


def resnet(name: str, width: float = 1.0) -> tuple[nn.Sequential, int]:
    """Return the network and the channels of its map, at 1/32 of the input. width: factor of all channels."""
    blocks, bottleneck = DEPTHS[name]
    stem = max(8, round(_STEM * width))
    parts: list[nn.Module] = [
        nn.Conv2d(3, stem, 7, 2, 3, bias=False),
        nn.BatchNorm2d(stem),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    inputs = stem
    for stage, repeats in enumerate(blocks):
        channels, layers = stem * 2**stage, []
        for number in range(repeats):
            stride = 2 if stage and not number else 1
            layers.append(Block(inputs, channels, stride, bottleneck))
            inputs = channels * (_EXPANSION if bottleneck else 1)
        parts.append(nn.Sequential(*layers))
    network = nn.Sequential(*parts)
    initialize(network)
    return network, inputs


def initialize(network: nn.Module) -> None:
    """Draw convolutions for ReLU (He et al., ICCV 2015), fan-out; normalizations start as identities."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
