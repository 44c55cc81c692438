"""Batches of images for training: read from a list, in a seeded order, as augmented views.

An image that cannot be read is named in the log once, left out of its batch, and counted.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ames.datasets.images import UnreadableImage, read_image
from ames.datasets.lists import check_all_exist, list_digest
from ames.errors import AmesError
from ames.io.prefetch import ahead
from ames.training.data.augmentation import Augmentation
from ames.training.distributed import Ranks

log = logging.getLogger(__name__)

Draws = Callable[[int], np.random.Generator]  # by the number of a view


class TrainingPhotos:
    """Images ``names`` under ``root``, with a label each; nothing is kept in memory.

    labels: of any values that can be sorted, one an image; as an attribute they are int64 [n], from 0.
    classes: how many there are.
    """

    def __init__(self, root: Path | str, names: Sequence[str], labels: Sequence[Any] | np.ndarray) -> None:
        if not len(names) or len(names) != len(labels):
            raise AmesError(f"{len(names)} images and {len(labels)} labels: give one label for each image")
        self.root, self.names = Path(root), list(names)
        check_all_exist(self.root, self.names)
        found, numbers = np.unique(np.asarray(labels), return_inverse=True)
        self.labels, self.classes = numbers.reshape(-1).astype(np.int64), len(found)
        self._found: dict[int, str] = {}
        self._named: set[int] = set()

    def __len__(self) -> int:
        return len(self.names)

    def read(self, row: int) -> np.ndarray:
        """Return an image as uint8 [H, W, 3] BGR; an UnreadableImage is noted for ``report``.

        Threads may call it.
        """
        try:
            return read_image(self.path(row))
        except UnreadableImage as error:
            self.note(row, str(error))
            raise

    def path(self, row: int) -> Path:
        """Return where an image is."""
        return self.root / self.names[row]

    def note(self, row: int, reason: str) -> None:
        """Note why an image is left out, for ``report``."""
        if row not in self._named:
            self._found[row] = reason

    @property
    def unreported(self) -> int:
        """The number of images that could not be read since ``report``."""
        return len(self._found)

    def report(self, ranks: Ranks) -> None:
        """Name in the first process's log what no report named before. All ``ranks`` call it together."""
        lines = []
        for row in sorted(self._found.copy()):  # threads add to it
            lines.append(f"{row}\n{self._found.pop(row)}")
        for line in np.unique(ranks.all_gather(np.array(lines, dtype=object))).tolist():
            number, reason = line.split("\n", 1)
            if int(number) not in self._named and ranks.is_main:
                log.warning("%s: left out: %s", self.path(int(number)), reason)
            self._named.add(int(number))

    def settings(self) -> dict[str, Any]:
        """What identifies the list."""
        labels = zlib.crc32(np.ascontiguousarray(self.labels).tobytes())
        return {"images": list_digest(self.names), "labels": labels}


class Views(Protocol):
    """What becomes of an image: a dataclass, whose fields are part of a training's settings."""

    def __call__(self, photos: TrainingPhotos, row: int, draws: Draws) -> tuple[np.ndarray, ...]:
        """Return arrays of equal shapes for all rows; UnreadableImage where the image cannot be read.

        draws: a new generator for each number of a view. It depends on the seed, the epoch, the row and that
        number alone.
        """

    def nothing(self) -> tuple[np.ndarray, ...]:
        """Return the arrays of no image, [0, ...] each."""


@dataclass(frozen=True)
class SquareView:
    """One augmented view: uint8 [size, size, 3] BGR."""

    size: int
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __call__(self, photos: TrainingPhotos, row: int, draws: Draws) -> tuple[np.ndarray, ...]:
        image = photos.read(row)
        return (self.augmentation.draw(draws(0), *image.shape[:2]).apply(image, self.size),)

    def nothing(self) -> tuple[np.ndarray, ...]:
        return (np.empty((0, self.size, self.size, 3), np.uint8),)


class PhotoBatch(NamedTuple):
    """What could be read of one process's part of a batch.

    rows int64 [B']: of the list. places int64 [B']: among the images of the part, counted item by item where
    an item has several. arrays: those of ``Views``, stacked to [B', ...]. left_out: images of the whole batch
    that could not be read. B' may be 0 in one of several processes, but never in all of them: a loss must
    then be 0, not a mean of nothing.
    """

    rows: np.ndarray
    places: np.ndarray
    arrays: tuple[np.ndarray, ...]
    left_out: int = 0

    @property
    def pixels(self) -> np.ndarray:
        """The first of ``arrays``."""
        return self.arrays[0]


class PhotoLoader:
    """Batches of ``batch`` items, an image each by default, in the views that ``views`` makes.

    items: of an epoch (None: all images). workers: threads that read ahead, a batch each; at most workers + 1
    batches are in memory. The same seed gives the same batches, whatever the workers and processes; every
    epoch differs.
    """

    def __init__(
        self,
        photos: TrainingPhotos,
        views: Views,
        *,
        batch: int,
        items: int | None = None,
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        self.photos, self.views, self.seed, self.workers = photos, views, seed, workers
        self.items = len(photos) if items is None else items
        if batch < 1 or self.items < 1:
            raise AmesError(f"batch {batch} and items {self.items} of an epoch must be at least 1")
        self.batch = min(batch, self.items)

    def __len__(self) -> int:
        """The number of batches of an epoch; a short rest is left out."""
        return self.items // self.batch

    def order(self, epoch: int) -> np.ndarray:
        """Return the rows of an epoch, int64 [items]: the first of a permutation of all."""
        rng = np.random.default_rng([self.seed, 13, epoch])
        return rng.permutation(len(self.photos))[: self.items]

    def epoch(
        self, number: int, start: int = 0, ranks: Ranks | None = None, drawn: np.ndarray | None = None
    ) -> Iterator[PhotoBatch]:
        """Yield the batches of epoch ``number`` (from 0), from its batch ``start`` on.

        All ``ranks`` (None: this process alone) iterate together. Each reads its part of a batch
        (``np.array_split``). drawn: the items in their order, int64 [items, k] for items of k images or
        fewer, -1 where there is none (None: ``order``). AmesError where a process would have no item, and in
        all processes where nothing of a batch can be read.
        """
        ranks = ranks or Ranks()
        if self.batch < ranks.count:
            raise AmesError(
                f"a batch of {self.batch} images cannot be shared by {ranks.count} ranks: give a larger one"
            )
        drawn = self.order(number) if drawn is None else drawn
        part = np.array_split(np.arange(self.batch), ranks.count)[ranks.rank]
        parts = (drawn[i * self.batch + part] for i in range(len(self)))
        found = ahead(partial(self._read, number), islice(parts, start, None), self.workers)
        for place, batch in enumerate(found, start):
            wanted = int((drawn[place * self.batch : (place + 1) * self.batch] >= 0).sum())
            read, new = ranks.all_reduce_sum([len(batch.rows), self.photos.unreported])
            if new:
                self.photos.report(ranks)
            if not read:
                raise AmesError(
                    f"{self.photos.root}: none of the {wanted} images of batch {place + 1} of epoch "
                    f"{number + 1} can be read: see the log"
                )
            yield batch._replace(left_out=wanted - int(read))

    def settings(self) -> dict[str, Any]:
        """What the batches depend on, as JSON can hold it."""
        views = {"views": type(self.views).__name__} | asdict(self.views)  # type: ignore[call-overload]
        return {"seed": self.seed, "batch": self.batch, "items": self.items} | views | self.photos.settings()

    def _read(self, epoch: int, drawn: np.ndarray) -> PhotoBatch:
        rows, places, arrays = [], [], []
        columns = 1 if drawn.ndim == 1 else drawn.shape[1]
        for place, row in enumerate(drawn.reshape(-1).tolist()):
            if row < 0:
                continue
            key = [self.seed, 14, epoch, row, place % columns]
            try:
                arrays.append(self.views(self.photos, row, partial(_generator, key)))
            except UnreadableImage:
                continue
            rows.append(row)
            places.append(place)
        stacked = tuple(np.stack(x) for x in zip(*arrays, strict=True)) or self.views.nothing()
        return PhotoBatch(np.array(rows, np.int64), np.array(places, np.int64), stacked)


def _generator(key: list[int], view: int) -> np.random.Generator:
    return np.random.default_rng([*key, view])
