"""Features of images by a backbone that takes one at a time, in this process or in several."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

import cv2
import numpy as np
import torch

from ames.backbones.base import Backbone, ImageFeatures
from ames.datasets.images import UnreadableImage
from ames.descriptors.provenance import Provenance
from ames.errors import AmesError
from ames.extraction.base import BaseExtractor, ExtractionResult, ImageRegion
from ames.extraction.config import KEYPOINTS, ExtractionConfig
from ames.extraction.preprocessing import whole_pixels
from ames.features import LocalFeatures
from ames.io.prefetch import in_order

_TAKEN = 16  # images a worker takes at a time
_AHEAD = 4  # times that many a worker are done, or begun, before they are asked for


ExtractOne = Callable[[ImageRegion], ExtractionResult]
Mapper = Callable[[Sequence[ImageRegion]], Iterator[ExtractionResult]]


class PoolExtractor(BaseExtractor):
    """The strongest descriptors of ``backbone``, by ``config.workers`` processes beside this one."""

    def __init__(self, backbone: Backbone, config: ExtractionConfig | None = None) -> None:
        config = config or ExtractionConfig()
        config = replace(config, desc_num=config.desc_num or KEYPOINTS)
        made = Provenance.from_dict(backbone.provenance() | {"descriptors": config.desc_num})
        super().__init__(
            backbone, config, local_dim=backbone.local_dim, global_dim=backbone.global_dim, made=made
        )
        self._backbone = backbone

    def chunks(
        self, photos: Sequence[ImageRegion], size: int, tick: Callable[[], object] = lambda: None
    ) -> Iterator[list[ExtractionResult]]:
        """As the interface says. Locations are shares of the whole image, for boxes too."""
        config = self.config
        one = partial(_extract_one, self._backbone, self.rows.slots, config.max_pixels)
        with _mapper(one, min(config.workers, -(-len(photos) // _TAKEN))) as mapper:
            found = _ticked(mapper(photos), tick)
            while chunk := list(islice(found, size)):
                yield chunk


def _ticked(results: Iterator[ExtractionResult], tick: Callable[[], object]) -> Iterator[ExtractionResult]:
    for result in results:
        tick()
        yield result


@contextlib.contextmanager
def _mapper(one: ExtractOne, workers: int) -> Iterator[Mapper]:
    """``one`` of every region, in order, by so many processes; 0: in this one."""
    if not workers:
        yield partial(map, one)
        return
    context = get_context("spawn")
    # Not among what a process is started with: one that died over it would be waited for without end.
    reader, writer = context.Pipe(duplex=False)
    copies = threading.Thread(target=_send_copies, args=(writer, _pickled(one), workers), daemon=True)
    copies.start()
    ended = context.RawValue("b", 0)  # without a lock, which a worker that is killed could hold
    pool = ProcessPoolExecutor(workers, context, _start_worker, (reader, context.Lock(), ended))
    try:
        yield lambda photos: map(_received, _by_workers(pool, photos, _AHEAD * workers))
    except BrokenProcessPool as error:
        raise AmesError("a worker process died, perhaps for lack of memory: use fewer workers") from error
    finally:
        ended.value = 1
        pool.shutdown(cancel_futures=True)
        reader.close()  # no worker is left: the thread ends, even if nobody took its copies
        copies.join()


def _pickled(one: ExtractOne) -> bytes:
    return bytes(ForkingPickler.dumps(one))


def _send_copies(writer: Connection, copy: bytes, count: int) -> None:
    # No queue, whose thread frees semaphores at its end, late enough to be reported as leaked.
    with writer, contextlib.suppress(BrokenPipeError):
        for _ in range(count):
            writer.send_bytes(copy)


def _by_workers(
    pool: ProcessPoolExecutor, photos: Sequence[ImageRegion], reach: int
) -> Iterator[_Sent | str]:
    """What workers send, in order; ``reach`` bounds their tasks, for results that wait are in memory."""

    def submit(first: int) -> Future[list[_Sent | str]]:
        with _interruptions_held():
            return pool.submit(_in_worker, photos[first : first + _TAKEN])

    for task in in_order(submit, range(0, len(photos), _TAKEN), reach):
        yield from task


@contextlib.contextmanager
def _interruptions_held() -> Iterator[None]:
    """Delay Ctrl-C to the end of the block, lest it leave a pool half made.

    The terminal sends it to all processes; those that start in the block never get it: this one ends them.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    held: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: held.append(number))  # any thread receives it
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which processes inherit
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler or signal.SIG_DFL)
        if held:
            signal.raise_signal(signal.SIGINT)


def _extract_one(backbone: Backbone, count: int, max_pixels: int, photo: ImageRegion) -> ExtractionResult:
    try:
        image = photo.read(max_pixels)
        if photo.box is None:
            return _sized(backbone.extract(image, count), image)
        top, left, bottom, right = whole_pixels(photo.box, *image.shape[:2])
    except UnreadableImage as error:
        return str(error)
    found = backbone.extract(np.ascontiguousarray(image[top:bottom, left:right]), count)
    if found.local.positions is None:
        return _sized(found, image)
    positions = found.local.positions * torch.tensor([bottom - top, right - left]) + torch.tensor([top, left])
    positions = positions / torch.tensor(image.shape[:2])
    return _sized(replace(found, local=replace(found.local, positions=positions)), image)


def _sized(found: ImageFeatures, image: np.ndarray) -> ImageFeatures:
    """With the size of the whole image."""
    size = torch.tensor(image.shape[:2], dtype=torch.float32)
    return replace(found, local=replace(found.local, image_size=size))


_worker: ExtractOne
_ended: Any  # its value: whether nobody wants results any more


def _start_worker(copies: Connection, reading: Any, ended: Any) -> None:
    global _worker, _ended
    _ended = ended
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with reading:
        copy = copies.recv_bytes()
    _worker = pickle.loads(copy)
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # damaged files are listed
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """A worker of a process that was killed would wait for tasks forever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# Tensors would travel between processes as shared memory files, thousands of them: arrays are copied.
_Sent = tuple[dict[str, np.ndarray], np.ndarray | None]


def _in_worker(photos: Sequence[ImageRegion]) -> list[_Sent | str]:
    return [_sent(_worker(photo)) for photo in photos if not _ended.value]


def _sent(result: ExtractionResult) -> _Sent | str:
    if isinstance(result, str):
        return result
    arrays = {k: x.numpy() for k, x in vars(result.local).items() if isinstance(x, torch.Tensor)}
    return arrays, result.vector


def _received(sent: _Sent | str) -> ExtractionResult:
    if isinstance(sent, str):
        return sent
    arrays, vector = sent
    tensors: dict[str, Any] = {k: torch.from_numpy(x) for k, x in arrays.items()}
    return ImageFeatures(LocalFeatures(**tensors), vector)
