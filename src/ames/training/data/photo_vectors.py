"""Vectors of photos by a network as it is at the moment, for what a training mines with it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ames.embedders.base import ImageEmbedder
from ames.extraction.base import ImageRegion
from ames.extraction.embedding import embed_images
from ames.training.data.photos import TrainingPhotos
from ames.training.distributed import Ranks


class PhotoVectors(NamedTuple):
    """values: unit vectors float32 [n, d], zeros where an image has none. readable bool [n]: it has one."""

    values: np.ndarray
    readable: np.ndarray


def photo_vectors(
    network: ImageEmbedder,
    photos: TrainingPhotos,
    rows: np.ndarray,
    *,
    ranks: Ranks,
    batch: int = 32,
    workers: int = 0,
) -> PhotoVectors:
    """Return the vectors of ``rows`` int64 [n] of a list, as in a test; all ``ranks`` compute a part each.

    Images that cannot be read are named in the log, once.
    """
    part = np.array_split(rows, ranks.count)[ranks.rank]
    regions = [ImageRegion(photos.path(row)) for row in part.tolist()]
    vectors, unreadable = embed_images(
        network, regions, device=ranks.device, batch_size=batch, workers=workers
    )
    for number, reason in unreadable.items():
        photos.note(int(part[number]), reason)
    if ranks.all_reduce_max(photos.unreported):
        photos.report(ranks)
    readable = ~np.isin(np.arange(len(part)), list(unreadable))
    joined = ranks.all_gather(np.ascontiguousarray(vectors.T))
    return PhotoVectors(np.ascontiguousarray(joined.T), ranks.all_gather(readable))
