"""How a model is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ames.errors import AmesError
from ames.models.ames import AMES

NON_FINITE = ("stop", "skip")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained; the defaults are the paper's.

    Counts of query and database descriptors are drawn once a batch from [min_desc, max_desc), each by
    itself: one universal model for any number. ``query_desc`` and ``database_desc`` fix them instead. ``warmup`` batches raise the learning rate from 0;
    ``clip`` bounds the gradient norm (None: not at all); ``accumulate`` batches make one step of the
    optimizer; ``autocast`` computes in bfloat16. ``non_finite``: a batch whose loss or gradient is not
    finite stops the training ("stop") or is left out and counted ("skip"). ``val_freq`` epochs lie between
    validations, ``print_freq`` batches between lines of the log (0: no such lines).
    """

    epochs: int = 15
    lr: float = 2e-4
    weight_decay: float = 5e-4
    min_desc: int = 10
    max_desc: int = 400
    query_desc: int | None = None
    database_desc: int | None = None
    beta: float = 10.0
    warmup: int = 0
    clip: float | None = None
    accumulate: int = 1
    non_finite: str = "stop"
    val_freq: int = 1
    print_freq: int = 0
    autocast: bool = False
    seed: int = 0


def check(recipe: Recipe, model: AMES, teacher: AMES | None, out: Path | str | None) -> None:
    """Refuses what would fail only after a while, or with a message that helps nobody."""
    if not 1 <= recipe.min_desc < recipe.max_desc:
        raise AmesError(
            f"descriptor counts are drawn from min_desc ... max_desc - 1 = {recipe.min_desc} ... "
            f"{recipe.max_desc - 1}, which is empty: lower min_desc, or extract more descriptors"
        )
    if recipe.epochs < 1 or recipe.val_freq < 1:
        raise AmesError(f"epochs {recipe.epochs} and val_freq {recipe.val_freq} must be at least 1")
    if recipe.accumulate < 1:
        raise AmesError(f"accumulate {recipe.accumulate} must be at least 1")
    if recipe.non_finite not in NON_FINITE:
        raise AmesError(f"non_finite {recipe.non_finite!r} is none of {', '.join(NON_FINITE)}")
    if out is not None and Path(out).suffix == ".safetensors":
        raise AmesError(f"{out}: a training checkpoint is not a safetensors file: give a name in .pt")
    if teacher is None:
        return
    if teacher.binarized:
        raise AmesError("the teacher is a binary model: give a full-precision one")
    if teacher.model_dim != model.model_dim:
        raise AmesError(f"the teacher's tokens are {teacher.model_dim}-d, the student's {model.model_dim}-d")
    if teacher.local_dim != model.local_dim:
        raise AmesError(
            f"the teacher takes {teacher.local_dim}-d descriptors, the student {model.local_dim}-d ones"
        )
