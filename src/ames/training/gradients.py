"""The gradient of a batch on a CPU: its parts are shared among lanes and added in a fixed order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ames.lanes import Lanes

# Each holds a gradient of its own until all are done: 8 MB for the paper's model.
_GROUPS = 32

Gradient = tuple[Tensor | None, ...]


class Learnt(NamedTuple):
    """Losses by name and the gradient of ``loss``, one entry per parameter (None: it has no part in it)."""

    losses: dict[str, float]
    gradient: Gradient


def separable(model: nn.Module) -> bool:
    """Whether parts of a batch teach the same as the whole, in any order: no layer of the model normalizes
    over a batch, and none draws at random.
    """
    kinds = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)
    return not any(isinstance(x, kinds) and getattr(x, "p", 1) for x in model.modules())


def in_lanes(
    loss: Callable[[Any], Mapping[str, Tensor]],
    parts: Sequence[Any],
    counts: Sequence[int],
    parameters: Sequence[nn.Parameter],
    lanes: Lanes,
) -> Learnt:
    """Means over all items, of which part i has ``counts[i]``. Sums depend on the parts, not on the lanes."""
    total = sum(counts)

    def one(i: int) -> Learnt:
        losses, weight = loss(parts[i]), counts[i] / total
        gradient = torch.autograd.grad(losses["loss"] * weight, parameters, allow_unused=True)
        return Learnt({name: float(x.detach()) * weight for name, x in losses.items()}, gradient)

    def group(numbers: np.ndarray) -> Learnt:
        return reduce(_sum, map(one, numbers.tolist()))

    groups = np.array_split(np.arange(len(parts)), min(len(parts), _GROUPS))
    return reduce(_sum, lanes.map(group, groups))


def _sum(a: Learnt, b: Learnt) -> Learnt:
    losses = {name: x + b.losses[name] for name, x in a.losses.items()}
    return Learnt(losses, tuple(map(_added, a.gradient, b.gradient)))


def _added(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    """The sum in new memory: two parameters may have one tensor as their gradient."""
    if x is None or y is None:
        return y if x is None else x
    return x + y
