"""Aggregation of ASMK: local descriptors of images -> one vector for each visual word of an image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ames.errors import NotFiniteError
from ames.features import LocalFeatures
from ames.local_search.codebook import nearest_words

_ROWS = 1 << 17  # residuals in memory at a time


class Aggregated(NamedTuple):
    """Visual words of images, in rising order of image, then of word.

    images, words: int64 [n]. vectors: float32 [n, D], the sums of residuals.
    """

    images: Tensor
    words: Tensor
    vectors: Tensor


def aggregate(values: Tensor, images: Tensor, words: Tensor, centroids: Tensor) -> Aggregated:
    """Sum the residuals x - c of each image's descriptors in each word (IJCV 2016, equation 8).

    values: float [n, D]. images: int64 [n], whose they are. words: int64 [n, a], the words of each.
    """
    count, width = centroids.shape
    keys, place = (images.unsqueeze(1) * count + words).reshape(-1).unique(return_inverse=True)
    owner = torch.arange(len(values), device=values.device).repeat_interleave(words.shape[1])
    sums = values.new_zeros(len(keys), width)
    sums.index_add_(0, place, values[owner] - centroids[words.reshape(-1)])
    return Aggregated(keys // count, keys % count, sums)


def aggregate_images(local: LocalFeatures, centroids: Tensor, assign: int) -> Iterator[Aggregated]:
    """Yield the words of images [n, N, D], each descriptor in its ``assign`` nearest ones, block by block.

    Descriptors are taken as they are, in float32. NotFiniteError for an image with NaN or infinity.
    """
    step = max(1, _ROWS // max(local.size * assign, 1))
    for start in range(0, len(local.valid), step):
        part = slice(start, start + step)
        valid = local.valid[part]
        values = local.descriptors[part][valid].float()
        images = start + valid.nonzero()[:, 0]
        bad = ~torch.isfinite(values.sum(1))
        if bool(bad.any()):
            raise NotFiniteError(int(images[bad][0]))
        yield aggregate(values, images, nearest_words(values, centroids, assign), centroids)


def unit(sums: Tensor) -> Tensor:
    """V / (|V| + 1e-6), along the last axis, as in the released code."""
    return sums / (sums.norm(dim=-1, keepdim=True) + 1e-6)


def packed(sums: Tensor) -> np.ndarray:
    """Signs of V [n, D] as uint8 [n, ⌈D/8⌉]: a bit is V > 0, most significant first."""
    return np.packbits(sums.numpy() > 0, axis=1)
