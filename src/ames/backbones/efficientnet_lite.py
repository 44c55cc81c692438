"""EfficientNet-Lite: the network of Tan and Le (ICML 2019) without squeeze-excitation, with ReLU6.

Names of parameters are those of the published files, whose classifier is dropped. Padding is TensorFlow's
"same".
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ames.backbones.base import FeatureMaps, MapBackbone
from ames.backbones.pretrained import PUBLISHED, fingerprint
from ames.errors import AmesError
from ames.weights.files import load_state, read_weights
from ames.weights.published import published


class Stage(NamedTuple):
    """``repeats`` blocks of ``width`` channels, the first of them with the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    width: int


class Size(NamedTuple):
    """width, depth: factors of the channels and blocks of ``STAGES``. long_side: in pixels."""

    width: float
    depth: float
    long_side: int


# Table 1 of the paper. Lite keeps the stem, the head, and the numbers of blocks of the first and last stage.
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280
_CLASSIFIER = "_fc."
_EPS = 1e-3
_OUTER = (("_conv_stem", "_bn0"), ("_conv_head", "_bn1"))  # a convolution and the normalization behind it
_INNER = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
_STRIDE = 32


class EfficientNetLite(MapBackbone):
    """name: one of ``SIZES``. weights: the published file, ``PUBLISHED`` (``ames.weights.published``), or
    None: random ones from ``seed``. The network's vector is the mean of its last map's cells.
    """

    SIZES: ClassVar = {
        "efficientnet-lite0": Size(1.0, 1.0, 288),
        "efficientnet-lite2": Size(1.1, 1.2, 288),
    }
    mean = (127 / 255,) * 3
    std = (128 / 255,) * 3
    multiple = _STRIDE
    local_dim = global_dim = _HEAD

    def __init__(self, name: str, *, weights: str | Path | None = PUBLISHED, seed: int = 0) -> None:
        super().__init__()
        if name not in self.SIZES:
            raise AmesError(f"EfficientNetLite {name!r} is none of: {', '.join(self.SIZES)}")
        self.name, self.long_side = name, self.SIZES[name].long_side
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._conv_stem, self._bn0 = nn.Conv2d(3, _STEM, 3, 2, bias=False), _norm(_STEM)
            self._blocks = _blocks(self.SIZES[name])
            width = _width(self.SIZES[name], STAGES[-1])
            self._conv_head, self._bn1 = nn.Conv2d(width, _HEAD, 1, bias=False), _norm(_HEAD)
        self.weights = f"random seed {seed}"
        if weights is not None:
            path = published(name) if weights == PUBLISHED else Path(weights).expanduser()
            state = read_weights(path).state
            kept = {name: x for name, x in state.items() if not name.startswith(_CLASSIFIER)}
            load_state(self, kept, source=str(path))
            self.weights = fingerprint(path)
        self.eval()
        self._fuse()
        # A third less time on a CPU. The stubs do not know the argument.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def maps(self, images: Tensor) -> FeatureMaps:
        """images float [B, 3, H, W], RGB -> map [B, 1280, ceil(H / 32), ceil(W / 32)], vector [B, 1280]."""
        x = F.relu6(_same(self._conv_stem, images), inplace=True)
        for block in self._blocks:
            x = block(x)
        x = F.relu6(self._conv_head(x), inplace=True)
        return FeatureMaps(x, x.mean((2, 3)), None)

    def centers(self, rows: int, columns: int, height: int, width: int) -> Tensor:
        """float [rows, columns, 2]: (row, col) of the middle of each cell's receptive field, in input pixels.

        Of sides in multiples of 32: "same" padding puts one pixel more behind than before, so that pixel i
        of a layer of stride 2 looks at 2 i + 1 of the one before, and cell i at 32 i + 31, the middle of
        which is at 32 i + 31.5.
        """
        axes = (torch.arange(n) * float(_STRIDE) + _STRIDE - 0.5 for n in (rows, columns))
        return torch.cartesian_prod(*axes).reshape(rows, columns, 2)

    def _fuse(self) -> None:
        _fuse(self, _OUTER)
        for block in self._blocks:
            _fuse(block, _INNER)


class Block(nn.Module):
    """MBConv: expansion, a convolution of each channel, projection; with the input added, if it fits."""

    def __init__(self, inputs: int, stage: Stage) -> None:
        super().__init__()
        inner = inputs * stage.expansion
        self.expands = stage.expansion > 1
        if self.expands:
            self._expand_conv, self._bn0 = nn.Conv2d(inputs, inner, 1, bias=False), _norm(inner)
        self._depthwise_conv = nn.Conv2d(inner, inner, stage.kernel, stage.stride, groups=inner, bias=False)
        self._bn1 = _norm(inner)
        self._project_conv, self._bn2 = nn.Conv2d(inner, stage.width, 1, bias=False), _norm(stage.width)
        self.adds = stage.stride == 1 and inputs == stage.width

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu6(self._expand_conv(images), inplace=True) if self.expands else images
        x = F.relu6(_same(self._depthwise_conv, x), inplace=True)
        x = self._project_conv(x)
        return x + images if self.adds else x


def _blocks(size: Size) -> nn.ModuleList:
    blocks, inputs = [], _STEM
    for number, stage in enumerate(STAGES):
        outer = number in (0, len(STAGES) - 1)
        repeats = stage.repeats if outer else math.ceil(stage.repeats * size.depth)
        width = _width(size, stage)
        for block in range(repeats):
            blocks.append(
                Block(inputs, stage._replace(width=width, stride=stage.stride if block == 0 else 1))
            )
            inputs = width
    return nn.ModuleList(blocks)


def _width(size: Size, stage: Stage) -> int:
    """A multiple of 8, and no less than nine tenths of what the factor makes."""
    width = stage.width * size.width
    found = max(8, int(width + 4) // 8 * 8)
    return found + 8 if found < 0.9 * width else found


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=_EPS)


def _fuse(module: nn.Module, pairs: tuple[tuple[str, str], ...]) -> None:
    """Make each convolution do its normalization, too: a seventh of the time; values change by rounding."""
    for convolution, norm in pairs:
        if hasattr(module, convolution):
            fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
            setattr(module, convolution, fused)
            delattr(module, norm)


def _same(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """The convolution with TensorFlow's "same" padding: ceil(side / stride) outputs, the odd pixel behind."""
    kernel, stride = convolution.kernel_size[0], convolution.stride[0]
    missing = [max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:]]
    if any(n % 2 for n in missing):
        (top, below), (left, right) = ((n // 2, n - n // 2) for n in missing)
        x, missing = F.pad(x, (left, right, top, below)), [0, 0]
    pads = [n // 2 for n in missing]
    return F.conv2d(x, convolution.weight, convolution.bias, stride, pads, groups=convolution.groups)
