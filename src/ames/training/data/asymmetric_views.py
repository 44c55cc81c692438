"""Views of an image at two resolutions, for a student and its teacher (RAML)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ames.datasets.images import UnreadableImage
from ames.embedders.inputs import InputSpec
from ames.training.data.augmentation import Augmentation
from ames.training.data.photos import Draws, TrainingPhotos

SEEDS = ("independent", "chained")
_TRIES = 10  # to find a partner that can be read
_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class MixedViews:
    """``views`` augmented views, each mixed with another image of the list (mixup).

    The arrays are student uint8 [views, k, student, student, 3], teacher [views, k, teacher, teacher, 3] and
    share float32 [views]: k is 2, the image and its partner, to be mixed as share * image + (1 - share) *
    partner. Without mixup k is 1.

    A view has a seed, which gives the crop, the flip and the colours, at both resolutions and of the partner,
    and with them the share and the partner. mixup: both parameters of the share's Beta distribution (0: no
    partner). seeds: of the views of an image, "independent", or "chained": each follows from the one before.
    """

    student: int
    teacher: int
    views: int = 8
    mixup: float = 0.2
    seeds: str = "independent"
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __call__(self, photos: TrainingPhotos, row: int, draws: Draws) -> tuple[np.ndarray, ...]:
        image = photos.read(row)
        small, large, shares = [], [], []
        for seed, rng in self._seeded(draws):
            share = rng.beta(self.mixup, self.mixup) if self.mixup else 1.0
            mixed = [image, _partner(photos, row, rng)] if self.mixup else [image]
            views = [self.augmentation.draw(np.random.default_rng(seed), *x.shape[:2]) for x in mixed]
            small.append([view.apply(x, self.student) for view, x in zip(views, mixed, strict=True)])
            large.append([view.apply(x, self.teacher) for view, x in zip(views, mixed, strict=True)])
            shares.append(share)
        return np.array(small), np.array(large), np.array(shares, np.float32)

    def _seeded(self, draws: Draws) -> Iterator[tuple[int, np.random.Generator]]:
        """Yield the seed of each view, and a generator for what else is drawn with it."""
        following = 0
        for number in range(self.views):
            seed = following
            if number == 0 or self.seeds == "independent":
                seed = int(draws(number).integers(_LARGEST))
            rng = np.random.default_rng([seed, 1])
            following = int(rng.integers(_LARGEST))
            yield seed, rng

    def nothing(self) -> tuple[np.ndarray, ...]:
        head = (0, self.views, 2 if self.mixup else 1)
        small, large = (np.empty((*head, size, size, 3), np.uint8) for size in (self.student, self.teacher))
        return small, large, np.empty((0, self.views), np.float32)


@dataclass(frozen=True)
class CentreViews:
    """One view: the image as in a test, without mixup. The arrays are as those of ``MixedViews``."""

    student: InputSpec
    teacher: InputSpec

    def __call__(self, photos: TrainingPhotos, row: int, draws: Draws) -> tuple[np.ndarray, ...]:
        image = photos.read(row)
        small, large = (spec.fit(image)[None, None] for spec in (self.student, self.teacher))
        return small, large, np.ones(1, np.float32)

    def nothing(self) -> tuple[np.ndarray, ...]:
        small, large = (
            np.empty((0, 1, 1, spec.size, spec.size, 3), np.uint8) for spec in (self.student, self.teacher)
        )
        return small, large, np.empty((0, 1), np.float32)


def _partner(photos: TrainingPhotos, row: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random other image, of any label. UnreadableImage where ten in a row cannot be read."""
    for _ in range(_TRIES):
        other = int(rng.integers(len(photos) - 1))
        try:
            return photos.read(other + (other >= row))
        except UnreadableImage:
            continue
    raise UnreadableImage("no partner of it can be read")
