"""Features of images by a network: read and resized in threads, put together by size, computed in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import cv2
import torch
from torch import Tensor

from ames.backbones.base import ImageFeatures, ImageNetwork
from ames.backbones.composed import Composed
from ames.backbones.detector import SpatialAttention
from ames.datasets.images import UnreadableImage
from ames.descriptors.provenance import Provenance
from ames.errors import AmesError, first_line
from ames.extraction.base import BaseExtractor, ExtractionResult, ImageRegion, is_finite
from ames.extraction.config import ExtractionConfig
from ames.extraction.parts import make_parts
from ames.extraction.preprocessing import NetworkInput, network_inputs
from ames.features import LocalFeatures
from ames.io.prefetch import ahead
from ames.lanes import Lanes
from ames.precision import AUTOCAST, usable

PUBLISHED_IN_PIXELS = ("cvnet",)  # backbones of whose published files locations are pixels, not shares
_Prepared = list[list[NetworkInput]]  # of each part, at each of its scales


def check_autocast(config: ExtractionConfig) -> ExtractionConfig:
    """Return the configuration without an autocast that the device only imitates (``ames.precision``)."""
    dtype = AUTOCAST[config.autocast]
    if dtype is None or usable(dtype, [config.device], asked=f"autocast {config.autocast}"):
        return config
    return replace(config, autocast=None)


class BatchedExtractor(BaseExtractor):
    """Features of batches of images. AmesError where network or detector cannot serve the configuration."""

    def __init__(
        self,
        network: ImageNetwork | Composed,
        config: ExtractionConfig | None = None,
        detector: SpatialAttention | None = None,
    ) -> None:
        config = check_autocast(config or ExtractionConfig())
        self._device = torch.device(config.device)
        # On a CPU a batch is no faster than its images: each of them goes through a lane.
        self._lanes = Lanes() if self._device.type == "cpu" else None
        self._parts = make_parts(network, config, detector)
        self._finish = network.finish if isinstance(network, Composed) else None
        self._pixels_stored = config.coordinates == "published" and network.name in PUBLISHED_IN_PIXELS
        first, last = self._parts[0], self._parts[-1]
        record = network.provenance() | first.record()
        record |= {
            "locations": "pixels" if self._pixels_stored else "normalized",
            "autocast": config.autocast,
            "opencv": cv2.__version__,
        }
        assert first.local_dim is not None
        super().__init__(
            network,
            replace(config, desc_num=record["descriptors"]),
            local_dim=first.local_dim,
            global_dim=last.global_dim if self._finish is None or last is first else network.global_dim,
            made=Provenance.from_dict(record),
        )

    def chunks(
        self, photos: Sequence[ImageRegion], size: int, tick: Callable[[], object] = lambda: None
    ) -> Iterator[list[ExtractionResult]]:
        """As the interface says.

        A batch never reaches into the next chunk, so that a run that begins with any chunk computes the same.
        Memory holds the images of a chunk and of a few batches.
        """
        reach = 2 * self.config.batch_size
        with _quiet_opencv():
            loaded = ahead(self._load, photos, self.config.workers, reach=reach)
            try:
                while chunk := self._computed(islice(loaded, size), tick):
                    yield chunk
            finally:
                loaded.close()  # type: ignore[attr-defined]  # ends its threads

    def _load(self, photo: ImageRegion) -> _Prepared | str:
        try:
            image = photo.read(self.config.max_pixels)
            return [network_inputs(image, part.sizing, photo.box) for part in self._parts]
        except (UnreadableImage, cv2.error) as error:
            return first_line(error)

    def _computed(
        self, loaded: Iterator[_Prepared | str], tick: Callable[[], object]
    ) -> list[ExtractionResult]:
        found: dict[int, ExtractionResult] = {}
        waiting: dict[tuple, list[tuple[int, _Prepared]]] = {}  # by the shapes at all sizes
        running: deque[_Running] = deque()

        def compute(group: list[tuple[int, _Prepared]]) -> None:
            parts = [group] if self._lanes is None else [[one] for one in group]
            starts = [partial(self._start, [x for _, x in part], [row for row, _ in part]) for part in parts]
            running.extend(map(_call, starts) if self._lanes is None else self._lanes.map(_call, starts))
            while len(running) > len(parts):  # the one before is fetched while this one is computed
                fetch()

        def fetch() -> None:
            for row, features in self._fetch(running.popleft()):
                found[row] = features
                tick()

        for row, item in enumerate(loaded):
            if isinstance(item, str):
                found[row] = item
                tick()
                continue
            shapes = tuple(x.pixels.shape for part in item for x in part)
            group = waiting.setdefault(shapes, [])
            group.append((row, item))
            if len(group) == self.config.batch_size:
                compute(waiting.pop(shapes))
        for group in waiting.values():
            compute(group)
        while running:
            fetch()
        return [found[row] for row in range(len(found))]

    @torch.inference_mode()
    def _start(self, batch: list[_Prepared], rows: list[int]) -> _Running:
        """Start to compute images of equal shapes; on a GPU without waiting for it."""
        local = vectors = None
        try:
            for number, part in enumerate(self._parts):
                levels = range(len(part.sizing.scales))
                scales = [part.pixels([x[number][level].pixels for x in batch]) for level in levels]
                points, whole = part.features(scales)
                local, vectors = points if local is None else local, whole if vectors is None else vectors
        except RuntimeError as error:  # a GPU's has a class of its own, a CPU's only its words
            if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
                raise
            shape = batch[0][0][0].pixels.shape
            raise AmesError(
                f"{len(batch)} images of {shape[0]} x {shape[1]} pixels do not fit {self._device}'s memory: "
                "lower --batch-size or --long-side"
            ) from error
        assert local is not None
        local = local.map(lambda x: x.to("cpu", non_blocking=True))
        vectors = None if vectors is None else vectors.to("cpu", non_blocking=True)
        done = None
        if self._device.type == "cuda":
            done = torch.cuda.Event()
            done.record(torch.cuda.current_stream(self._device))
        return _Running(rows, batch, local, vectors, done)

    def _fetch(self, running: _Running) -> Iterator[tuple[int, ExtractionResult]]:
        """Each image's row and features, locations in the original image."""
        if running.done is not None:
            running.done.synchronize()
        for position, (row, inputs) in enumerate(zip(running.rows, running.batch, strict=True)):
            local = running.local[position]
            local = local.trim(int(local.counts))  # suppressed cells are last
            vector = None if running.vectors is None else running.vectors[position].numpy()
            if vector is not None and self._finish is not None:
                vector = self._finish(vector)
            if not is_finite(ImageFeatures(local, vector)):
                yield row, "the network gave values that are not finite (fp16? take bf16)"
                continue
            placement = inputs[0][0].placement
            assert local.positions is not None
            places = local.positions.double() * torch.tensor([placement.input_height, placement.input_width])
            positions = placement.pixels(places) if self._pixels_stored else placement.normalized(places)
            size = torch.tensor([float(placement.height), float(placement.width)])
            yield row, ImageFeatures(replace(local, positions=positions.float(), image_size=size), vector)


class _Running(NamedTuple):
    rows: list[int]
    batch: list[_Prepared]
    local: LocalFeatures
    vectors: Tensor | None
    done: Any  # an event after which the arrays above are complete; None: they are


def _call(start: Callable[[], _Running]) -> _Running:
    return start()


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """OpenCV in one thread, as several threads call it, and silent on damaged files: those are listed."""
    logging = cv2.utils.logging
    threads, level = cv2.getNumThreads(), logging.getLogLevel()
    cv2.setNumThreads(1)
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
        logging.setLogLevel(level)
