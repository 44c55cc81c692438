"""A model and all that changes with it while it learns: optimizer, scale of the loss, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ames.errors import AmesError
from ames.models.ames import AMES
from ames.precision import AUTOCAST
from ames.training.data.loader import TripletBatch
from ames.training.distributed import Ranks
from ames.training.losses import Losses
from ames.training.recipe import Recipe
from ames.training.step import lr_factor, step_losses


class Learner:
    """Learns a batch at a time; ``state`` and ``restore`` carry everything that the next batch depends on."""

    def __init__(self, model: AMES, teacher: AMES | None, recipe: Recipe, ranks: Ranks) -> None:
        if ranks.count > 1:  # what was fitted to data may differ between machines, be it in a sign
            model.load_state_dict(
                ranks.broadcast_from_main(lambda: {k: x.cpu() for k, x in model.state_dict().items()})
            )
        self.model, self.teacher, self.recipe, self.ranks = model.to(ranks.device), teacher, recipe, ranks
        if teacher is not None:
            teacher.to(ranks.device).eval().requires_grad_(False)
        freeze(model, recipe.freeze)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=recipe.autocast == "fp16")
        self.averaged = None
        if recipe.ema is not None:
            self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema))
        self._losses = torch.compile(step_losses, dynamic=True) if recipe.compile else step_losses

    @property
    def result(self) -> AMES:
        """The model to be measured and kept: of averaged weights where these are asked for."""
        return self.model if self.averaged is None else cast(AMES, self.averaged.module)

    def accumulate(self, batch: TripletBatch, counts: np.ndarray) -> list[float]:
        """Adds the gradient of a batch, unless its loss is not finite in some process.

        Returns loss, bce, mse and accuracy of the whole batch, over all processes.
        """
        recipe = self.recipe
        dtype = AUTOCAST[recipe.autocast]
        with torch.autocast(self.ranks.device.type, dtype, enabled=dtype is not None):
            losses: Losses = self._losses(
                self.model, self.teacher, batch, counts, recipe.beta, self.ranks.device
            )
        # Means over a process's pairs, weighted by its share of them, add up to those of the batch.
        totals = self.ranks.all_reduce_sum([batch.share * float(x.detach()) for x in losses])
        if math.isfinite(totals[0]):
            self.scaler.scale(losses.loss * (batch.share / recipe.accumulate)).backward()
        return totals

    def gradients_are_finite(self) -> bool:
        """Joins the processes' gradients and clips them; False where they are not finite.

        In fp16 an overflow only lowers the scale of the loss, as it is meant to: that is sound.
        """
        self.ranks.add_gradients(self.model.parameters())
        self.scaler.unscale_(self.optimizer)
        bound = math.inf if self.recipe.clip is None else self.recipe.clip
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), bound)
        return bool(torch.isfinite(norm)) or self.scaler.is_enabled()

    @property
    def lr(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self, done: int, total: int) -> None:
        """Changes the weights at batch ``done`` of ``total``."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr * lr_factor(done, total, self.recipe.warmup)
        if any(x.grad is not None for x in self.model.parameters()):
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if self.averaged is not None:
                self.averaged.update_parameters(self.model)
        self.zero_grad()

    def zero_grad(self) -> None:
        """Drops the gradients that were added so far."""
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        averaged = {} if self.averaged is None else self.averaged.state_dict()
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "averaged": averaged,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])


def freeze(model: nn.Module, prefixes: Sequence[str]) -> None:
    """Parameters whose names begin with one of ``prefixes`` stay as they are; AmesError for a prefix that
    begins none, and where nothing is left to learn.
    """
    names = dict(model.named_parameters())
    for prefix in prefixes:
        found = [name for name in names if name == prefix or name.startswith(f"{prefix.rstrip('.')}.")]
        if not found:
            parts = sorted({name.split(".")[0] for name in names})
            raise AmesError(f"freeze {prefix!r} names no parameter; they begin with {', '.join(parts)}")
        for name in found:
            names[name].requires_grad_(False)
    if not any(x.requires_grad for x in names.values()):
        raise AmesError("freeze leaves nothing to learn")
