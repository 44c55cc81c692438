"""What a trainer needs to know of a task: batches, loss, validation, and the file of the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ames.training.distributed import Ranks
from ames.training.recipe import Recipe

Model = TypeVar("Model", bound=nn.Module)
Batch = TypeVar("Batch")


class Validation(NamedTuple):
    """metrics: added to the record of the epoch. score: the model with the highest is kept as the best (None:
    not this one). about: added to the description in the model's file until the next validation, plain data.
    """

    metrics: Mapping[str, float]
    score: float | None = None
    about: Mapping[str, Any] | None = None


class Task(ABC, Generic[Model, Batch]):
    """What is trained, and on what; ``Trainer`` does the rest. A new task is one file with a subclass.

    model: trained in place. validate: gets the model in evaluation mode, in the first process alone (None: no
    validation). ranks: the processes that train together, this one alone until ``start``. unit: of what
    ``count`` is the number.
    """

    unit = "items"

    def __init__(
        self, model: Model, recipe: Recipe, validate: Callable[[Model], Validation] | None = None
    ) -> None:
        self.model, self.recipe, self.validate = model, recipe, validate
        self.ranks = Ranks()

    def start(self, ranks: Ranks) -> None:
        """Join ``ranks`` and move to this process's device."""
        self.ranks = ranks
        self.model.to(ranks.device)

    @abstractmethod
    def __len__(self) -> int:
        """The number of batches of an epoch, equal in all processes."""

    @abstractmethod
    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """This process's parts of the batches of epoch ``number`` (from 0), from batch ``start`` on.

        They depend on the seed, these numbers and the processes alone: so a training resumes at any batch.
        """

    @abstractmethod
    def loss(self, model: Model, batch: Batch) -> Mapping[str, Tensor]:
        """Scalars by name, each a mean over the items of ``batch``; ``loss`` is minimized, all are logged."""

    @abstractmethod
    def count(self, batch: Batch) -> int:
        """The number of items of this process's part of a batch: its weight among all processes."""

    def parts(self, batch: Batch) -> Sequence[Batch]:
        """A batch in parts that a CPU's threads compute at once; the whole as one part by default.

        The means of ``loss`` over the parts, weighted by ``count``, must be those of the batch, and the parts
        must depend on the batch alone.
        """
        return [batch]

    def problem(self, batch: Batch) -> str | None:
        """Why a batch must not reach the model, in one line; None if it may."""
        return None

    def report(self, batch: Batch) -> dict[str, Any] | None:
        """What identifies the whole batch, for the JSON file about one that is not finite; None: no file.

        Every process calls it.
        """
        return None

    def make_optimizer(self) -> Optimizer:
        """Return the optimizer of the model's parameters. The rate of a group is the recipe's times its
        "lr_scale", if it has one.
        """
        recipe = self.recipe
        return torch.optim.AdamW(self.model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)

    def gradient_weight(self, count: int, total: int) -> float:
        """Return the weight of the gradient of a mean over ``count`` items of this process, of ``total`` in
        the batch: here so that a step follows the mean over the items of its batches.
        """
        return count / total / self.recipe.accumulate

    def after_step(self) -> None:
        """Change what follows the weights, after each step of the optimizer."""

    def epoch_metrics(self) -> dict[str, float]:
        """Return what else the record of the epoch that has just ended says. Every process calls it."""
        return {}

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What must be equal when a training is resumed, beside the recipe, as JSON can hold it."""

    def state_dict(self) -> dict[str, Any]:
        """What else the batches to come depend on, equal in all processes; for ``torch.load`` with
        ``weights_only``.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``."""

    @abstractmethod
    def save(self, path: Path, model: Model, optimizer: Optimizer, epoch: int, about: dict[str, Any]) -> None:
        """Write the file of the model after ``epoch`` epochs, with ``about`` in its description."""
