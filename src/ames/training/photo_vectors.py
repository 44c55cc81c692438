"""Vectors of photos by a network as it is at the moment, for what a training mines with it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from ames.datasets.images import UnreadableImage
from ames.embedders.base import ImageEmbedder
from ames.io.prefetch import ahead
from ames.training.data.photos import TrainingPhotos
from ames.training.distributed import Ranks


class PhotoVectors(NamedTuple):
    """values: unit vectors float32 [n, d]. readable bool [n]: False where an image could not be read; its vector is
    0.
    """

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
    """Return the vectors of ``rows`` int64 [n] of a list, as in a test, of all ``ranks`` together.

    The network is in evaluation mode meanwhile. Images that cannot be read are named in the log, once.
    """
    part = np.array_split(rows, ranks.count)[ranks.rank]
    blocks = [part[i : i + batch] for i in range(0, len(part), batch)]
    training = network.training
    network.eval()
    values, readable = [np.zeros((0, network.dim), np.float32)], [np.zeros(0, bool)]
    with torch.no_grad():
        for images in ahead(lambda block: [_fitted(network, photos, row) for row in block], blocks, workers):
            good = np.array([x is not None for x in images])
            found = np.zeros((len(images), network.dim), np.float32)
            if good.any():
                pixels = network.inputs.tensor([x for x in images if x is not None], ranks.device)
                found[good] = network(pixels).float().cpu().numpy()
            values.append(found)
            readable.append(good)
    network.train(training)
    if ranks.all_reduce_max(photos.unreported):
        photos.report(ranks)
    joined = ranks.all_gather(np.ascontiguousarray(np.concatenate(values).T))
    return PhotoVectors(np.ascontiguousarray(joined.T), ranks.all_gather(np.concatenate(readable)))


def _fitted(network: ImageEmbedder, photos: TrainingPhotos, row: int) -> np.ndarray | None:
    try:
        return network.inputs.fit(photos.read(int(row)))
    except UnreadableImage:
        return None
