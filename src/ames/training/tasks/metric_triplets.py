"""The task of RAML's teachers: images of a class nearer than mined images of others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from ames.embedders.base import BOTH
from ames.embedders.checkpoints import save_embedders
from ames.embedders.network import GlobalNetwork
from ames.errors import AmesError
from ames.training.data.augmentation import Augmentation
from ames.training.data.class_groups import LABELS, draw, is_small, mine, others, pairs_of
from ames.training.data.photo_vectors import photo_vectors
from ames.training.data.photos import PhotoBatch, PhotoLoader, SquareView, TrainingPhotos
from ames.training.losses import hinge_losses
from ames.training.recipe import check_choice
from ames.training.task import Validation
from ames.training.tasks.network import NetworkRecipe, NetworkTask

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TripletRecipe(NetworkRecipe):
    """Margin, groups and negatives are the published ones; rate, epochs and batch are not known and are ours.

    margin: of squared distances. group: images of a class, each an anchor with all others as positives.
        negatives: of an anchor, drawn by distance from a random ``pool`` of images, at most.
    mining_labels: of the anchors, which mining excludes from the negatives: their "own", or as "released",
        where a small list (CUB, Cars196) passes wrong ones.
    batch_size: images of a batch, in whole groups of ``group`` * (1 + ``negatives``).
    """

    epochs: int = 50
    lr: float = 1e-5
    margin: float = 0.7
    group: int = 4
    negatives: int = 4
    pool: int = 20_000
    mining_labels: str = "released"
    batch_size: int = 80

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("mining_labels", self.mining_labels, LABELS)
        if not 0 < self.margin <= 4:
            raise AmesError(f"margin {self.margin} is outside (0, 4], the squared distances of unit vectors")
        if self.group < 2 or self.negatives < 1:
            raise AmesError("group must be at least 2, negatives at least 1")
        if self.batch_size < self.columns:
            raise AmesError(
                f"batch_size {self.batch_size} is less than one group: give {self.columns} or more"
            )
        if self.pool < self.negatives:
            raise AmesError(f"pool {self.pool} is smaller than negatives {self.negatives}")

    @property
    def columns(self) -> int:
        """The images of a group: its members, and the negatives of each."""
        return self.group * (1 + self.negatives)


class Mined(NamedTuple):
    """groups int64 [classes, group + group * negatives] of an epoch (``mine``). unreadable: how many of the
    images that were to be compared could not be read.
    """

    epoch: int
    groups: np.ndarray
    unreadable: int


class Groups(NamedTuple):
    """What could be read of G groups: photos; pairs bool [G, size, size - 1, negatives]: those that count."""

    photos: PhotoBatch
    pairs: np.ndarray


class MetricTriplets(NetworkTask):
    """Hinge loss on squared distances (``hinge_losses``): mean over an anchor's pairs, sum over anchors.

    Groups and negatives are drawn once an epoch, with the network as it is then. They are part of the state,
    so that a training resumes with the same. augmentation: of the views, None: that of the students. workers:
    threads that read ahead, a batch each.
    """

    unit = "anchors"
    recipe: TripletRecipe

    def __init__(
        self,
        model: GlobalNetwork,
        photos: TrainingPhotos,
        recipe: TripletRecipe,
        *,
        augmentation: Augmentation | None = None,
        workers: int = 0,
        validate: Callable[[GlobalNetwork], Validation] | None = None,
    ) -> None:
        if model.inputs.resize == "long":
            raise AmesError("the network resizes the long side: mining needs crops of one size (resize=crop)")
        drawn = self._draw(photos, recipe, 0)
        lone = int((np.bincount(photos.labels) == 1).sum())
        if lone:
            log.warning("%d of %d classes have one image, which can be no anchor", lone, photos.classes)
        loader = PhotoLoader(
            photos,
            SquareView(model.inputs.size, augmentation or Augmentation()),
            batch=recipe.batch_size // recipe.columns,
            items=len(drawn.members),
            seed=recipe.seed,
            workers=workers,
        )
        super().__init__(model, loader, recipe, validate)
        self.mined: Mined | None = None

    @staticmethod
    def _draw(photos: TrainingPhotos, recipe: TripletRecipe, epoch: int) -> Any:
        rng = np.random.default_rng([recipe.seed, 16, epoch])
        return draw(photos.labels, recipe.group, recipe.pool, rng)

    def epoch(self, number: int, start: int = 0) -> Iterator[Groups]:
        if self.mined is None or self.mined.epoch != number:
            self.mined = self._mine(number)
        groups = self.mined.groups
        part = np.array_split(np.arange(self.loader.batch), self.ranks.count)[self.ranks.rank]
        for place, batch in enumerate(self.photos(number, start, drawn=groups), start):
            present = np.zeros((len(part), groups.shape[1]), bool)
            present.reshape(-1)[batch.places] = True
            found = Groups(batch, pairs_of(present, self.recipe.group))
            if not self.ranks.all_reduce_max(self.count(found)):
                raise AmesError(
                    f"batch {place + 1} of epoch {number + 1} has no triplet that can be read: see the log, "
                    "or give a larger batch_size"
                )
            yield found

    def _mine(self, number: int) -> Mined:
        recipe, photos = self.recipe, self.loader.photos
        drawn = self._draw(photos, recipe, number)
        workers = self.loader.workers
        vectors = photo_vectors(self.model, photos, drawn.rows, ranks=self.ranks, workers=workers)
        anchors = int((drawn.members >= 0).sum())
        small = recipe.mining_labels == "released" and is_small(len(photos), anchors, recipe.pool)
        rng = np.random.default_rng([recipe.seed, 17, number])
        groups = self.ranks.broadcast_from_main(
            lambda: mine(drawn, vectors, photos.labels, negatives=recipe.negatives, small=small, rng=rng)
        )
        return Mined(number, groups, int((~vectors.readable).sum()))

    def loss(self, model: GlobalNetwork, batch: Groups) -> dict[str, Tensor]:
        size, device = self.recipe.group, self.ranks.device
        found = model(model.inputs.tensor(batch.photos.pixels, device)).float()
        groups = len(batch.pairs)
        places = torch.from_numpy(batch.photos.places).to(device)
        columns = self.recipe.columns
        # What could not be read is 0; its pairs do not count.
        vectors = found.new_zeros(groups * columns, model.dim).index_copy(0, places, found)
        vectors = vectors.unflatten(0, (groups, columns))
        anchors, negatives = vectors[:, :size], vectors[:, size:].unflatten(1, (size, -1))
        positives = anchors[:, torch.from_numpy(others(size)).to(device)]
        pairs = torch.from_numpy(batch.pairs).to(device)
        anchors, positives, negatives, pairs = (
            x.flatten(0, 1) for x in (anchors, positives, negatives, pairs)
        )
        losses = hinge_losses(anchors, positives, negatives, self.recipe.margin, pairs)
        return {"loss": losses.sum() / max(self.count(batch), 1)}

    def count(self, batch: Groups) -> int:
        return int(batch.pairs.any((2, 3)).sum())

    def report(self, batch: Groups) -> dict[str, Any]:
        rows = self.ranks.all_gather(batch.photos.rows).tolist()
        return {"images": [self.loader.photos.names[row] for row in rows]}

    def epoch_metrics(self) -> dict[str, float]:
        count = self.unreadable + (0 if self.mined is None else self.mined.unreadable)
        return {"unreadable": float(count)} if count else {}

    def state_dict(self) -> dict[str, Any]:
        mined = self.mined
        if mined is None:
            return super().state_dict()
        epoch, groups, unreadable = mined
        return super().state_dict() | {"mined": (epoch, torch.from_numpy(groups), unreadable)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if "mined" in state:
            epoch, groups, unreadable = state["mined"]
            self.mined = Mined(epoch, groups.numpy(), unreadable)

    def save(
        self, path: Path, model: GlobalNetwork, optimizer: Optimizer, epoch: int, about: dict[str, Any]
    ) -> None:
        save_embedders(path, {BOTH: model}, provenance={"epochs": epoch} | about)
