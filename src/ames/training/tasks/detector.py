"""The task of the feature detector: triplets of images, compared by their global descriptors.

The recipe of the published detectors is not known. This one is the library's own: the detector's weights are
attention (DELF, Noh et al., ICCV 2017; DELG, Cao et al., ECCV 2020), the weighted sum of local descriptors
represents its image (HOW, Tolias et al., ECCV 2020), and triplets of images are the only supervision. The
backbone is frozen: its features come from files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from ames.backbones.detector import SpatialAttention, global_descriptor, save_detector
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.training.distributed import Ranks
from ames.training.recipe import Recipe
from ames.training.task import Task, Validation


class Triplets(Protocol):
    """B triplets of images, each [B, N, D]: features as the frozen backbone returns them. ``images``, numbers
    int [2 + n, B], may be missing: they name an image with a descriptor that is not finite.
    """

    @property
    def anchor(self) -> LocalFeatures: ...
    @property
    def positive(self) -> LocalFeatures: ...
    @property
    def negatives(self) -> LocalFeatures: ...


class Loader(Protocol):
    """Where batches come from: ``ames.training.data.loader.TripletLoader``, or features made on the fly."""

    def __len__(self) -> int: ...

    def epoch(self, number: int, start: int, ranks: Ranks) -> Iterator[Triplets]:
        """As ``Task.epoch``, the parts of this process of ``ranks``."""

    def settings(self) -> dict[str, object]:
        """What the batches depend on, as JSON can hold it."""


@dataclass(frozen=True, kw_only=True)
class DetectorRecipe(Recipe):
    """margin: how much farther than the positive the negative has to be, in squared distance of unit vectors
    (0 ... 4).
    """

    epochs: int = 10
    lr: float = 1e-3
    margin: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compile:
            raise AmesError("compile=true: torch.compile cannot take a detector's loss; leave it out")
        if not 0 < self.margin <= 4:
            raise AmesError(f"margin {self.margin} is outside (0, 4], the squared distances of unit vectors")


class DeviceTriplets(NamedTuple):
    """Triplets on the device of the detector."""

    anchor: LocalFeatures
    positive: LocalFeatures
    negatives: LocalFeatures
    images: np.ndarray | None


class DetectorTask(Task[SpatialAttention, DeviceTriplets]):
    """Triplet loss on global descriptors. Batch normalization sees the images of all processes."""

    unit = "triplets"
    recipe: DetectorRecipe

    def __init__(
        self,
        model: SpatialAttention,
        loader: Loader,
        recipe: DetectorRecipe,
        *,
        validate: Callable[[SpatialAttention], Validation] | None = None,
    ) -> None:
        super().__init__(model, recipe, validate)
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, number: int, start: int = 0) -> Iterator[DeviceTriplets]:
        for batch in self.loader.epoch(number, start, self.ranks):
            sides = (batch.anchor, batch.positive, batch.negatives)
            anchor, positive, negatives = (x.to(self.ranks.device) for x in sides)
            yield DeviceTriplets(anchor, positive, negatives, getattr(batch, "images", None))

    def loss(self, model: SpatialAttention, batch: DeviceTriplets) -> dict[str, Tensor]:
        return triplet_losses(model, batch, self.recipe.margin)._asdict()

    def count(self, batch: DeviceTriplets) -> int:
        return len(batch.anchor.valid)

    def problem(self, batch: DeviceTriplets) -> str | None:
        """Name the first image with a descriptor that is not finite, which would spoil batch normalization's
        running statistics.
        """
        finite = torch.cat([(x.descriptors.isfinite().all(-1) | ~x.valid).all(-1) for x in batch[:3]])
        if bool(finite.all()):
            return None
        place, B = int(finite.logical_not().nonzero()[0]), self.count(batch)
        name = f"the {('anchor', 'positive', 'negative')[min(place // B, 2)]} of triplet {place % B}"
        if batch.images is not None:
            name = f"image {int(batch.images.reshape(-1)[place])}"
        return f"{name} has a descriptor that is not finite: extract it again"

    def identity(self) -> dict[str, Any]:
        return {"loader": self.loader.settings(), "width": self.model.width}

    def save(
        self, path: Path, model: SpatialAttention, optimizer: Optimizer, epoch: int, about: dict[str, Any]
    ) -> None:
        save_detector(path, model, provenance={"epochs": epoch} | about)


class TripletLosses(NamedTuple):
    """loss is what is minimized; accuracy: the share of triplets whose positive is nearer."""

    loss: Tensor
    accuracy: Tensor


def triplet_losses(detector: SpatialAttention, batch: Triplets, margin: float) -> TripletLosses:
    """Mean of max(0, |a - p|^2 - |a - n|^2 + margin) over the global descriptors of B triplets; with several
    negatives, over each of them.

    The three pass the detector together, so that batch normalization sees one set of images.
    """
    with torch.autocast(batch.anchor.valid.device.type, enabled=False):  # bfloat16 cannot join stored float16
        features = LocalFeatures.cat((batch.anchor, batch.positive, batch.negatives))
    projected, weights = detector.locations(features.descriptors, features.valid)
    images = global_descriptor(projected, weights).float().unflatten(0, (-1, len(batch.anchor.valid)))
    anchor, positive, negatives = images[0], images[1], images[2:]  # [B, D], [B, D], [n, B, D]
    near = (anchor - positive).square().sum(-1)
    far = (anchor - negatives).square().sum(-1)
    return TripletLosses(F.relu(near - far + margin).mean(), (near < far).float().mean().detach())
