"""Global vectors in unit length, so that an inner product is a cosine."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from ames.errors import AmesError

_log = logging.getLogger(__name__)
TOLERANCE = 1e-3  # of a length, from 1: what rounding to float16 changes, which is left as it is
_LENGTHS = 4096  # vectors whose lengths are taken in float64 at a time


def unit(vectors: np.ndarray, name: Callable[[int], str]) -> np.ndarray:
    """Vectors float32 [n, D] in unit length: ``vectors`` itself if nothing changes, else a copy.

    Vectors whose length is within ``TOLERANCE`` of 1 stay bit for bit, and so do zero vectors (of images
    without keypoints). name: of a row, for the error, "x.hdf5: the vector of image 3". AmesError if a vector
    or its squares are not finite.
    """
    # Where the squares of two vectors have finite sums, their product is finite, too.
    with np.errstate(over="ignore"):
        squares = np.einsum("nd,nd->n", vectors, vectors)
    finite = np.isfinite(squares)
    if not finite.all():
        raise AmesError(
            f"{name(int(np.argmin(finite)))} is not finite (NaN or infinity), or its squares are not: "
            "extract it again"
        )
    found = vectors
    suspects = np.flatnonzero(np.abs(squares - 1) > 1.9 * TOLERANCE)
    for start in range(0, len(suspects), _LENGTHS):
        rows = suspects[start : start + _LENGTHS]
        # In float64, each row by itself: how many rows are read at a time must not change a bit.
        wide = vectors[rows].astype(np.float64)
        lengths = np.sqrt(np.square(wide).sum(1))
        wrong = (lengths > 0) & (np.abs(lengths - 1) > TOLERANCE)
        if wrong.any():
            found = vectors.copy() if found is vectors else found
            found[rows[wrong]] = wide[wrong] / lengths[wrong, None]
    return found


def say_normalized(source: str) -> None:
    """Warn of vectors that ``unit`` has changed."""
    _log.warning(
        "%s: global descriptors that are not of unit length; they are normalized, so that the similarity is "
        "the cosine",
        source,
    )
