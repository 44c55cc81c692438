"""Vectors of images by an embedder that reads pixels."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from typing import NamedTuple

import cv2
import numpy as np
import torch

from ames.datasets.images import MAX_PIXELS, UnreadableImage
from ames.embedders.base import ImageEmbedder
from ames.embedders.inputs import InputSpec
from ames.errors import AmesError, first_line
from ames.extraction.base import ImageRegion
from ames.extraction.preprocessing import whole_pixels
from ames.io.prefetch import ahead

CHUNK = 256  # images that are held together, resized
NOT_FINITE = "the embedder gave values that are not finite (NaN or infinity)"

EmbeddingResult = np.ndarray | str  # float32 [dim], or why there is none


class EmbeddedImages(NamedTuple):
    """vectors float32 [n, dim], zeros where an image has none; unreadable: why, by the image's number."""

    vectors: np.ndarray
    unreadable: dict[int, str]


def embed_images(
    embedder: ImageEmbedder,
    regions: Sequence[ImageRegion],
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
    workers: int = 0,
    max_pixels: int = MAX_PIXELS,
) -> EmbeddedImages:
    """Return the vectors of images, or of their boxes, in order.

    The embedder is moved to ``device`` and computes in evaluation mode; its mode is restored. Memory holds
    256 resized images. batch_size: images of one shape that are computed together. workers: threads that
    read, 0: none. max_pixels: of an image that is read. AmesError where a batch does not fit the memory.
    """
    vectors = np.zeros((len(regions), embedder.dim), np.float32)
    unreadable: dict[int, str] = {}
    reader = ImageReader(
        embedder, device=device, batch_size=batch_size, workers=workers, max_pixels=max_pixels
    )
    row = 0
    with closing(reader.chunks(regions, CHUNK)) as chunks:
        for chunk in chunks:
            for found in chunk:
                if isinstance(found, str):
                    unreadable[row] = found
                else:
                    vectors[row] = found
                row += 1
    return EmbeddedImages(vectors, unreadable)


class ImageReader:
    """Reads images and embeds them; options: as of ``embed_images``."""

    def __init__(
        self,
        embedder: ImageEmbedder,
        *,
        device: torch.device | str = "cpu",
        batch_size: int = 32,
        workers: int = 0,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.device = torch.device(device)
        self.embedder = embedder.to(self.device)
        self._batch_size, self._workers, self._max_pixels = batch_size, workers, max_pixels

    def chunks(
        self, regions: Sequence[ImageRegion], size: int, tick: Callable[[], object] = lambda: None
    ) -> Generator[list[EmbeddingResult], None, None]:
        """Yield the vector of each region, in order, ``size`` at a time; ``tick`` is called for each.

        No batch crosses a chunk, so that a run that begins with any chunk computes the same.
        """
        inputs, reach = self.embedder.inputs, 2 * self._batch_size

        def load(region: ImageRegion) -> np.ndarray | str:
            return fitted(region, inputs, self._max_pixels)

        with closing(ahead(load, regions, self._workers, reach=reach)) as loaded:  # type: ignore[type-var]
            while chunk := list(islice(loaded, size)):
                yield self._embedded(chunk, tick)

    def _embedded(
        self, loaded: Sequence[np.ndarray | str], tick: Callable[[], object]
    ) -> list[EmbeddingResult]:
        """Vectors of what was loaded; images of one shape are computed in batches."""
        found: dict[int, EmbeddingResult] = {row: x for row, x in enumerate(loaded) if isinstance(x, str)}
        shapes: dict[tuple[int, ...], list[int]] = {}
        for row, image in enumerate(loaded):
            if isinstance(image, np.ndarray):
                shapes.setdefault(image.shape, []).append(row)
        with evaluating(self.embedder):
            for rows in shapes.values():
                for first in range(0, len(rows), self._batch_size):
                    batch = rows[first : first + self._batch_size]
                    vectors = self._compute([loaded[row] for row in batch])  # type: ignore[misc]
                    found |= dict(zip(batch, vectors, strict=True))
        for _ in loaded:
            tick()
        return [found[row] for row in range(len(loaded))]

    @torch.inference_mode()
    def _compute(self, images: Sequence[np.ndarray]) -> list[EmbeddingResult]:
        try:
            vectors = self.embedder(self.embedder.inputs.tensor(images, self.device)).float().cpu().numpy()
        except RuntimeError as error:  # a GPU's has a class of its own, a CPU's only its words
            if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
                raise
            height, width = images[0].shape[:2]
            raise AmesError(
                f"{len(images)} images of {height} x {width} pixels do not fit {self.device}'s memory: give "
                "a smaller batch size"
            ) from error
        return [vector if np.isfinite(vector).all() else NOT_FINITE for vector in vectors]


def fitted(region: ImageRegion, inputs: InputSpec, max_pixels: int = MAX_PIXELS) -> np.ndarray | str:
    """Return a region's pixels, cut to its box, as ``InputSpec.fit`` makes them; or why it cannot be read."""
    try:
        image = region.read(max_pixels)
        top, left, bottom, right = whole_pixels(region.box, *image.shape[:2])
        return np.ascontiguousarray(inputs.fit(image[top:bottom, left:right]))
    except (UnreadableImage, cv2.error) as error:
        return first_line(error)


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode for a block; the module's own mode comes back, also that of its parts."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
