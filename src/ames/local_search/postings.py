"""Postings: what an inverted file holds of each word, and the similarities that they give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ames.local_search.kernel import Kernel

_ENTRIES = 1 << 20  # of the lists of a query's words at a time: bounds the memory
_CACHED = 1 << 18  # numbers of real vectors at a time: they stay in a core's cache
_COUNTS = np.array([x.bit_count() for x in range(256)], np.uint8)


class Asked(NamedTuple):
    """A query: its words int64 [m], each once; their codes [m, ...]; weights float64 [m], or None: all 1."""

    words: np.ndarray
    codes: np.ndarray
    weights: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Postings:
    """The lists of W words, one behind the other; a list is in rising order of image.

    offsets: int64 [W + 1], where the list of each word begins. images: uint32 [E]. codes: [E, ...], packed
    signs uint8 [E, ⌈D/8⌉], or unit vectors float32 or float16 [E, D].
    """

    offsets: np.ndarray
    images: np.ndarray
    codes: np.ndarray

    @property
    def words(self) -> np.ndarray:
        """int64 [E]: the word of each entry."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def merged(self, parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Postings:
        """Return these lists with more entries, each part (words, images, codes)."""
        words, images, codes = zip((self.words, self.images, self.codes), *parts, strict=True)
        every, owners = np.concatenate(words), np.concatenate(images)
        order = np.lexsort((owners, every))
        ends = np.cumsum(np.bincount(every, minlength=len(self.offsets) - 1))
        return Postings(np.append(0, ends), owners[order], np.concatenate(codes)[order])

    def similarities(self, asked: Asked, kernel: Kernel, width: int, size: int) -> np.ndarray:
        """Return Σ w u(σ) over the words that a query shares with each of ``size`` images, float64 [size].

        width: D, of the descriptors.
        """
        total, table = np.zeros(size), kernel.table(width)
        stored, codes = (_wide(x) if kernel.binary else x for x in (self.codes, asked.codes))
        for entries, owners in self._lists(asked.words):
            if kernel.binary:
                found = table[_hamming(stored, codes, entries, owners)]
            else:
                found = kernel.selective(_products(stored, codes, entries, owners))
            if asked.weights is not None:
                found = found * asked.weights[owners]
            total += np.bincount(self.images.take(entries), found, minlength=size)
        return total

    def _lists(self, words: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield places of entries int64 [L] of the words' lists, and the numbers of their words [L]."""
        starts = self.offsets[words]
        lengths = self.offsets[words + 1] - starts
        group = np.cumsum(lengths) // _ENTRIES
        cuts = np.flatnonzero(np.diff(group)) + 1
        for part in np.split(np.arange(len(words)), cuts):
            own = lengths[part]
            before = np.cumsum(own) - own
            entries = np.arange(own.sum()) + np.repeat(starts[part] - before, own)
            if len(entries):
                yield entries, np.repeat(part, own)


def _wide(codes: np.ndarray) -> np.ndarray:
    """Packed bytes [n, B] as the widest unsigned numbers that fill them."""
    size = next(x for x in (8, 4, 2, 1) if codes.shape[1] % x == 0)
    return np.ascontiguousarray(codes).view(f"u{size}")


def _hamming(stored: np.ndarray, asked: np.ndarray, entries: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Hamming distances int64 [L] of stored codes and those of their query words."""
    different = stored.take(entries, 0) ^ asked.take(owners, 0)
    total = np.zeros(len(entries), np.intp)
    for column in different.T:
        total += _bits(column)
    return total


def _bits(numbers: np.ndarray) -> np.ndarray:
    """Bits that are 1 of unsigned numbers [L]; NumPy has the function since its version 2."""
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(numbers)
    return _COUNTS[np.ascontiguousarray(numbers).view(np.uint8)].reshape(len(numbers), -1).sum(1)


def _products(stored: np.ndarray, asked: np.ndarray, entries: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Inner products float32 [L] of stored vectors and those of their query words."""
    found = np.empty(len(entries), np.float32)
    step = max(1, _CACHED // stored.shape[1])
    for start in range(0, len(entries), step):
        part = slice(start, start + step)
        x = stored.take(entries[part], 0).astype(np.float32, copy=False)
        np.einsum("ld,ld->l", x, asked.take(owners[part], 0), out=found[part])
    return found
