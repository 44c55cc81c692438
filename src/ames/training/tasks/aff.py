"""The task of AFF: a mixer of stored features for the gallery, and a light network for the query.

Wu, Wang, Zhou, Lu, Li: "Asymmetric Feature Fusion for Image Retrieval" (CVPR 2023). No code was released.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from ames.embedders.base import BOTH, GALLERY, QUERY, Embedder, FeatureEmbedder, ImageEmbedder
from ames.embedders.checkpoints import save_embedders
from ames.errors import AmesError
from ames.io.hashing import weights_digest
from ames.training.aff_loss import QUERY_LOSSES, compatible, contextual, regression
from ames.training.arcface import Classifier, arcface_logits
from ames.training.data.aff import AffBatch, AffLoader
from ames.training.distributed import zero_loss
from ames.training.recipe import Recipe, check_choice
from ames.training.task import Validation
from ames.training.tasks.unreadable import PhotoTask

STAGES = ("joint", "gallery", "query", "network")


@dataclass(frozen=True, kw_only=True)
class AffRecipe(Recipe):
    """The paper gives 20 epochs, SGD, a rate that falls linearly, alpha 0.99. All other values are proposals.

    stage: "joint" trains both sides; "gallery" the mixer alone, then "query" the network alone (two stages);
        "network" one network of images for both sides, with the classifier itself.
    lr: of mixer and classifier; query_lr: of the query network. weight_decay: of matrices. optimizer: "sgd",
        as in the paper, with Nesterov ``momentum`` (0: none), or "adamw", which learns more in few steps.
    margin, query_margin: of ArcFace, in radians, on the two sides. scale: of its logits, None: the square
        root of the embedding's width.
    alpha: of the momentum classifier, and of the momentum mixer that the other query losses compare with.
    query_loss: "arcface", "regression", "csd" or "lce" (``ames.training.aff_loss``).
    """

    epochs: int = 20
    lr: float = 0.01
    query_lr: float = 0.001
    weight_decay: float = 1e-4
    schedule: str = "linear"
    optimizer: str = "sgd"
    momentum: float = 0.9
    margin: float = 0.2
    query_margin: float = 0.2
    scale: float | None = None
    alpha: float = 0.99
    query_loss: str = "arcface"
    stage: str = "joint"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("query_loss", self.query_loss, QUERY_LOSSES)
        check_choice("stage", self.stage, STAGES)
        check_choice("optimizer", self.optimizer, ("sgd", "adamw"))
        if not 0 <= self.alpha < 1:
            raise AmesError(f"alpha {self.alpha} is outside [0, 1): 0.99 averages about 100 steps")
        for name in ("margin", "query_margin"):
            if not 0 <= getattr(self, name) < 1.5:
                raise AmesError(f"{name} {getattr(self, name)} is outside [0, 1.5) radians")
        if not 0 <= self.momentum < 1:
            raise AmesError(f"momentum {self.momentum} is outside [0, 1): 0.9 averages about 10 steps")
        if self.scale is not None and not self.scale > 0:
            raise AmesError(f"scale {self.scale} leaves nothing of a logit: give more, or null")
        if not self.lr > 0:
            raise AmesError(f"lr {self.lr} must be above 0: query_lr counts relative to it")
        if self.compile:
            raise AmesError("compile=true: torch.compile is not tried with AFF's losses; leave it out")


class AffModel(nn.Module):
    """What is trained together: the two sides (None: left out), the classifier, the mixer's momentum twin.

    classes: number of labels.
    """

    def __init__(self, gallery: FeatureEmbedder | None, query: ImageEmbedder | None, classes: int) -> None:
        super().__init__()
        first: Embedder | None = gallery if gallery is not None else query
        assert first is not None, "one side at least"
        if gallery is not None and query is not None and gallery.dim != query.dim:
            raise AmesError(f"the gallery side has {gallery.dim} dimensions, the query side {query.dim}")
        if gallery is not None and not list(gallery.parameters()):
            raise AmesError(f"{type(gallery).__name__} has no weights to train: evaluate it as it is")
        self.gallery, self.query = gallery, query
        self.classifier = Classifier(classes, first.dim)
        self.twin = None if gallery is None or query is None else copy.deepcopy(gallery).requires_grad_(False)
        self.dim = first.dim

    def train(self, mode: bool = True) -> AffModel:
        super().train(mode)
        if self.twin is not None:
            self.twin.eval()
        return self

    @torch.no_grad()
    def follow(self, alpha: float) -> None:
        """Move what has momentum towards what was trained."""
        self.classifier.follow(alpha)
        if self.twin is not None and self.gallery is not None:
            for slow, fast in zip(self.twin.parameters(), self.gallery.parameters(), strict=True):
                slow.lerp_(fast, 1 - alpha)

    def sides(self) -> dict[str, Embedder]:
        """Return the embedders by their side; one alone serves as both."""
        if self.gallery is not None and self.query is not None:
            return {GALLERY: self.gallery, QUERY: self.query}
        return {BOTH: self.gallery if self.query is None else self.query}  # type: ignore[dict-item]


class AffLosses(NamedTuple):
    """loss = mixer + query. accuracy: share of images whose class is the nearest row, without the margin, of
    the side that the stage trains last.
    """

    loss: Tensor
    mixer: Tensor
    query: Tensor
    accuracy: Tensor


class AffTask(PhotoTask[AffModel, AffBatch]):
    """L = ArcFace(mixer, W) + the query's loss with W's momentum twin (paper, eq. 6-9)."""

    unit = "images"
    recipe: AffRecipe

    def __init__(
        self,
        model: AffModel,
        loader: AffLoader,
        recipe: AffRecipe,
        *,
        validate: Callable[[AffModel], Validation] | None = None,
    ) -> None:
        super().__init__(model, recipe, validate)
        self.loader = loader
        if recipe.stage == "query":
            for module in (model.classifier, model.gallery):
                if module is not None:
                    module.requires_grad_(False)

    def make_optimizer(self) -> Optimizer:
        recipe, scale = self.recipe, self.recipe.query_lr / self.recipe.lr
        groups: list[dict[str, Any]] = []
        for part, rate in (
            (self.model.gallery, 1.0),
            (self.model.classifier, 1.0),
            (self.model.query, scale),
        ):
            if part is None:
                continue
            own = [x for x in part.parameters() if x.requires_grad]
            for decay, chosen in (
                (recipe.weight_decay, [x for x in own if x.ndim > 1]),
                (0.0, [x for x in own if x.ndim < 2]),
            ):
                if chosen:
                    groups.append({"params": chosen, "lr_scale": rate, "weight_decay": decay})
        if recipe.optimizer == "adamw":
            return AdamW(groups, lr=recipe.lr)
        return SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, number: int, start: int = 0) -> Iterator[AffBatch]:
        return self.counted(self.loader.epoch(number, start, self.ranks), start)

    def count(self, batch: AffBatch) -> int:
        return len(batch.rows)

    def loss(self, model: AffModel, batch: AffBatch) -> dict[str, Tensor]:
        batch, device = batch.to(self.ranks.device), self.ranks.device
        mixer = query = accuracy = batch.labels.new_zeros((), dtype=torch.float32)
        fused = seen = None
        if self.recipe.stage != "query" and model.gallery is not None and batch.features is not None:
            if len(batch.rows):
                with _drawn_from(batch.seed, device):
                    fused = model.gallery(batch.features).float()
            else:
                mixer = zero_loss(model.gallery, model.classifier)
        if model.query is not None and batch.pixels is not None:
            seen = model.query(batch.pixels).float()
        with torch.autocast(device.type, enabled=False):  # in 16 bits a cosine near 1 is 1
            if fused is not None:
                mixer, accuracy = self._arcface(fused, model.classifier.weight, batch, self.recipe.margin)
            if seen is not None:
                query, accuracy = self._query_loss(model, seen, batch)
        return AffLosses(mixer + query, mixer.detach(), query.detach(), accuracy)._asdict()

    def _query_loss(self, model: AffModel, vectors: Tensor, batch: AffBatch) -> tuple[Tensor, Tensor]:
        recipe, twin = self.recipe, model.classifier.twin
        if recipe.stage == "network":
            return self._arcface(vectors, model.classifier.weight, batch, recipe.query_margin)
        found, accuracy = self._arcface(vectors, twin, batch, recipe.query_margin)
        if recipe.query_loss == "arcface":
            return found, accuracy
        target = self._target(model, batch)
        whole, first = (target, 0) if recipe.query_loss != "csd" else self._of_all(target)
        if not len(vectors):
            return found, accuracy
        if recipe.query_loss == "regression":
            return regression(vectors, target), accuracy
        if recipe.query_loss == "csd":
            return contextual(vectors, whole, first), accuracy
        rows = twin if batch.classes is None else twin[batch.classes]
        return compatible(vectors, target, rows, batch.labels, scale=self._scale), accuracy

    @torch.no_grad()
    def _target(self, model: AffModel, batch: AffBatch) -> Tensor:
        """What query losses compare with: the images' vectors [B, d] of the gallery side."""
        side = model.gallery if self.recipe.stage == "query" else model.twin
        assert side is not None
        assert batch.features is not None
        if not len(batch.rows):
            return batch.labels.new_zeros((0, model.dim), dtype=torch.float32)
        return side.eval()(batch.features).float()

    def _of_all(self, vectors: Tensor) -> tuple[Tensor, int]:
        """Vectors [N, d] of all processes, in their order, and the row at which this one's begin."""
        counts = self.ranks.all_gather(np.array([len(vectors)]))
        whole = torch.from_numpy(self.ranks.all_gather(vectors.T.cpu().numpy()).T.copy())
        return whole.to(vectors.device), int(counts[: self.ranks.rank].sum())

    @property
    def _scale(self) -> float:
        return self.recipe.scale or self.model.dim**0.5

    def _arcface(
        self, vectors: Tensor, weight: Tensor, batch: AffBatch, margin: float
    ) -> tuple[Tensor, Tensor]:
        """The loss of one side, and its accuracy without the margin."""
        if not len(vectors):  # in one of several processes: nothing of its part could be read
            nothing = vectors.sum() + weight[:0].sum()
            return nothing, nothing.detach()
        rows = weight if batch.classes is None else weight[batch.classes]
        logits = arcface_logits(vectors, rows, batch.labels, margin=margin, scale=self._scale)
        with torch.no_grad():
            nearest = (F.normalize(vectors, dim=-1) @ F.normalize(rows, dim=-1).mT).argmax(1)
            accuracy = (nearest == batch.labels).float().mean()
        return F.cross_entropy(logits, batch.labels), accuracy

    def after_step(self) -> None:
        if self.recipe.stage != "query":
            self.model.follow(self.recipe.alpha)

    def report(self, batch: AffBatch) -> dict[str, Any]:
        return {"rows": self.ranks.all_gather(batch.rows).tolist()}

    def identity(self) -> dict[str, Any]:
        sides = {
            name: {"class": type(one).__name__} | one.arguments for name, one in self.model.sides().items()
        }
        frozen = {} if self.recipe.stage != "query" else {"classifier": weights_digest(self.model.classifier)}
        return {"loader": self.loader.settings(), "sides": sides} | frozen

    def save(
        self, path: Path, model: AffModel, optimizer: Optimizer, epoch: int, about: dict[str, Any]
    ) -> None:
        """A file of both sides; after the first of two stages also the classifier, which the second reads."""
        extra = {}
        if self.recipe.stage == "gallery":
            extra = {"classifier.weight": model.classifier.weight.detach()}
        save_embedders(path, model.sides(), provenance={"epochs": epoch} | about, extra=extra)


@contextmanager
def _drawn_from(seed: int, device: torch.device) -> Iterator[None]:
    """Draw dropout from a batch's own seed, so that a training that was resumed draws the same."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
