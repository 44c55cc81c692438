"""The loss of resolution-asymmetric metric learning (RAML): a student learns its teacher's space."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_EPS = 1e-6  # as released: added to each difference before it is squared


class RamlLosses(NamedTuple):
    """loss is what is minimized: absolute + lam_1 * across + lam_2 * within. Each is a sum over images."""

    loss: Tensor
    absolute: Tensor
    across: Tensor
    within: Tensor


def raml_losses(student: Tensor, teacher: Tensor, *, lam_1: float, lam_2: float) -> RamlLosses:
    """Return the losses of P views of n images: unit vectors float [n, P, d] of student and teacher.

    absolute: sum over images of the mean over views of (1 - <s, t> + 1e-6)^2. across: relations of student
    and teacher against those of the teacher, R(S T', T T'). within: R(S S', T T'). A term of weight 0 is not
    computed. With one view there are no relations. Sums over images, as released: a gradient grows with the
    batch.
    """
    absolute = (1 - (student * teacher).sum(-1) + _EPS).square().mean(-1).sum()
    none = absolute.new_zeros(())
    of_teacher = teacher @ teacher.mT
    across = relation_loss(student @ teacher.mT, of_teacher) if lam_1 else none
    within = relation_loss(student @ student.mT, of_teacher) if lam_2 else none
    loss = absolute + lam_1 * across + lam_2 * within
    return RamlLosses(loss, absolute.detach(), across.detach(), within.detach())


def relation_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Return R(A, B) of cosines float [n, P, P] between the views of an image: the sum over images of the
    mean of (A_pq - B_pq + 1e-6)^2 over p != q; 0 for one view.
    """
    views = found.shape[-1]
    itself = torch.eye(views, dtype=torch.bool, device=found.device)
    squares = (found - wanted + _EPS).square().masked_fill(itself, 0)
    return squares.sum() / max(views * (views - 1), 1)
