"""Local features of images: the one type of descriptors, and the one place of mask polarity.

Glossary of the letters used for shapes throughout the library:

    B  queries in a batch            N  descriptors of a query image
    K  candidates of one query       M  descriptors of a database image
    P  pairs                         D  width of a local descriptor
    Q  queries of a data set         d  width of a model's token
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# The arrays with an axis of descriptor slots, and the number of axes after it.
_AXES_AFTER_SLOTS = {"descriptors": 1, "valid": 0, "positions": 1, "scale": 0, "weight": 0}
_ARRAYS = (*_AXES_AFTER_SLOTS, "summary", "vector", "image_size")


@dataclass(frozen=True)
class LocalFeatures:
    """Local features of one image or a batch of images, strongest first.

    descriptors: [..., N, D]; any dtype.
    valid: bool [..., N], True = a real descriptor, False = padding. Published files and the published
    ``forward`` use the opposite polarity (1 = padding), which is inverted only where they are read.
    positions: float [..., N, 2] location (row, col) in [0, 1] of the image's height and width, or None.
    scale: float [..., N] keypoint size as a share of the image's long side, or, from a network that reads an
    image at several sizes, the index of the size; or None.
    weight: float [..., N] detector weight, descending, or None.
    summary: float [..., e] a model's summary of the whole image, or None.
    vector: float [..., G] the global descriptor of the image, for models that read one, or None.
    image_size: float [..., 2] (height, width) of the whole upright image in pixels, for models that measure
    in pixels, also where a box of it was described; or None.
    coded: the descriptors are a model's codes (``Similarity.compress``), as a database stores them.
    """

    descriptors: Tensor
    valid: Tensor
    positions: Tensor | None = None
    scale: Tensor | None = None
    weight: Tensor | None = None
    summary: Tensor | None = None
    vector: Tensor | None = None
    image_size: Tensor | None = None
    coded: bool = False

    def __post_init__(self) -> None:
        if self.valid.shape != self.descriptors.shape[:-1] or self.valid.dtype != torch.bool:
            raise ValueError(
                f"valid must be bool {tuple(self.descriptors.shape[:-1])}, "
                f"is {self.valid.dtype} {tuple(self.valid.shape)}"
            )
        if self.vector is not None and self.vector.shape[:-1] != self.valid.shape[:-1]:
            images = f"{tuple(self.valid.shape[:-1])} images"
            raise ValueError(f"vector is {tuple(self.vector.shape)}: give one for each of {images}")
        if self.image_size is not None and self.image_size.shape != (*self.valid.shape[:-1], 2):
            images = f"{tuple(self.valid.shape[:-1])} images"
            raise ValueError(
                f"image_size is {tuple(self.image_size.shape)}: give 2 numbers for each of {images}"
            )

    @classmethod
    def from_descriptors(cls, descriptors: Tensor, valid: Tensor | None = None, **rest: Any) -> LocalFeatures:
        """Features from descriptors [..., N, D]; without ``valid``, all of them are real."""
        if valid is None:
            valid = torch.ones(descriptors.shape[:-1], dtype=torch.bool, device=descriptors.device)
        return cls(descriptors, valid, **rest)

    @property
    def width(self) -> int:
        """D, the width of a descriptor."""
        return self.descriptors.shape[-1]

    @property
    def size(self) -> int:
        """N, the number of descriptor slots, padding included."""
        return self.descriptors.shape[-2]

    @property
    def counts(self) -> Tensor:
        """int64 [...]: real descriptors of each image."""
        return self.valid.sum(-1)

    @property
    def lengths(self) -> Tensor:
        """int64 [...]: slots up to the last real descriptor of each image; the rest is padding."""
        slots = torch.arange(1, self.size + 1, device=self.valid.device)
        return (self.valid * slots).amax(-1) if self.size else self.counts

    def map(self, function: Callable[[Tensor], Tensor]) -> LocalFeatures:
        """Apply a function of the leading axes, which all arrays have, to every array."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        changed: dict[str, Any] = {name: function(x) for name, x in arrays.items() if x is not None}
        return replace(self, **changed)

    def _map_slots(self, function: Callable[[Tensor, int], Tensor]) -> LocalFeatures:
        """Apply a function of (array, number of axes after the slots) to every array with slots."""
        arrays = {name: (getattr(self, name), after) for name, after in _AXES_AFTER_SLOTS.items()}
        changed: dict[str, Any] = {k: function(x, n) for k, (x, n) in arrays.items() if x is not None}
        return replace(self, **changed)

    def __getitem__(self, index: Any) -> LocalFeatures:
        """Images by index: indexes the leading axes only."""
        if self.valid.ndim < 2:
            raise IndexError("a single image's features have no leading axis to index")
        return self.map(lambda x: x[index])

    def trim(self, count: int) -> LocalFeatures:
        """The ``count`` strongest descriptors (rows are sorted by descending weight)."""
        return self._map_slots(lambda x, after: x.narrow(-1 - after, 0, min(count, self.size)))

    def keep(self, counts: Tensor | np.ndarray | int) -> LocalFeatures:
        """The ``counts`` strongest descriptors of each image: int, or int [...] one per image.

        Later slots become padding; those after the largest count are removed, but at least one slot stays.
        """
        wanted = torch.as_tensor(counts)
        largest = max(int(wanted.max()) if wanted.numel() else 0, 1)
        kept = self.trim(largest)
        slots = torch.arange(kept.size, device=self.valid.device)
        return replace(kept, valid=kept.valid & (slots < wanted.to(slots.device)[..., None]))

    def real_first(self) -> LocalFeatures:
        """Real descriptors in front, in their order, and padding behind them."""
        order = torch.argsort(~self.valid, dim=-1, stable=True)
        if bool((order.diff(dim=-1) > 0).all()):
            return self
        return self._map_slots(
            lambda x, after: torch.take_along_dim(x, order.unsqueeze(-1) if after else order, -1 - after)
        )

    def trim_padding(self) -> LocalFeatures:
        """Remove trailing slots that are padding in every image; at least one slot stays, if one exists."""
        return self.trim(max(int(self.lengths.max()) if self.lengths.numel() else 0, 1))

    def pad(self, size: int) -> LocalFeatures:
        """Zero descriptors, marked as not valid, up to ``size`` slots."""
        missing = size - self.size
        if missing < 0:
            raise ValueError(f"cannot pad {self.size} descriptors to {size}")
        return self._map_slots(lambda x, after: F.pad(x, (0, 0) * after + (0, missing)))

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> LocalFeatures:
        """On another device; ``dtype`` is that of the descriptors, the other arrays keep theirs."""
        moved = self.map(lambda x: x.to(device))
        return moved if dtype is None else replace(moved, descriptors=moved.descriptors.to(dtype))

    def with_descriptors(self, descriptors: Tensor, *, coded: bool = False) -> LocalFeatures:
        """The same features with other descriptors [..., N, any width], or with a model's codes of them."""
        return replace(self, descriptors=descriptors, coded=coded)

    def reshape(self, *leading: int) -> LocalFeatures:
        """Other leading axes: reshape(-1) turns [B, K, N, D] into [B * K, N, D]."""
        kept = self.valid.ndim - 1
        return self.map(lambda x: x.reshape(*leading, *x.shape[kept:]))

    @staticmethod
    def stack(items: Sequence[LocalFeatures]) -> LocalFeatures:
        """A batch from single images (or equal batches) of unequal counts, padded to the longest."""
        size = max(item.size for item in items)
        return _join(torch.stack, [item.pad(size) for item in items])

    @staticmethod
    def cat(items: Sequence[LocalFeatures]) -> LocalFeatures:
        """Batches concatenated along the first axis, padded to the longest."""
        size = max(item.size for item in items)
        return _join(torch.cat, [item.pad(size) for item in items])


def _join(join: Any, items: Sequence[LocalFeatures]) -> LocalFeatures:
    """Join every array that all items have; one that an item lacks is dropped."""
    if len({item.coded for item in items}) > 1:
        raise ValueError("descriptors and a model's codes of them do not go into one batch")
    new: dict[str, Any] = {"coded": items[0].coded}
    for name in _ARRAYS:
        values = [getattr(item, name) for item in items]
        new[name] = None if any(value is None for value in values) else join(values)
    return LocalFeatures(**new)
