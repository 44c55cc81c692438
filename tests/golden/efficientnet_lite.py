"""Figures of EfficientNet-Lite from another implementation, and the names and shapes of its files.

The figures are those of the package efficientnet-lite-pytorch 0.1.0, of the last map, fp32, CPU; weights and
inputs come from the seeds (``golden.backbones``).
"""

import json
from pathlib import Path

from golden.backbones import layer, norm

FIGURES = json.loads((Path(__file__).parent / "efficientnet_lite.json").read_text())

# Of each block: its input's channels, its own, the side of its kernel.
LITE0 = [
    *[(32, 16, 3), (16, 24, 3), (24, 24, 3), (24, 40, 5), (40, 40, 5), (40, 80, 3), (80, 80, 3), (80, 80, 3)],
    *[(80, 112, 5), (112, 112, 5), (112, 112, 5), (112, 192, 5), *[(192, 192, 5)] * 3, (192, 320, 3)],
]
LITE2 = [
    *[(32, 16, 3), (16, 24, 3), (24, 24, 3), (24, 24, 3), (24, 48, 5), (48, 48, 5), (48, 48, 5), (48, 88, 3)],
    *[
        *[(88, 88, 3)] * 3,
        (88, 120, 5),
        *[(120, 120, 5)] * 3,
        (120, 208, 5),
        *[(208, 208, 5)] * 4,
        (208, 352, 3),
    ],
]
BLOCKS = {"efficientnet-lite0": LITE0, "efficientnet-lite2": LITE2}


def shapes(name):
    """Name -> shape of every tensor in a published file."""
    found = {"_conv_stem.weight": (32, 3, 3, 3)} | norm("_bn0", 32)
    for number, (inputs, width, kernel) in enumerate(BLOCKS[name]):
        block, inner = f"_blocks.{number}.", inputs * (6 if number else 1)
        if number:
            found |= {f"{block}_expand_conv.weight": (inner, inputs, 1, 1)} | norm(f"{block}_bn0", inner)
        found |= {f"{block}_depthwise_conv.weight": (inner, 1, kernel, kernel)} | norm(f"{block}_bn1", inner)
        found |= {f"{block}_project_conv.weight": (width, inner, 1, 1)} | norm(f"{block}_bn2", width)
    found |= {"_conv_head.weight": (1280, width, 1, 1)} | norm("_bn1", 1280)
    return found | layer("_fc", 1000, 1280)
