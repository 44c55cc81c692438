"""The processes of one training: what they tell each other, and who writes."""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ames.errors import AmesError

T = TypeVar("T")

# Others wait while the first one validates or reads a large shortlist, which may take hours.
PATIENCE = timedelta(hours=12)

_trainings = itertools.count()


@dataclass(frozen=True)
class Ranks:
    """This process among those of a training: its number, how many there are, and its device.

    Every method is called by all of them, in the same order. Alone, nothing is sent anywhere.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.count:
            raise AmesError(f"rank {self.rank} of {self.count} ranks: give one of 0 ... {self.count - 1}")

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
        """Sums over the processes, float64; equal on all of them."""
        if self.count == 1:
            return [float(x) for x in values]
        summed = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(summed)
        return summed.tolist()

    def all_reduce_max(self, value: int) -> int:
        """The largest of the processes' values."""
        if self.count == 1:
            return value
        found = torch.tensor(value)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Sums gradients over the processes in place, in one message: AMES' weigh 8 MB."""
        grads = [x.grad for x in parameters if x.grad is not None]
        if self.count == 1 or not grads:
            return
        flat = torch.cat([x.flatten() for x in grads])
        dist.all_reduce(flat)
        for grad, part in zip(grads, flat.split([x.numel() for x in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def broadcast_from_main(self, function: Callable[[], T]) -> T:
        """What ``function`` returns in the first process, which alone calls it; all raise its AmesError."""
        if self.count == 1:
            return function()
        told: list[Any] = [None, None]
        if self.is_main:
            try:
                told[0] = function()
            except AmesError as error:
                told[1] = str(error)
        dist.broadcast_object_list(told)
        if told[1] is not None:
            raise AmesError(told[1])
        return told[0]

    def first(self, text: str | None) -> str | None:
        """The text of the first process that has one, on all of them."""
        if self.count == 1 or not self.all_reduce_max(int(text is not None)):
            return text
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, text)
        return next(x for x in found if x is not None)

    def all_gather(self, array: np.ndarray) -> np.ndarray:
        """The processes' arrays [..., n_r] joined along the last axis, in their order."""
        if self.count == 1:
            return array
        parts: list[Any] = [None] * self.count
        dist.all_gather_object(parts, array)
        return np.concatenate(parts, axis=-1)


def zero_loss(*modules: nn.Module) -> Tensor:
    """Return a loss of 0 of a process without an item: every parameter that learns has a gradient, of zeros,
    because ``Ranks.add_gradients`` joins those of the same parameters.
    """
    learning = [x for module in modules for x in module.parameters() if x.requires_grad]
    return torch.stack([x.flatten()[:0].sum() for x in learning]).sum()


class SyncedBatchNorm(_BatchNorm):
    """Batch normalization over the batches of all processes, on any device: torch's own needs GPUs."""

    @staticmethod
    def convert(model: nn.Module) -> None:
        """Make every batch normalization of a model, in place, one of all processes."""
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.__class__ = SyncedBatchNorm

    def _check_input_dim(self, input: Tensor) -> None:
        """Any, as the class that this was."""

    def forward(self, input: Tensor) -> Tensor:
        momentum = self.momentum
        if not (self.training and self.track_running_stats and momentum and dist.is_initialized()):
            return super().forward(input)
        x, axes, shape = input.float(), [0, *range(2, input.ndim)], [1, -1] + [1] * (input.ndim - 2)
        sums = _sum(torch.cat((x.sum(axes), x.new_tensor([x.numel() / x.shape[1]]))))
        mean, count = sums[:-1] / sums[-1], sums[-1]
        x = x - mean.view(shape)
        variance = _sum(x.square().sum(axes)) / count
        with torch.no_grad():
            self.get_buffer("num_batches_tracked").add_(1)
            self.get_buffer("running_mean").lerp_(mean, momentum)
            self.get_buffer("running_var").lerp_(variance * count / (count - 1), momentum)
        x = x * (variance + self.eps).rsqrt().view(shape)
        return (x * self.weight.view(shape) + self.bias.view(shape)).to(input.dtype)


def _sum(x: Tensor) -> Tensor:
    """The sum over all processes; its gradient, too."""
    return importlib.import_module("torch.distributed.nn.functional").all_reduce(x)


@contextmanager
def init_distributed(device: str) -> Iterator[Ranks]:
    """This process as torchrun started it (RANK, WORLD_SIZE, LOCAL_RANK), or alone.

    device: "cpu" or "cuda"; of several GPUs a process takes the one of its LOCAL_RANK. AmesError where a
    machine has fewer.
    """
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count == 1:
        yield Ranks(torch.device(device))
        return
    local = int(os.environ.get("LOCAL_RANK", 0))
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise AmesError(f"process {local} of this machine has no GPU: it has {torch.cuda.device_count()}")
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    # Its functions have the group of the day as a default argument. Imported later, by torch.optim, it would
    # keep this one's threads until the interpreter's end, which they do not always survive.
    importlib.import_module("torch.distributed.nn.functional")
    store, rank, count = next(dist.rendezvous("env://", timeout=PATIENCE))
    # Several trainings of a process (--multirun) share torchrun's store: each one's addresses under its name.
    store = dist.PrefixStore(f"training-{next(_trainings)}", store)
    # What steers the training are numbers on the CPU, whatever computes.
    backend = "cpu:gloo,cuda:nccl" if device != "cpu" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)
    try:
        yield Ranks(torch.device(device), rank, count)
    finally:
        dist.destroy_process_group()
