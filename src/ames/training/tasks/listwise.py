"""The task of a list-wise re-ranker: which images of a shuffled shortlist show what the query shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ames.models.base import Similarity
from ames.training.data.lists import ListBatch, ListLoader
from ames.training.losses import list_losses
from ames.training.recipe import Recipe
from ames.training.tasks.reranker import RerankerTask


@dataclass(frozen=True, kw_only=True)
class ListwiseRecipe(Recipe):
    """The defaults are the paper's (LOCORE, CVPR 2025), whose batches are 256 lists of 100 images."""

    epochs: int = 3
    lr: float = 5e-5
    weight_decay: float = 0.0
    schedule: str = "constant"
    clip: float | None = 1.0


class ListwiseTask(RerankerTask[Similarity, ListBatch]):
    """Cross-entropy on the candidates of lists (``list_losses``)."""

    unit = "lists"
    loader: ListLoader
    recipe: ListwiseRecipe

    def epoch(self, number: int, start: int = 0) -> Iterator[ListBatch]:
        return self.loader.epoch(number, start, self.ranks)

    def loss(self, model: Similarity, batch: ListBatch) -> dict[str, Tensor]:
        with torch.autocast(model.device.type, enabled=False):  # to bfloat16, which will not join float16
            batch = batch.to(model.device)
        return list_losses(model, batch.query, batch.candidates, batch.labels)._asdict()

    def count(self, batch: ListBatch) -> int:
        return len(batch.labels)

    def parts(self, batch: ListBatch) -> Sequence[ListBatch]:
        """A list each."""
        return [batch.part(row, row + 1) for row in range(len(batch.labels))]

    def report(self, batch: ListBatch) -> dict[str, Any]:
        query, *candidates = self.ranks.all_gather(batch.images).tolist()
        return {"queries": query, "candidates": candidates}
