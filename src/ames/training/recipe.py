"""How a model is trained, whatever the task."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from ames.errors import AmesError
from ames.precision import AUTOCAST, usable

R = TypeVar("R", bound="Recipe")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The fields of every task; a task adds its own in a subclass. AmesError for values that train nothing.

    lr, weight_decay: of the optimizer. schedule: the learning rate follows a "cosine" or a line ("linear") to
        0, is "constant", or rises and falls ("onecycle"). warmup: batches in which it first rises from 0.
    accumulate: batches per step of the optimizer. clip: bound of the gradient norm (None: none).
    freeze: parameters whose names begin so are not trained.
    ema: decay of an exponential average of the weights, which is then validated and saved (None: none).
    autocast: None, "bf16", or "fp16" with a scaled loss (see ``on``). compile: losses through torch.compile.
    non_finite: a batch whose loss or gradient is not finite stops the training ("stop") or is skipped and
        counted ("skip").
    val_freq: epochs between validations. print_freq: batches between lines of the log (0: no such lines).
    start_from: ``weights_digest`` of the model whose weights this one starts from (None: of none), so that a
        training is resumed with the same.
    """

    epochs: int = 15
    lr: float = 2e-4
    weight_decay: float = 5e-4
    schedule: str = "cosine"
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
    start_from: str | None = None

    def __post_init__(self) -> None:
        if self.clip is not None and not self.clip > 0:
            raise AmesError(f"clip {self.clip} leaves nothing of a gradient: give more, or null for no bound")
        if self.epochs < 1 or self.val_freq < 1:
            raise AmesError(f"epochs {self.epochs} and val_freq {self.val_freq} must be at least 1")
        if self.accumulate < 1:
            raise AmesError(f"accumulate {self.accumulate} must be at least 1")
        if self.ema is not None and not 0 < self.ema < 1:
            raise AmesError(f"ema {self.ema} is not between 0 and 1: 0.999 averages about 1000 steps")
        check_choice("schedule", self.schedule, ("cosine", "linear", "constant", "onecycle"))
        check_choice("non_finite", self.non_finite, ("stop", "skip"))
        check_choice("autocast", self.autocast, AUTOCAST)


def check_choice(name: str, value: str | None, known: Iterable[str | None]) -> None:
    """AmesError unless ``value`` is one of ``known``."""
    if value not in known:
        raise AmesError(f"{name} {value!r} is none of {', '.join(str(x or 'null') for x in known)}")


def on(device: torch.device, recipe: R) -> R:
    """The recipe as it is followed on a device: without an autocast that the device only imitates."""
    dtype = AUTOCAST[recipe.autocast]
    if dtype is None or usable(dtype, [device], asked=f"autocast={recipe.autocast}"):
        return recipe
    return replace(recipe, autocast=None)
