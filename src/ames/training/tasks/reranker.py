"""What the tasks of all re-rankers share: batches from a loader, and a checkpoint of the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch.optim import Optimizer

from ames.models.base import Similarity
from ames.models.checkpoints import describe_model, save_checkpoint
from ames.training.data.loader import BatchLoader
from ames.training.recipe import Recipe
from ames.training.task import Task, Validation

Model = TypeVar("Model", bound=Similarity)
Batch = TypeVar("Batch")


class RerankerTask(Task[Model, Batch]):
    """A model that scores local descriptors, and a loader of its batches."""

    def __init__(
        self,
        model: Model,
        loader: BatchLoader[Any],
        recipe: Recipe,
        validate: Callable[[Model], Validation] | None = None,
    ) -> None:
        super().__init__(model, recipe, validate)
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def identity(self) -> dict[str, Any]:
        return {"loader": self.loader.settings(), **describe_model(self.model)}

    def save(self, path: Path, model: Model, optimizer: Optimizer, epoch: int, about: dict[str, Any]) -> None:
        save_checkpoint(path, model, optimizer=optimizer, epoch=epoch, provenance=about)
