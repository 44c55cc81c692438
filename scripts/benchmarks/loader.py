"""How fast a batch of local descriptors is read, beside the way in which the released code reads it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np
import torch

from ames.descriptors.layouts import METADATA, PADDING
from ames.descriptors.local import DescriptorFile
from ames.io.atomic import atomic_path
from twins import released_reads

SLOTS, WIDTH = 400, 768  # as published, DINOv2
BATCH, REPEATS = 300, 9
_BLOCK = 100  # images written at a time


def run(folder: Path, *, images: int, seed: int) -> list[dict[str, Any]]:
    """One row: reads of 300 random images of a flat float16 file, ours and the twin's in turn, cache warm.

    folder: of the file, which is made once (618 kB per image). Medians and minima are in ms, ratios are twin
    / ours. AssertionError if the two read different values.
    """
    path = folder / f"reads-{images}-{seed}.hdf5"
    if not path.exists():
        _make(path, images, seed)
    rng = np.random.default_rng([seed, 1])
    file = DescriptorFile(path)
    for first in range(0, images, _BLOCK):  # into the page cache, and into this process's map
        file.read(range(first, min(first + _BLOCK, images)))

    def ours(rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        local = file.read(rows, SLOTS, locations=False)
        return local.descriptors, local.valid

    def twin(rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return released_reads.read(path, rows, SLOTS)

    times: dict[Any, list[float]] = {ours: [], twin: []}
    before = file.bytes_read
    for repeat in range(1 + REPEATS):
        rows = rng.choice(images, min(BATCH, images), replace=False)
        for reader in (ours, twin) if repeat % 2 else (twin, ours):
            times[reader].append(_milliseconds(reader, rows))
    read = (file.bytes_read - before) // (1 + REPEATS)
    (found, valid), (expected, padding) = ours(rows), twin(rows)
    assert found.dtype == expected.dtype, f"{found.dtype}, not {expected.dtype}"
    assert torch.equal(found, expected), "different descriptors"
    assert torch.equal(valid, ~padding), "different masks"
    a, b = times[ours][1:], times[twin][1:]  # the first ones warm up
    return [
        {
            "ratio": round(median(b) / median(a), 2),
            "ratio_of_minima": round(min(b) / min(a), 2),
            "ours_ms": round(median(a), 2),
            "ours_min_ms": round(min(a), 2),
            "twin_ms": round(median(b), 2),
            "twin_min_ms": round(min(b), 2),
            "bytes": read,
            "file_bytes": path.stat().st_size,
        }
    ]


def _milliseconds(reader: Callable[[np.ndarray], Any], rows: np.ndarray) -> float:
    start = time.perf_counter()
    result = reader(rows)
    stop = time.perf_counter()
    del result  # outside of the time: freeing it is not part of the read
    return 1e3 * (stop - start)


def _make(path: Path, images: int, seed: int) -> None:
    """Random bits as finite numbers; every 50th image is short, a quarter of its slots padding, of zeros."""
    rng = np.random.default_rng(seed)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        features = file.create_dataset("features", (images, SLOTS, METADATA + WIDTH), np.float16)
        for first in range(0, images, _BLOCK):
            shape = (min(_BLOCK, images - first), *features.shape[1:])
            block = rng.integers(0x2000, 0x3C00, shape, np.uint16).view(np.float16)  # 2^-7 to 1
            block[..., PADDING] = 0
            block[::50, -SLOTS // 4 :] = 0
            block[::50, -SLOTS // 4 :, PADDING] = 1
            features[first : first + len(block)] = block
