"""Features of images by a network: read and resized in threads, put together by size, computed in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from ames.backbones.base import FeatureMaps, ImageFeatures, MapBackbone
from ames.backbones.detector import SpatialAttention
from ames.backbones.selection import Selection, check, select
from ames.datasets.images import MAX_PIXELS, UnreadableImage, read_image
from ames.errors import AmesError, first_line
from ames.extraction.preprocessing import NetworkInput, Sizing, network_inputs
from ames.extraction.process_pool import ExtractionResult, ImageRegion
from ames.features import LocalFeatures
from ames.io.hashing import weights_digest
from ames.io.prefetch import ahead
from ames.precision import usable

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_PROBED = 64  # pixels a side of the image with which the network is tried before the first real one
_Prepared = list[NetworkInput]


@dataclass(frozen=True)
class NetworkOptions:
    """How a network's features are made.

    sizing: None: as the network says. pixels: locations in pixels of the original image instead of shares
    of its height and width. autocast: None, "bfloat16" or "float16"; it becomes None where the device only
    imitates that (``ames.precision``). batch: images computed at a time.
    workers: threads that read and resize. max_pixels: of an image that is read.
    """

    sizing: Sizing | None = None
    pixels: bool = False
    device: str = "cpu"
    autocast: str | None = None
    batch: int = 8
    workers: int = 0
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.autocast is not None and self.autocast not in AUTOCAST:
            raise AmesError(f"autocast {self.autocast!r} is none of {', '.join(AUTOCAST)}")
        if self.autocast is not None:
            asked = f"autocast {self.autocast}"
            if not usable(AUTOCAST[self.autocast], [self.device], asked=asked):
                object.__setattr__(self, "autocast", None)


class BatchedExtractor:
    """A source of features, as ``process_pool.PoolExtractor``: a network and what is taken from its maps.

    AmesError where the network, or the detector, cannot serve the selection.
    """

    def __init__(
        self,
        network: MapBackbone,
        selection: Selection,
        detector: SpatialAttention | None = None,
        options: NetworkOptions | None = None,
    ) -> None:
        self._options = options or NetworkOptions()
        self._device = torch.device(self._options.device)
        self._network = network.to(self._device).eval()
        self._detector = None if detector is None else detector.to(self._device).eval()
        self._selection = selection
        self._sizing = self._options.sizing or Sizing(network.long_side, network.multiple, network.scales)
        self._mean, self._std = (
            torch.tensor(x, device=self._device)[:, None, None] for x in (network.mean, network.std)
        )
        maps = probe(self._network, self._device)
        check(selection, maps, self._detector)
        with torch.inference_mode():
            local, vector = select([maps], [torch.zeros(*maps.local.shape[2:], 2)], selection, self._detector)
        self.slots, self.local_dim = selection.count, local.width
        self.global_dim = None if vector is None else vector.shape[-1]
        self.name = network.name

    def provenance(self) -> dict[str, Any]:
        return (
            self._network.provenance()
            | self._selection.provenance()
            | {
                "long_side": self._sizing.long_side,
                "multiple": self._sizing.multiple,
                "scales": list(self._sizing.scales),
                "locations": "pixels" if self._options.pixels else "shares",
                "autocast": self._options.autocast,
                "detector": self._fingerprint(),
                "opencv": cv2.__version__,
            }
        )

    def _fingerprint(self) -> str | None:
        """Of the detector's weights, so that another one's rows are never put beside these."""
        if self._detector is None or not self._selection.needs_detector:
            return None
        return weights_digest(self._detector)

    def chunks(
        self, photos: Sequence[ImageRegion], size: int, tick: Callable[[], object] = lambda: None
    ) -> Iterator[list[ExtractionResult]]:
        """What each photo has, in order, ``size`` of them at a time; ``tick`` is called for each.

        A batch never reaches into the next chunk, so that a run that begins with any of them computes the
        same. At most a chunk's images and a few batches' are in memory.
        """
        reach = 2 * self._options.batch
        with _quiet_opencv():
            loaded = ahead(self._load, photos, self._options.workers, reach=reach)
            try:
                while chunk := self._computed(islice(loaded, size), tick):
                    yield chunk
            finally:
                loaded.close()  # type: ignore[attr-defined]  # ends its threads

    def _load(self, photo: ImageRegion) -> _Prepared | str:
        try:
            image = read_image(photo.path, max_pixels=self._options.max_pixels)
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
            running.append(self._start([inputs for _, inputs in group], [row for row, _ in group]))
            if len(running) > 1:  # the one before is fetched while this one is computed
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
            if len(group) == self._options.batch:
                compute(waiting.pop(shapes))
        for group in waiting.values():
            compute(group)
        while running:
            fetch()
        return [found[row] for row in range(len(found))]

    @torch.inference_mode()
    def _start(self, batch: list[_Prepared], rows: list[int]) -> _Running:
        """Begins to compute images of equal shapes; on a GPU without waiting for it."""
        scales, centers = [], []
        try:
            for level in range(len(self._sizing.scales)):
                pixels = self._pixels([inputs[level].pixels for inputs in batch])
                h, w = pixels.shape[2:]
                maps = self._maps(pixels)
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
        """uint8 [h, w, 3] BGR each -> float32 [B, 3, h, w], as ``MapBackbone.normalized``, but sent to the
        device as bytes.
        """
        stacked = torch.from_numpy(np.stack(images))
        if self._device.type == "cuda":
            stacked = stacked.pin_memory()
        # Into planes while they are bytes, then in place: seven times faster than the same on strided floats.
        planes = stacked.to(self._device, non_blocking=True).permute(0, 3, 1, 2).contiguous()
        ordered = planes if self._network.channels == "bgr" else planes.flip(1)
        return ordered.float().div_(255).sub_(self._mean).div_(self._std)

    def _maps(self, pixels: Tensor) -> FeatureMaps:
        kind = self._options.autocast
        with torch.autocast(self._device.type, AUTOCAST.get(kind or ""), enabled=kind is not None):
            return self._network.maps(pixels)

    def _fetch(self, running: _Running) -> Iterator[tuple[int, ExtractionResult]]:
        """Each image's row and features, locations in the original image."""
        if running.done is not None:
            running.done.synchronize()
        for position, (row, inputs) in enumerate(zip(running.rows, running.batch, strict=True)):
            local = running.local[position]
            local = local.trim(int(local.counts))  # suppressed cells lie behind
            vector = None if running.vectors is None else running.vectors[position].numpy()
            if not _is_finite(local, vector):
                yield (
                    row,
                    "the network gave values that are not finite (float16? take bfloat16)",
                )
                continue
            placement = inputs[0].placement
            assert local.positions is not None
            places = local.positions.double() * torch.tensor([placement.input_height, placement.input_width])
            positions = placement.pixels(places) if self._options.pixels else placement.shares(places)
            yield row, ImageFeatures(replace(local, positions=positions.float()), vector)


class _Running(NamedTuple):
    rows: list[int]
    batch: list[_Prepared]
    local: LocalFeatures
    vectors: Tensor | None
    done: Any  # an event behind which the arrays above are there; None: they are


@torch.inference_mode()
def probe(network: MapBackbone, device: torch.device | str = "cpu") -> FeatureMaps:
    """The maps of a small black image: what the network offers, and how wide it is."""
    side = -(-_PROBED // network.multiple) * network.multiple
    return network.maps(torch.zeros(1, 3, side, side, device=device))


def _is_finite(local: LocalFeatures, vector: np.ndarray | None) -> bool:
    found = [local.descriptors] if local.weight is None else [local.descriptors, local.weight]
    whole = all(bool(torch.isfinite(x).all()) for x in found)
    return whole and (vector is None or bool(np.isfinite(vector).all()))


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """OpenCV within one thread, for the threads that call it are the parallel ones, and without its words on
    stderr about each damaged file: those are listed.
    """
    logging = cv2.utils.logging
    threads, level = cv2.getNumThreads(), logging.getLogLevel()
    cv2.setNumThreads(1)
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
        logging.setLogLevel(level)
