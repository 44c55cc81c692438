"""The task of RAML: a student at a low resolution learns the space of a frozen teacher at a high one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ames.embedders.base import GALLERY, QUERY, ImageEmbedder
from ames.embedders.checkpoints import save_embedders
from ames.embedders.network import GlobalNetwork
from ames.errors import AmesError
from ames.io.hashing import weights_digest
from ames.training.data.asymmetric_views import SEEDS, CentreViews, MixedViews
from ames.training.data.augmentation import Augmentation
from ames.training.data.photos import PhotoBatch, PhotoLoader, TrainingPhotos
from ames.training.distributed import Ranks
from ames.training.raml_loss import raml_losses
from ames.training.recipe import check_choice
from ames.training.task import Validation
from ames.training.tasks.network import NetworkRecipe, NetworkTask


@dataclass(frozen=True, kw_only=True)
class RamlRecipe(NetworkRecipe):
    """The defaults are those published for Stanford Online Products.

    variant: "ts_aug" (augmented views, all three terms) or "ts_reg" (one centre crop, the first term alone).
    batch_size: images of a batch. epoch_images: of an epoch, at most. views, mixup, seeds: of ``MixedViews``.
    """

    epochs: int = 200
    lr: float = 1.7579e-4
    accumulate: int = 25
    variant: str = "ts_aug"
    lam_1: float = 0.7482
    lam_2: float = 0.6778
    batch_size: int = 8
    epoch_images: int = 8000
    views: int = 8
    mixup: float = 0.2
    seeds: str = "independent"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("variant", self.variant, ("ts_aug", "ts_reg"))
        check_choice("seeds", self.seeds, SEEDS)
        if min(self.lam_1, self.lam_2, self.mixup) < 0:
            raise AmesError("lam_1, lam_2 and mixup must be at least 0")
        if min(self.views, self.batch_size, self.epoch_images) < 1:
            raise AmesError("views, batch_size and epoch_images must be at least 1")


class RamlTask(NetworkTask):
    """A student ``model`` learns from ``teacher`` on photos (``raml_losses``). The file holds both: the
    student as the query side, the teacher as the gallery side.

    augmentation: of the views, None: the published one. workers: threads that read ahead, a batch each.
    """

    unit = "images"
    recipe: RamlRecipe

    def __init__(
        self,
        model: GlobalNetwork,
        teacher: ImageEmbedder,
        photos: TrainingPhotos,
        recipe: RamlRecipe,
        *,
        augmentation: Augmentation | None = None,
        workers: int = 0,
        validate: Callable[[GlobalNetwork], Validation] | None = None,
    ) -> None:
        if teacher.dim != model.dim:
            raise AmesError(
                f"the teacher's vectors are {teacher.dim}-d, the student's {model.dim}-d: give equal dim"
            )
        if recipe.mixup and recipe.variant == "ts_aug" and len(photos) < 2:
            raise AmesError("mixup needs at least 2 images")
        items = min(recipe.epoch_images, len(photos))
        views = _views(model, teacher, recipe, augmentation or Augmentation())
        size, seed = recipe.batch_size, recipe.seed
        loader = PhotoLoader(photos, views, batch=size, items=items, seed=seed, workers=workers)
        super().__init__(model, loader, recipe, validate)
        self.teacher = teacher.eval().requires_grad_(False)

    def start(self, ranks: Ranks) -> None:
        super().start(ranks)
        self.teacher.to(ranks.device)

    def epoch(self, number: int, start: int = 0) -> Iterator[PhotoBatch]:
        return self.photos(number, start)

    def loss(self, model: GlobalNetwork, batch: PhotoBatch) -> dict[str, Tensor]:
        small, large, shares = batch.arrays
        device = self.ranks.device
        share = torch.from_numpy(shares).to(device)
        with torch.no_grad():
            wanted = self.teacher(_pixels(self.teacher, large, share)).float()
        found = model(_pixels(model, small, share)).float()
        weights = (self.recipe.lam_1, self.recipe.lam_2) if self.recipe.variant == "ts_aug" else (0.0, 0.0)
        student, target = (x.unflatten(0, shares.shape) for x in (found, wanted))
        losses = raml_losses(student, target, lam_1=weights[0], lam_2=weights[1])
        return {name: x / max(len(shares), 1) for name, x in losses._asdict().items()}

    def count(self, batch: PhotoBatch) -> int:
        return len(batch.rows)

    def report(self, batch: PhotoBatch) -> dict[str, Any]:
        return {
            "images": [self.loader.photos.names[row] for row in self.ranks.all_gather(batch.rows).tolist()]
        }

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"teacher": weights_digest(self.teacher)}

    def save(
        self, path: Path, model: GlobalNetwork, optimizer: Optimizer, epoch: int, about: dict[str, Any]
    ) -> None:
        sides = {QUERY: model, GALLERY: self.teacher}
        save_embedders(path, sides, space=self.teacher.space, provenance={"epochs": epoch} | about)


def _views(
    model: GlobalNetwork, teacher: ImageEmbedder, recipe: RamlRecipe, augmentation: Augmentation
) -> MixedViews | CentreViews:
    if recipe.variant == "ts_reg":
        for name, one in (("student", model), ("teacher", teacher)):
            if one.inputs.resize == "long":
                raise AmesError(
                    f"the {name} resizes the long side: ts_reg needs crops of one size (resize=crop)"
                )
        return CentreViews(model.inputs, teacher.inputs)
    chosen: dict[str, Any] = {"views": recipe.views, "mixup": recipe.mixup, "seeds": recipe.seeds}
    return MixedViews(model.inputs.size, teacher.inputs.size, augmentation=augmentation, **chosen)


def _pixels(network: ImageEmbedder, arrays: Any, share: Tensor) -> Tensor:
    """Return the normalized input float32 [n * P, 3, H, W] of uint8 [n, P, k, H, W, 3] and shares [n, P]:
    with k = 2, share * first + (1 - share) * second.
    """
    first, *second = (
        network.inputs.tensor(arrays[:, :, i].reshape(-1, *arrays.shape[3:]), share.device)
        for i in range(arrays.shape[2])
    )
    return first if not second else second[0].lerp(first, share.reshape(-1, 1, 1, 1))
