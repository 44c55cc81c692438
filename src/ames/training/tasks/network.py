"""What RAML's two trainings share: a network that learns from photos, its optimizer and its counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch.optim import AdamW, Optimizer

from ames.embedders.network import GlobalNetwork
from ames.errors import AmesError
from ames.training.data.photos import PhotoBatch, PhotoLoader
from ames.training.recipe import Recipe, check_choice
from ames.training.task import Validation
from ames.training.tasks.unreadable import PhotoTask

_POOL_FACTOR = 10.0  # of the rate of GeM's power, as it was meant


@dataclass(frozen=True, kw_only=True)
class NetworkRecipe(Recipe):
    """What RAML's student and teacher share; the defaults are what the released code really does.

    gradients: a step follows the "sum" over the images (anchors) of its batches, or their "mean".
    pool_rate: GeM's power learns as fast as the rest ("released": the scheduler overwrites its rate), or ten
        times faster ("intended").
    leftover: batches at the end of an epoch that fill no step are "dropped" or "applied".
    batch_norm: statistics are "frozen" and affine weights trained, or all is "trained" (for random weights).
    """

    weight_decay: float = 1e-6
    schedule: str = "onecycle"
    gradients: str = "sum"
    pool_rate: str = "released"
    leftover: str = "dropped"
    batch_norm: str = "frozen"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("gradients", self.gradients, ("sum", "mean"))
        check_choice("pool_rate", self.pool_rate, ("released", "intended"))
        check_choice("leftover", self.leftover, ("dropped", "applied"))
        check_choice("batch_norm", self.batch_norm, ("frozen", "trained"))


class NetworkTask(PhotoTask[GlobalNetwork, Any]):
    """A ``GlobalNetwork`` that learns from photos: the optimizer and the counts of RAML's two trainings."""

    recipe: NetworkRecipe

    def __init__(
        self,
        model: GlobalNetwork,
        loader: PhotoLoader,
        recipe: NetworkRecipe,
        validate: Callable[[GlobalNetwork], Validation] | None = None,
    ) -> None:
        super().__init__(model, recipe, validate)
        self.loader = loader
        model.frozen_statistics = recipe.batch_norm == "frozen"
        if not len(self):
            raise AmesError(
                f"an epoch of {len(loader)} batches has no step of {recipe.accumulate}: lower accumulate, or "
                "give leftover=applied"
            )

    def __len__(self) -> int:
        """Batches whose gradients would be dropped are not computed."""
        rest = len(self.loader) % self.recipe.accumulate
        return len(self.loader) - (rest if self.recipe.leftover == "dropped" else 0)

    def photos(self, number: int, start: int, **drawn: Any) -> Iterator[PhotoBatch]:
        """Return the batches of the loader that belong to an epoch, and count what is left out."""
        batches = self.loader.epoch(number, start, self.ranks, **drawn)
        return self.counted(islice(batches, len(self) - start), start)

    def gradient_weight(self, count: int, total: int) -> float:
        return float(count) if self.recipe.gradients == "sum" else super().gradient_weight(count, total)

    def make_optimizer(self) -> Optimizer:
        """AdamW, without weight decay of GeM's power."""
        power = self.model.pool.p
        others = [x for x in self.model.parameters() if x is not power]
        scale = _POOL_FACTOR if self.recipe.pool_rate == "intended" else 1.0
        groups: list[dict[str, Any]] = [{"params": others}]
        groups.append({"params": [power], "weight_decay": 0.0, "lr_scale": scale})
        return AdamW(groups, lr=self.recipe.lr, weight_decay=self.recipe.weight_decay)

    def identity(self) -> dict[str, Any]:
        return {"loader": self.loader.settings(), "network": self.model.arguments}
