"""How a model is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ames.errors import AmesError
from ames.models.ames import AMES
from ames.precision import AUTOCAST, usable

NON_FINITE = ("stop", "skip")
DESC_NUM_SAMPLING = ("batch", "pair")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained; the defaults are the paper's.

    min_desc, max_desc: counts of query and database descriptors are drawn from [min_desc, max_desc), each by
        itself: one universal model for any number. desc_num_sampling: once per
        "batch" (the paper) or per "pair".
    query_desc, database_desc: fix these counts instead.
    beta: weight of the token MSE in distillation.
    warmup: batches in which the learning rate rises from 0. accumulate: batches that make one step of the
        optimizer. clip: bound of the gradient norm (None: none).
    freeze: beginnings of the names of parameters that stay as they are.
    ema: decay of an exponential average of the weights, which is then what is measured and kept (None: none).
    autocast: None, "bf16", or "fp16" with a scaled loss (see ``on``). compile: losses through torch.compile.
    non_finite: a batch whose loss or gradient is not finite stops the training ("stop") or is left out and
        counted ("skip").
    init_from: ``weights_digest`` of the model whose weights this one starts from (None: of none), so that a
        training is resumed with the same.
    val_freq: epochs between validations. print_freq: batches between lines of the log (0: no such lines).
    """

    epochs: int = 15
    lr: float = 2e-4
    weight_decay: float = 5e-4
    min_desc: int = 10
    max_desc: int = 400
    desc_num_sampling: str = "batch"
    query_desc: int | None = None
    database_desc: int | None = None
    beta: float = 10.0
    warmup: int = 0
    clip: float | None = None
    accumulate: int = 1
    freeze: tuple[str, ...] = ()
    ema: float | None = None
    autocast: str | None = None
    compile: bool = False
    non_finite: str = "stop"
    val_freq: int = 1
    print_freq: int = 0
    seed: int = 0
    init_from: str | None = None


def on(device: torch.device, recipe: Recipe) -> Recipe:
    """The recipe as it is followed on a device: without an autocast that it only imitates."""
    dtype = AUTOCAST[recipe.autocast]
    if dtype is None or usable(dtype, [device], asked=f"autocast={recipe.autocast}"):
        return recipe
    return replace(recipe, autocast=None)


def check(recipe: Recipe, model: AMES, teacher: AMES | None, out: Path | str | None) -> None:
    """Refuses what would fail only after a while, or with a message that helps nobody."""
    if not 1 <= recipe.min_desc < recipe.max_desc:
        raise AmesError(
            f"descriptor counts are drawn from min_desc ... max_desc - 1 = {recipe.min_desc} ... "
            f"{recipe.max_desc - 1}, which is empty: lower min_desc, or extract more descriptors"
        )
    for name, count in (("query_desc", recipe.query_desc), ("database_desc", recipe.database_desc)):
        if count is not None and not 1 <= count <= recipe.max_desc:
            raise AmesError(f"{name} {count} is outside 1 ... {recipe.max_desc}, the descriptors of an image")
    if recipe.clip is not None and not recipe.clip > 0:
        raise AmesError(f"clip {recipe.clip} leaves nothing of a gradient: give more, or null for no bound")
    if recipe.epochs < 1 or recipe.val_freq < 1:
        raise AmesError(f"epochs {recipe.epochs} and val_freq {recipe.val_freq} must be at least 1")
    if recipe.accumulate < 1:
        raise AmesError(f"accumulate {recipe.accumulate} must be at least 1")
    for name, value, known in (
        ("non_finite", recipe.non_finite, NON_FINITE),
        ("desc_num_sampling", recipe.desc_num_sampling, DESC_NUM_SAMPLING),
        ("autocast", recipe.autocast, AUTOCAST),
    ):
        if value not in known:
            raise AmesError(f"{name} {value!r} is none of {', '.join(str(x or 'null') for x in known)}")
    if recipe.ema is not None and not 0 < recipe.ema < 1:
        raise AmesError(f"ema {recipe.ema} is not between 0 and 1: 0.999 averages about 1000 steps")
    # Journal, states and the best are named after it without its ending: lr0.1 and lr0.2 would share them.
    if out is not None and Path(out).suffix not in (".pt", ".pth"):
        raise AmesError(f"{out}: a training checkpoint is a .pt file: give a name in .pt")
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
