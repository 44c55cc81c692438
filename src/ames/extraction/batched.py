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
import numpy as np
import torch
from torch import Tensor

from ames.backbones.base import FeatureMaps, ImageFeatures, MapBackbone
from ames.backbones.detector import SpatialAttention
from ames.backbones.selection import check, select
from ames.datasets.images import UnreadableImage
from ames.descriptors.provenance import Provenance
from ames.errors import AmesError, first_line
from ames.extraction.base import BaseExtractor, ExtractionResult, ImageRegion, is_finite
from ames.extraction.config import ExtractionConfig
from ames.extraction.preprocessing import NetworkInput, Sizing, network_inputs
from ames.features import LocalFeatures
from ames.io.hashing import weights_digest
from ames.io.prefetch import ahead
from ames.lanes import Lanes
from ames.precision import AUTOCAST, usable

PUBLISHED_IN_PIXELS = ("cvnet",)  # backbones of whose published files locations are pixels, not shares
_PROBED = 64  # pixels a side of the image with which the network is tried before the first real one
_Prepared = list[NetworkInput]


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
        network: MapBackbone,
        config: ExtractionConfig | None = None,
        detector: SpatialAttention | None = None,
    ) -> None:
        config = check_autocast(config or ExtractionConfig())
        self._device = torch.device(config.device)
        # On a CPU a batch is no faster than its images: each of them goes through a lane.
        self._lanes = Lanes() if self._device.type == "cpu" else None
        self._network = network.to(self._device).eval()
        self._detector = None if detector is None else detector.to(self._device).eval()
        self._selection = config.selection("network" if detector is None else detector.input)
        self._pixels_stored = config.coordinates == "published" and network.name in PUBLISHED_IN_PIXELS
        self._sizing = Sizing(
            network.long_side if config.long_side is None else config.long_side,
            network.multiple,
            tuple(map(float, network.scales if config.scales is None else config.scales)),
        )
        self._mean, self._std = (
            torch.tensor(x, device=self._device)[:, None, None] for x in (network.mean, network.std)
        )
        maps = probe(self._network, self._device)
        check(self._selection, maps, self._detector)
        with torch.inference_mode():
            cells = [torch.zeros(*maps.local.shape[2:], 2)]
            local, vector = select([maps], cells, self._selection, self._detector)
        super().__init__(
            network,
            replace(config, desc_num=self._selection.desc_num),
            local_dim=local.width,
            global_dim=None if vector is None else vector.shape[-1],
            made=self._made(config),
        )

    def _made(self, config: ExtractionConfig) -> Provenance:
        taken = self._detector if self._selection.needs_detector else None
        sizing = self._sizing
        return Provenance.from_dict(
            self._network.provenance()
            | self._selection.provenance()
            | {"long_side": sizing.long_side, "multiple": sizing.multiple, "scales": list(sizing.scales)}
            | {
                "locations": "pixels" if self._pixels_stored else "normalized",
                "autocast": config.autocast,
                # Another one's rows are never put beside these.
                "detector": None if taken is None else weights_digest(taken),
                "opencv": cv2.__version__,
            }
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
            return network_inputs(image, self._sizing, photo.box)
        except (UnreadableImage, cv2.error) as error:
            return first_line(error)

    def _computed(
        self, loaded: Iterator[_Prepared | str], tick: Callable[[], object]
    ) -> list[ExtractionResult]:
        found: dict[int, ExtractionResult] = {}
        waiting: dict[tuple, list[tuple[int, _Prepared]]] = {}  # by the shapes at all scales
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
            shapes = tuple(x.pixels.shape for x in item)
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
        scales, centers = [], []
        dtype = AUTOCAST[self.config.autocast]
        try:
            for level in range(len(self._sizing.scales)):
                pixels = self._pixels([inputs[level].pixels for inputs in batch])
                h, w = pixels.shape[2:]
                with torch.autocast(self._device.type, dtype, enabled=dtype is not None):
                    maps = self._network.maps(pixels)
                down, across = maps.local.shape[2:]
                grid = self._network.centers(down, across, h, w)
                scales.append(maps)
                centers.append(grid.to(self._device) / grid.new_tensor([h, w]).to(self._device))
            local, vectors = select(scales, centers, self._selection, self._detector)
        except RuntimeError as error:  # a GPU's has a class of its own, a CPU's only its words
            if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
                raise
            shape = batch[0][0].pixels.shape
            raise AmesError(
                f"{len(batch)} images of {shape[0]} x {shape[1]} pixels do not fit {self._device}'s memory: "
                "lower --batch-size or --long-side"
            ) from error
        local = local.map(lambda x: x.to("cpu", non_blocking=True))
        vectors = None if vectors is None else vectors.to("cpu", non_blocking=True)
        done = None
        if self._device.type == "cuda":
            done = torch.cuda.Event()
            done.record(torch.cuda.current_stream(self._device))
        return _Running(rows, batch, local, vectors, done)

    def _pixels(self, images: list[np.ndarray]) -> Tensor:
        """uint8 [h, w, 3] BGR each -> normalized float32 [B, 3, h, w]; bytes are sent to the device."""
        stacked = torch.from_numpy(np.stack(images))
        if self._device.type == "cuda":
            stacked = stacked.pin_memory()
        # Into planes while they are bytes, then in place: seven times faster than the same on strided floats.
        planes = stacked.to(self._device, non_blocking=True).permute(0, 3, 1, 2).contiguous()
        ordered = planes if self._network.channels == "bgr" else planes.flip(1)
        return ordered.float().div_(255).sub_(self._mean).div_(self._std)

    def _fetch(self, running: _Running) -> Iterator[tuple[int, ExtractionResult]]:
        """Each image's row and features, locations in the original image."""
        if running.done is not None:
            running.done.synchronize()
        for position, (row, inputs) in enumerate(zip(running.rows, running.batch, strict=True)):
            local = running.local[position]
            local = local.trim(int(local.counts))  # suppressed cells are last
            vector = None if running.vectors is None else running.vectors[position].numpy()
            if not is_finite(ImageFeatures(local, vector)):
                yield row, "the network gave values that are not finite (fp16? take bf16)"
                continue
            placement = inputs[0].placement
            assert local.positions is not None
            places = local.positions.double() * torch.tensor([placement.input_height, placement.input_width])
            positions = placement.pixels(places) if self._pixels_stored else placement.normalized(places)
            yield row, ImageFeatures(replace(local, positions=positions.float()), vector)


class _Running(NamedTuple):
    rows: list[int]
    batch: list[_Prepared]
    local: LocalFeatures
    vectors: Tensor | None
    done: Any  # an event after which the arrays above are complete; None: they are


@torch.inference_mode()
def probe(network: MapBackbone, device: torch.device | str = "cpu") -> FeatureMaps:
    """The maps of a small black image: what the network offers, and how wide it is."""
    side = -(-_PROBED // network.multiple) * network.multiple
    return network.maps(torch.zeros(1, 3, side, side, device=device))


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
