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

    def all_gather(self, array: np.ndarray) -> np.ndarray:
        """The processes' arrays [..., n_r] joined along the last axis, in their order."""
        if self.count == 1:
            return array
        parts: list[Any] = [None] * self.count
        dist.all_gather_object(parts, array)
        return np.concatenate(parts, axis=-1)


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


def single_process() -> Ranks:
    """For trainings of one process; AmesError where torchrun started several."""
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count > 1:
        raise AmesError(f"started as {count} processes, but this training is of one: leave torchrun out")
    return Ranks()
