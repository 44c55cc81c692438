"""Entropic optimal transport between two sets, each with a dustbin: Sinkhorn's algorithm.

A problem is a log-kernel [P, N + 1, M + 1] (scores over the regularization) whose last row and column are the
dustbins, and the masses of its rows [P, N + 1] and columns [P, M + 1]. A cell of -inf is forbidden. Who has
mass 0 takes no part, as if its row or column were absent. (Cuturi, NeurIPS 2013; with dustbins: SuperGlue,
CVPR 2020, whose masses are these divided by N + M, which changes nothing but the scale of the plan.)
"""

from __future__ import annotations

import torch
from torch import Tensor

# Up to these absolute values of the log-kernel, of its corner and of other cells, what ``scaled_plan``
# multiplies stays inside float32.
_SAFE_CORNER, _SAFE = 40.0, 20.0


def with_dustbins(scores: Tensor, rows: Tensor, columns: Tensor, corner: Tensor) -> Tensor:
    """Append the scores of dustbins: [P, N, M], of rows [P, N], of columns [P, M] and of the corner, a
    scalar -> [P, N + 1, M + 1].
    """
    last = torch.cat((columns, corner.expand(len(columns), 1)), 1)
    return torch.cat((torch.cat((scores, rows.unsqueeze(2)), 2), last.unsqueeze(1)), 1)


def masses(rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return the masses float32 [P, N + 1], [P, M + 1] of members bool [P, N], [P, M], True = takes part.

    A member has mass 1. A dustbin holds the other side's members, and has mass 1 if there are none, so that
    no problem is without any mass.
    """
    sides = rows.float(), columns.float()
    for_rows, for_columns = (side.sum(1, keepdim=True).clamp(min=1) for side in sides)
    return torch.cat((sides[0], for_columns), 1), torch.cat((sides[1], for_rows), 1)


def plan(
    log_kernel: Tensor, masses: tuple[Tensor, Tensor], iterations: int, *, corner: float, bound: float
) -> Tensor:
    """Return the plan [P, N, M] without dustbins, after ``iterations`` of rows, then columns.

    corner, bound: of the log-kernel, the corner and the largest absolute value of other cells that are not
    forbidden; they decide how the plan is computed. The sum of a column and its dustbin is its mass, that of
    a row nearly.
    """
    safe = bound <= _SAFE and abs(corner) <= _SAFE_CORNER
    return (scaled_plan if safe else log_plan)(log_kernel, masses, iterations)


def log_plan(log_kernel: Tensor, masses: tuple[Tensor, Tensor], iterations: int) -> Tensor:
    """As ``plan``, by sums of exponentials, for values of any size."""
    log_rows, log_columns = masses[0].log(), masses[1].log()
    v = log_columns.clamp(max=0)  # 0, and -inf for who takes no part
    for _ in range(iterations):
        u = log_rows - torch.logsumexp(log_kernel + v.unsqueeze(1), 2)
        v = log_columns - torch.logsumexp(log_kernel + u.unsqueeze(2), 1)
    return (log_kernel + u.unsqueeze(2) + v.unsqueeze(1)).exp()[:, :-1, :-1]


def scaled_plan(log_kernel: Tensor, masses: tuple[Tensor, Tensor], iterations: int) -> Tensor:
    """As ``plan``, with one exponential per cell: an iteration is two products of a matrix and a vector."""
    kernel, (rows, columns) = log_kernel.exp(), masses
    v = columns.clamp(max=1)  # 1, and 0 for who takes no part
    for _ in range(iterations):
        u = rows / _times(kernel, v)
        v = columns / _times(kernel.mT, u)
    if torch.is_grad_enabled():
        return (kernel * u.unsqueeze(2) * v.unsqueeze(1))[:, :-1, :-1]
    # New memory for it can take longer than all iterations (at 600 x 600).
    return kernel.mul_(u.unsqueeze(2)).mul_(v.unsqueeze(1))[:, :-1, :-1]


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    """[P, N, M] x [P, M] -> [P, N]."""
    # On a CPU many times faster than with the vectors as columns.
    return torch.bmm(vectors.unsqueeze(1), matrices.mT).squeeze(1)
