"""How long a query takes: from its photo to its vector, and the network's part of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from statistics import median

import numpy as np
import torch

from ames.embedders.base import ImageEmbedder
from ames.extraction.base import BaseExtractor, ImageRegion
from ames.extraction.embedding import evaluating, fitted

MEASURED = 50  # queries, spread over the list


def spread(regions: Sequence[ImageRegion], count: int = MEASURED) -> list[ImageRegion]:
    """Return so many of the regions, evenly spread."""
    places = np.linspace(0, len(regions) - 1, min(count, len(regions))).round().astype(int)
    return [regions[place] for place in places]


def query_ms(extractor: BaseExtractor, regions: Sequence[ImageRegion]) -> float | None:
    """Return the median milliseconds of an extraction, one photo at a time, reading and resizing included.

    The first photo is extracted once more before. None where no photo can be read.
    """

    def extract(region: ImageRegion) -> bool:
        with closing(extractor.chunks([region], 1)) as chunks:  # type: ignore[type-var]
            return not any(isinstance(x, str) for x in next(iter(chunks)))

    return _median(extract, regions)


def network_ms(embedder: ImageEmbedder, regions: Sequence[ImageRegion]) -> float | None:
    """Return the median milliseconds of a network on one resized image, normalization included, reading and
    resizing excluded. None where no photo can be read.
    """
    found = (fitted(region, embedder.inputs) for region in regions)
    images = [image for image in found if not isinstance(image, str)]

    def compute(image: np.ndarray) -> bool:
        embedder(embedder.inputs.tensor([image], embedder.device)).cpu()  # waits for a GPU
        return True

    with evaluating(embedder), torch.inference_mode():
        return _median(compute, images)


def _median(once: Callable, items: Sequence) -> float | None:
    seconds = []
    for item in [*items[:1], *items]:
        start = time.perf_counter()
        if once(item):
            seconds.append(time.perf_counter() - start)
    return round(1000 * median(seconds[1:] or seconds), 3) if seconds else None
