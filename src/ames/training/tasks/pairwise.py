"""The task of a pair-wise re-ranker: matching pairs told from others, optionally distilled from a teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ames.errors import AmesError
from ames.io.hashing import weights_digest
from ames.models.ames import AMES
from ames.models.base import PairSimilarity
from ames.training.data.loader import TripletBatch, TripletLoader
from ames.training.distributed import Ranks
from ames.training.losses import Losses, distillation_losses, pair_losses
from ames.training.recipe import Recipe, check_choice
from ames.training.task import Validation
from ames.training.tasks.reranker import RerankerTask

# Tokens that a lane learns from together on a CPU: two pairs of 200 x 200 descriptors (docs/performance.md).
_PART_TOKENS = 1000


@dataclass(frozen=True, kw_only=True)
class PairwiseRecipe(Recipe):
    """The defaults are the paper's (AMES, ECCV 2024).

    min_desc, max_desc: the numbers of query and of database descriptors are drawn from [min_desc, max_desc),
        independently: one universal model for any number. desc_num_sampling: once per "batch" (the paper) or
        per "pair".
    query_desc, database_desc: fix these numbers instead.
    beta: weight of the token MSE in distillation.
    """

    min_desc: int = 10
    max_desc: int = 400
    desc_num_sampling: str = "batch"
    query_desc: int | None = None
    database_desc: int | None = None
    beta: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.min_desc < self.max_desc:
            raise AmesError(
                f"descriptor counts are drawn from min_desc ... max_desc - 1 = {self.min_desc} ... "
                f"{self.max_desc - 1}, which is empty: lower min_desc, or extract more descriptors"
            )
        for name, count in (("query_desc", self.query_desc), ("database_desc", self.database_desc)):
            if count is not None and not 1 <= count <= self.max_desc:
                raise AmesError(
                    f"{name} {count} is outside 1 ... {self.max_desc}, the descriptors of an image"
                )
        check_choice("desc_num_sampling", self.desc_num_sampling, ("batch", "pair"))


class CountedBatch(NamedTuple):
    """Triplets, and the drawn numbers of descriptors: ``descriptor_counts``."""

    triplets: TripletBatch
    counts: np.ndarray


class PairwiseTask(RerankerTask[PairSimilarity, CountedBatch]):
    """Cross-entropy on pairs of triplets, for any pair-wise model; with ``teacher`` (frozen, full precision)
    AMES is distilled, too.
    """

    unit = "pairs"
    loader: TripletLoader
    recipe: PairwiseRecipe

    def __init__(
        self,
        model: PairSimilarity,
        loader: TripletLoader,
        recipe: PairwiseRecipe,
        *,
        teacher: AMES | None = None,
        validate: Callable[[PairSimilarity], Validation] | None = None,
    ) -> None:
        super().__init__(model, loader, recipe, validate)
        self.teacher = teacher
        if teacher is None:
            return
        if not isinstance(model, AMES):
            raise AmesError(f"{type(model).__name__} cannot be distilled from AMES: leave the teacher out")
        if teacher.binarized:
            raise AmesError("the teacher is a binary model: give a full-precision one")
        if teacher.model_dim != model.model_dim:
            raise AmesError(
                f"the teacher's tokens are {teacher.model_dim}-d, the student's {model.model_dim}-d"
            )
        if teacher.local_dim != model.local_dim:
            raise AmesError(
                f"the teacher takes {teacher.local_dim}-d descriptors, the student {model.local_dim}-d ones"
            )
        teacher.eval().requires_grad_(False)

    def start(self, ranks: Ranks) -> None:
        super().start(ranks)
        if self.teacher is not None:
            self.teacher.to(ranks.device)

    def epoch(self, number: int, start: int = 0) -> Iterator[CountedBatch]:
        for place, batch in enumerate(self.loader.epoch(number, start, self.ranks), start):
            batch = batch.trimmed(self.ranks.all_reduce_max(batch.longest))
            yield CountedBatch(batch, descriptor_counts(self.recipe, number, place, batch))

    def loss(self, model: PairSimilarity, batch: CountedBatch) -> dict[str, Tensor]:
        return step_losses(model, self.teacher, *batch, self.recipe.beta)._asdict()

    def count(self, batch: CountedBatch) -> int:
        return batch.triplets.images[1:].size

    def parts(self, batch: CountedBatch) -> Sequence[CountedBatch]:
        """A few triplets each. Padding is left out, except in distillation, whose MSE counts it."""
        triplets, counts = batch
        blocks, B = len(triplets.images) - 1, triplets.images.shape[1]
        each = counts.reshape(2, blocks, B) if counts.ndim > 1 else None
        read = int(np.minimum(counts.reshape(2, -1).max(1), triplets.longest).sum()) + 1  # tokens of a pair
        step = max(1, _PART_TOKENS // (blocks * read))
        found = []
        for first in range(0, B, step):
            last = min(first + step, B)
            part = triplets.part(first, last)
            found.append(
                CountedBatch(
                    part if self.teacher is not None else part.without_padding(),
                    counts if each is None else each[:, :, first:last].reshape(2, -1),
                )
            )
        return found

    def report(self, batch: CountedBatch) -> dict[str, Any]:
        anchors, positives, *negatives = self.ranks.all_gather(batch.triplets.images).tolist()
        images = {"anchors": anchors, "positives": positives, "negatives": negatives}
        return {"descriptors": batch.counts.tolist()} | images

    def identity(self) -> dict[str, Any]:
        teacher = None if self.teacher is None else weights_digest(self.teacher)
        return super().identity() | {"teacher": teacher}


def descriptor_counts(recipe: PairwiseRecipe, epoch: int, number: int, batch: TripletBatch) -> np.ndarray:
    """Draw the numbers of query and database descriptors of batch ``number`` of an epoch: int [2], or int
    [2, P] if each pair of this process has its own.

    They are drawn per batch, so that training can start at any of them, and for the whole batch, of which a
    process takes its part.
    """
    rng = np.random.default_rng([recipe.seed, 12, epoch, number])
    if recipe.desc_num_sampling == "batch":
        counts = rng.integers(recipe.min_desc, recipe.max_desc, size=2)
    else:
        pairs = round(len(batch.positions) / batch.share)  # of the whole batch
        counts = rng.integers(recipe.min_desc, recipe.max_desc, size=(2, pairs))[:, batch.positions]
    for side, fixed in enumerate((recipe.query_desc, recipe.database_desc)):
        if fixed is not None:
            counts[side] = fixed
    return counts


def step_losses(
    model: PairSimilarity, teacher: AMES | None, batch: TripletBatch, counts: np.ndarray, beta: float
) -> Losses:
    """Losses of one batch at (query, database) numbers of descriptors: int [2], the same for all pairs, or
    int [2, P], one of each for every pair.
    """
    device = model.device
    with torch.autocast(device.type, enabled=False):  # to bfloat16, which will not join stored float16
        batch = batch.to(device)
        query, database = batch.pairs()
    if teacher is None:
        return pair_losses(model, query.keep(counts[0]), database.keep(counts[1]), batch.labels)
    assert isinstance(model, AMES), "PairwiseTask checks it"
    return distillation_losses(model, teacher, query, database, batch.labels, counts, beta=beta)
