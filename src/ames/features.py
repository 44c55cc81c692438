"""Local features of images: the one type of descriptors, and the one place of mask polarity.

Glossary of the letters used for shapes throughout the library:

    B  queries in a batch            N  descriptors of a query image
    K  candidates of one query       M  descriptors of a database image
    P  pairs                         D  width of a local descriptor
    Q  queries of a data set         d  width of a model's token
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# The arrays that have an axis of descriptor slots, and how many axes lie behind it.
_BEHIND_SLOTS = {"descriptors": 1, "valid": 0, "positions": 1, "scale": 0, "weight": 0}
_ARRAYS = (*_BEHIND_SLOTS, "summary")


@dataclass(frozen=True)
class LocalFeatures:
    """Local features of one image or a batch of images, strongest first.

    descriptors: [..., N, D]; any dtype.
    valid: bool [..., N], True = a real descriptor, False = padding. Published files and the
        published ``forward`` use the opposite polarity (1 = padding): it is turned round where they
        are read, and nowhere else.
    positions: float [..., N, 2] location (row, col) in [0, 1] of the image's height and width, or None.
    scale: float [..., N] keypoint size as a share of the image's long side, or None.
    weight: float [..., N] detector weight, falling, or None.
    summary: float [..., e] what a model keeps of the image as a whole, or None.
    coded: the descriptors are a model's codes (``Similarity.compress``), as a database stores them.
    """

    descriptors: Tensor
    valid: Tensor
    positions: Tensor | None = None
    scale: Tensor | None = None
    weight: Tensor | None = None
    summary: Tensor | None = None
    coded: bool = False

    def __post_init__(self) -> None:
        if self.valid.shape != self.descriptors.shape[:-1] or self.valid.dtype != torch.bool:
            raise ValueError(
                f"valid must be bool {tuple(self.descriptors.shape[:-1])}, "
                f"is {self.valid.dtype} {tuple(self.valid.shape)}"
            )

    @classmethod
    def from_descriptors(cls, descriptors: Tensor, valid: Tensor | None = None, **rest: Any) -> LocalFeatures:
        """Features from descriptors [..., N, D], all of them real unless ``valid`` says otherwise."""
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
        """int64 [...]: slots up to the last real descriptor of each image; what lies behind is padding."""
        slots = torch.arange(1, self.size + 1, device=self.valid.device)
        return (self.valid * slots).amax(-1) if self.size else self.counts

    def map(self, function: Callable[[Tensor], Tensor]) -> LocalFeatures:
        """The same function on every array; for what concerns the leading axes, which all of them have."""
        return self._changed(lambda x, _: function(x), _ARRAYS)

    def _along_slots(self, function: Callable[[Tensor, int], Tensor]) -> LocalFeatures:
        """The same function on every array of the descriptors; it sees the axes behind the slots too."""
        return self._changed(function, _BEHIND_SLOTS)

    def _changed(self, function: Callable[[Tensor, int], Tensor], names: Iterable[str]) -> LocalFeatures:
        old = {name: getattr(self, name) for name in names}
        new: dict[str, Any] = {
            k: function(x, _BEHIND_SLOTS.get(k, 0)) for k, x in old.items() if x is not None
        }
        return replace(self, **new)

    def __getitem__(self, index: Any) -> LocalFeatures:
        """Images by index: indexes the leading axes only."""
        if self.valid.ndim < 2:
            raise IndexError("a single image's features have no leading axis to index")
        return self.map(lambda x: x[index])

    def trim(self, count: int) -> LocalFeatures:
        """The ``count`` strongest descriptors (rows are sorted by falling weight)."""
        return self._along_slots(lambda x, behind: x.narrow(-1 - behind, 0, min(count, self.size)))

    def keep(self, counts: Tensor | np.ndarray | int) -> LocalFeatures:
        """The ``counts`` strongest descriptors of each image: int, or int [...] one for each. Slots behind
        them become padding, and those behind the largest count go; at least one stays, as padding perhaps.

        A single count gives what ``trim`` gives.
        """
        wanted = torch.as_tensor(counts)
        largest = max(int(wanted.max()) if wanted.numel() else 0, 1)
        kept = self.trim(largest)
        slots = torch.arange(kept.size, device=self.valid.device)
        return replace(kept, valid=kept.valid & (slots < wanted.to(slots.device)[..., None]))

    def trim_padding(self) -> LocalFeatures:
        """Without the slots that are padding in every image; at least one slot stays (if there is one)."""
        return self.trim(max(int(self.lengths.max()) if self.lengths.numel() else 0, 1))

    def pad(self, size: int) -> LocalFeatures:
        """Zero descriptors, marked as not valid, up to ``size`` slots."""
        missing = size - self.size
        if missing < 0:
            raise ValueError(f"cannot pad {self.size} descriptors to {size}")
        return self._along_slots(lambda x, behind: F.pad(x, (0, 0) * behind + (0, missing)))

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
        """Batches one behind the other along the first axis, padded to the longest."""
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
