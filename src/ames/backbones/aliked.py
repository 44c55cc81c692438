"""ALIKED (Zhao et al., TIM 2023) by kornia's network, its features computed at the keypoints alone.

kornia's ``forward`` makes 128 channels of full size and normalizes all of them: most of its time. Upsampling
and 1 x 1 convolutions are linear, so that the score needs eight such channels, and a descriptor the pixels
around its keypoint. Values are those of ``forward`` but for rounding (``tests/backbones/test_aliked.py``).
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ames.backbones.keypoints import KorniaNetwork, collected
from ames.features import LocalFeatures

_MULTIPLE = 32  # of the sides that the network computes with
_LEAST = 1e-12  # of a length that is divided by
_MARGIN = 4  # the last place of a 3 x 3 patch, from the end of an axis: kornia's, one pixel early


class Aliked(KorniaNetwork):
    """name: one of ``SIZES``: 64-d descriptors (t16) or 128-d; 16 or 32 sampled places each."""

    SIZES: ClassVar = {"aliked": "aliked-n16", "aliked-t16": "aliked-t16", "aliked-n32": "aliked-n32"}
    long_side = 448

    @property
    def local_dim(self) -> int:  # type: ignore[override]  # an attribute of the others
        return self.network.desc_head.sf_conv.out_channels

    def _build(self, features: Any) -> Any:
        # Threshold 0: the highest maxima, however low, so that dark images have keypoints too.
        return features.ALIKED(self.SIZES[self.name], max_num_keypoints=1, detection_threshold=0.0)

    def keypoints(self, images: Tensor, count: int) -> LocalFeatures:
        """As the interface says; images RGB in 0 ... 1."""
        height, width = images.shape[2:]
        top, left, padded = _padded(images)
        levels = self._levels(padded)
        scores = self._scores(levels)[..., top : top + height, left : left + width]
        detector = copy.copy(self.network.dkd)  # with its own count: lanes share the network
        detector.top_k = count
        found, weights, _ = detector(scores)
        size = images.new_tensor([width - 1, height - 1])
        places = [(x + 1) / 2 * size for x in found]  # (column, row), the middle of the first pixel is 0
        descriptors = [
            self._descriptors(_Sampled([x[i] for x in levels], top, left, height, width), one)
            for i, one in enumerate(places)
        ]
        return collected([x.flip(1) + 0.5 for x in places], weights, descriptors)

    def _levels(self, images: Tensor) -> list[Tensor]:
        """The four maps of equal width, at full, 1/2, 1/8 and 1/32 size: [B, C, h, w] each."""
        net = self.network
        one = net.block1(images)
        two = net.block2(net.pool2(one))
        three = net.block3(net.pool4(two))
        four = net.block4(net.pool4(three))
        pairs = ((net.conv1, one), (net.conv2, two), (net.conv3, three), (net.conv4, four))
        return [net.gate(convolution(x)) for convolution, x in pairs]

    def _scores(self, levels: list[Tensor]) -> Tensor:
        """[B, 1, H, W]: the head's first layer, 1 x 1, before the upsampling instead of after it."""
        first, *rest = self.network.score_head
        size = levels[0].shape[2:]
        parts = zip(levels, first.weight.chunk(len(levels), 1), strict=True)
        small = [F.conv2d(x, weight) for x, weight in parts]
        total = small[0]
        for x in small[1:]:
            total = total + F.interpolate(x, size, mode="bilinear", align_corners=True)
        for layer in rest:
            total = layer(total)
        return total.sigmoid()

    def _descriptors(self, sampled: _Sampled, places: Tensor) -> Tensor:
        """places float [n, 2] (column, row) in pixels -> [n, D] of unit length, as kornia's SDDH."""
        head = self.network.desc_head
        if not len(places):
            return places.new_zeros(0, self.local_dim)
        limit = max(sampled.height, sampled.width) / 4
        first, gate, last = head.offset_conv
        hidden = gate(F.linear(sampled.patches(places), first.weight.flatten(1), first.bias))
        offsets = F.linear(hidden, last.weight.flatten(1), last.bias).clamp(-limit, limit)
        offsets = offsets.view(-1, 2, head.n_pos).mT  # [n, places, (column, row)]
        rows = sampled.between((places[:, None] + offsets).reshape(-1, 2))
        rows = F.selu(F.linear(rows, head.sf_conv.weight.flatten(1)))
        joined = rows.view(len(places), -1) @ head.agg_weights.flatten(0, 1)
        return F.normalize(joined, dim=-1)


class _Sampled:
    """The features of one image, at pixels. levels: [C, h, w] each, the first of the padded size.

    top, left, height, width: of the image in it, in pixels.
    """

    def __init__(self, levels: list[Tensor], top: int, left: int, height: int, width: int) -> None:
        self.top, self.left, self.height, self.width = top, left, height, width
        self._shapes = [x.shape[1:] for x in levels]
        self._tables = [x.flatten(1).T.contiguous() for x in levels]

    def at(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Features [n, D] of whole pixels of the image, int64 [n], and what makes their length 1, [n]."""
        rows, columns = rows + self.top, columns + self.left
        (height, width), full = self._shapes[0], self._tables[0]
        parts = [full[rows * width + columns]]
        for (h, w), table in zip(self._shapes[1:], self._tables[1:], strict=True):
            # As upsampling with aligned corners: the outer pixels of both maps lie on each other.
            places, shares = _corners(rows * ((h - 1) / (height - 1)), columns * ((w - 1) / (width - 1)), w)
            places = places.clamp(max=h * w - 1)  # beyond the last one with no share
            parts.append(F.embedding_bag(places, table, mode="sum", per_sample_weights=shares))
        found = torch.cat(parts, 1)
        return found, 1 / found.norm(dim=1).clamp(min=_LEAST)

    def between(self, places: Tensor) -> Tensor:
        """Features [n, D] at float [n, 2] (column, row), bilinear, 0 beyond the image."""
        column, row = places.unbind(1)
        _, shares = _corners(row, column, self.width)
        x0, y0 = column.floor().long(), row.floor().long()
        ys, xs = torch.stack([y0, y0, y0 + 1, y0 + 1], 1), torch.stack([x0, x0 + 1, x0, x0 + 1], 1)
        inside = (ys >= 0) & (ys < self.height) & (xs >= 0) & (xs < self.width)
        ys, xs = ys.clamp(0, self.height - 1), xs.clamp(0, self.width - 1)
        found, factors = self.at(ys.flatten(), xs.flatten())
        shares = shares * inside * factors.view_as(shares)
        return torch.bmm(shares[:, None], found.view(*ys.shape, -1))[:, 0]

    def patches(self, places: Tensor) -> Tensor:
        """The 3 x 3 pixels around float [n, 2] (column, row), inside the image: [n, 9 D], channel first."""
        last = places.new_tensor([self.width - _MARGIN, self.height - _MARGIN]).long()
        corner = torch.minimum((places.long() - 1).clamp(min=0), last)
        step = torch.arange(3, device=places.device)
        rows = (corner[:, 1, None] + step)[:, :, None].expand(-1, 3, 3)
        columns = (corner[:, 0, None] + step)[:, None].expand(-1, 3, 3)
        found, factors = self.at(rows.flatten(), columns.flatten())
        return (found * factors[:, None]).view(len(places), 9, -1).mT.flatten(1)


def _corners(rows: Tensor, columns: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Float places [n] of a map -> the pixels around each, by number, and their shares: [n, 4] both."""
    y, x = rows.floor(), columns.floor()
    down, right = rows - y, columns - x
    first = y.long() * width + x.long()
    numbers = torch.stack([first, first + 1, first + width, first + width + 1], 1)
    shares = torch.stack([(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right], 1)
    return numbers, shares


def _padded(images: Tensor) -> tuple[int, int, Tensor]:
    """(rows above, columns left, images of sides in multiples of 32): the border repeated, as in kornia."""
    missing = [-side % _MULTIPLE for side in images.shape[2:]]
    (top, below), (left, right) = ((n // 2, n - n // 2) for n in missing)
    return top, left, F.pad(images, (left, right, top, below), mode="replicate")
