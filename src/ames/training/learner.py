"""A model and all that changes with it while it learns: optimizer, scale of the loss, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ames.errors import AmesError
from ames.lanes import Lanes
from ames.precision import AUTOCAST
from ames.training.distributed import SyncedBatchNorm
from ames.training.gradients import in_lanes, separable
from ames.training.task import Task


class Learner:
    """Learns a batch at a time; ``state`` and ``restore`` carry everything that the next batch depends on."""

    def __init__(self, task: Task[Any, Any], lanes: int | None = None) -> None:
        self.task, self.recipe, self.ranks, self.model = task, task.recipe, task.ranks, task.model
        if self.ranks.count > 1:
            # What was fitted to data may differ between machines, be it in a sign.
            first = self.ranks.broadcast_from_main(
                lambda: {k: x.cpu() for k, x in self.model.state_dict().items()}
            )
            self.model.load_state_dict(first)
            SyncedBatchNorm.convert(self.model)
        freeze(self.model, self.recipe.freeze)
        self.optimizer = task.make_optimizer()
        self.scaler = torch.amp.GradScaler(self.ranks.device.type, enabled=self.recipe.autocast == "fp16")
        self.averaged = None
        if self.recipe.ema is not None:
            average = get_ema_multi_avg_fn(self.recipe.ema)
            self.averaged = AveragedModel(self.model, multi_avg_fn=average, use_buffers=True)
        self._loss = torch.compile(task.loss, dynamic=True) if self.recipe.compile else task.loss
        whole = self.recipe.compile or self.scaler.is_enabled() or not separable(self.model)
        self.lanes = Lanes(lanes) if self.ranks.device.type == "cpu" and not whole else None

    @property
    def result(self) -> nn.Module:
        """The model to be validated and saved: of averaged weights where these are asked for."""
        return self.model if self.averaged is None else self.averaged.module

    def accumulate(self, batch: Any) -> tuple[dict[str, float], int]:
        """Add the gradient of a batch, unless its loss is not finite in some process.

        Returns the task's losses of the whole batch, over all processes, and the number of its items.
        """
        parts = [batch] if self.lanes is None else self.task.parts(batch)
        losses, backward = self._whole(batch) if len(parts) == 1 else self._in_lanes(parts)
        count = self.task.count(batch)
        total, *sums = self.ranks.all_reduce_sum([count, *(count * x for x in losses.values())])
        means = {name: x / total for name, x in zip(losses, sums, strict=True)}
        if math.isfinite(means["loss"]):
            # Means over a process's items, weighted by its share of them, add up to those of the batch.
            backward(self.task.gradient_weight(count, int(total)))
        return means, int(total)

    def _losses(self, batch: Any) -> Mapping[str, Tensor]:
        dtype = AUTOCAST[self.recipe.autocast]
        with torch.autocast(self.ranks.device.type, dtype, enabled=dtype is not None):  # of this thread
            return self._loss(self.model, batch)

    def _whole(self, batch: Any) -> tuple[dict[str, float], Callable[[float], None]]:
        """The losses of a batch, and what adds their gradient, weighted."""
        losses = self._losses(batch)

        def backward(weight: float) -> None:
            self.scaler.scale(losses["loss"] * weight).backward()

        return {name: float(x.detach()) for name, x in losses.items()}, backward

    def _in_lanes(self, parts: Sequence[Any]) -> tuple[dict[str, float], Callable[[float], None]]:
        """As ``_whole``, from the parts of a batch."""
        assert self.lanes is not None
        learning = [x for x in self.model.parameters() if x.requires_grad]
        counts = [self.task.count(part) for part in parts]
        losses, gradient = in_lanes(self._losses, parts, counts, learning, self.lanes)

        def backward(weight: float) -> None:
            for x, new in zip(learning, gradient, strict=True):
                if new is not None:
                    x.grad = new * weight if x.grad is None else x.grad.add_(new, alpha=weight)

        return losses, backward

    def gradients_are_finite(self) -> bool:
        """Join the processes' gradients and clip them; False where they are not finite.

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
        """Change the weights at batch ``done`` of ``total``."""
        if self.recipe.schedule == "onecycle":  # as released, it counts steps, not batches
            done, total = done // self.recipe.accumulate, total // self.recipe.accumulate
        rate = self.recipe.lr * lr_factor(done, total, self.recipe.warmup, self.recipe.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        if any(x.grad is not None for x in self.model.parameters()):
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.task.after_step()
            if self.averaged is not None:
                self.averaged.update_parameters(self.model)
        self.zero_grad()

    def zero_grad(self) -> None:
        """Drop the gradients that were added so far."""
        self.optimizer.zero_grad(set_to_none=True)

    def _parts(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler, "task": self.task}
        return parts if self.averaged is None else parts | {"averaged": self.averaged}

    def state(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts().items()}

    def restore(self, state: dict[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])


def lr_factor(step: int, steps: int, warmup: int, schedule: str = "cosine") -> float:
    """Linear warm-up, then over the remaining steps a cosine or a straight line to 0, or 1; or ``one_cycle``,
    which warms up by itself.
    """
    if schedule == "onecycle":
        return one_cycle(step, steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    progress = min((step - warmup) / max(steps - warmup, 1), 1.0)
    if schedule == "linear":
        return 1 - progress
    # math, not numpy: the optimizer keeps the rate, and a checkpoint holds plain numbers only
    return 0.5 * (1 + math.cos(math.pi * progress))


def one_cycle(step: int, steps: int, *, rising: float = 0.3, start: float = 0.1, end: float = 1e-5) -> float:
    """Half a cosine from ``start`` to 1 over the share ``rising`` of the steps, another one from there to
    ``end`` (OneCycle, as torch's scheduler has it): the last step has ``end``.
    """
    peak = max(rising * steps - 1, 0)
    if step <= peak:
        low, share = start, step / max(peak, 1)
    else:
        low, share = end, 1 - (step - peak) / max(steps - 1 - peak, 1)
    return low + (1 - low) * 0.5 * (1 - math.cos(math.pi * share))


def freeze(model: nn.Module, prefixes: Sequence[str]) -> None:
    """Exclude parameters whose names begin with one of ``prefixes`` from training; AmesError for a prefix
    that begins none, and where nothing is left to learn.
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
