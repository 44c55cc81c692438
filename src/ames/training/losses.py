"""Objectives of training: from a model and a batch of pairs to a loss and what to show of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ames.features import LocalFeatures
from ames.models.ames import AMES
from ames.models.base import PairSimilarity, Similarity


class Losses(NamedTuple):
    """loss is what is minimized; bce and mse are its parts; accuracy: share of logits on the right side."""

    loss: Tensor
    bce: Tensor
    mse: Tensor
    accuracy: Tensor


def pair_losses(
    model: PairSimilarity, query: LocalFeatures, database: LocalFeatures, labels: Tensor
) -> Losses:
    """Binary cross-entropy on the logits: query [P, N, D], database [P, M, D], labels float [P] in {0, 1}."""
    logits = model.training_logits(query, database).float()
    bce = F.binary_cross_entropy_with_logits(logits, labels)
    return Losses(bce, bce.detach(), bce.new_zeros(()), _accuracy(logits, labels))


def list_losses(model: Similarity, query: LocalFeatures, candidates: LocalFeatures, labels: Tensor) -> Losses:
    """Binary cross-entropy over all logits of all candidates, each with its candidate's label (LOCORE, CVPR
    2025): query [B, N, D], candidates [B, K, M, D], labels float [B, K] in {0, 1}.
    """
    logits = model.list_logits(query, candidates).float()
    labels = labels[..., None].expand_as(logits)
    bce = F.binary_cross_entropy_with_logits(logits, labels)
    return Losses(bce, bce.detach(), bce.new_zeros(()), _accuracy(logits, labels))


def distillation_losses(
    student: AMES,
    teacher: AMES,
    query: LocalFeatures,
    database: LocalFeatures,
    labels: Tensor,
    counts: np.ndarray | tuple[int, int],
    *,
    beta: float = 10.0,
) -> Losses:
    """BCE + beta * MSE(student's final tokens, the teacher's for the same descriptors) (AMES, ECCV 2024).

    The teacher reads all descriptors, the student the first ``counts`` of query and database: int [2], the
    same for the batch, or int [2, P], one of each per pair. The MSE of a pair is that over the tokens which
    the student reads of it, and a batch's the mean over its pairs.
    Padded tokens count in the MSE, as in the released recipe; the teacher's database tokens are
    rounded to fp16, as they are whenever it is evaluated.
    """
    with torch.no_grad():
        _, target = teacher(
            query.descriptors, ~query.valid, database.descriptors, ~database.valid, return_logits=True
        )
    N = query.size
    query, database = query.keep(counts[0]), database.keep(counts[1])
    target = torch.cat(
        (target[:, : 1 + query.size], target[:, 1 + N : 1 + N + database.size]), dim=1
    )  # [P, 1 + N' + M', d]
    logits, tokens = student(
        query.descriptors, ~query.valid, database.descriptors, ~database.valid, return_logits=True
    )
    logits = logits.float()
    bce = F.binary_cross_entropy_with_logits(logits, labels)
    tokens, target = tokens.float(), target.float()
    if np.ndim(counts) > 1:
        mse = _mean_over_read(tokens, target, (query.size, counts[0]), (database.size, counts[1]))
    else:
        mse = F.mse_loss(tokens, target)
    return Losses(bce + beta * mse, bce.detach(), mse.detach(), _accuracy(logits, labels))


def contrastive_loss(features: Tensor, labels: Tensor, temperature: float = 0.05) -> Tensor:
    """Return the loss of RRT's global stage for products: features float [B, d] of unit length, labels [B].

    For each image that has a positive, -log of the share of its positives (other images of its label) in the
    sum of e^(cosine / temperature) over all other images, to which the released code adds 1. The result is
    the sum over these images / B.
    """
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positive = (labels[:, None] == labels) & ~itself
    scaled = (features @ features.mT / temperature).masked_fill(itself, 0)  # e^0: the added 1
    share = scaled.masked_fill(~positive, -torch.inf).logsumexp(1) - scaled.logsumexp(1)
    return -share[positive.any(1)].sum() / len(labels)


def hinge_losses(
    anchors: Tensor, positives: Tensor, negatives: Tensor, margin: float, pairs: Tensor | None = None
) -> Tensor:
    """Return for each anchor the mean of max(0, |a - p|^2 - |a - n|^2 + margin) over its pairs of a positive
    and a negative, float [B].

    anchors float [B, d], positives [B, P, d], negatives [B, N, d]; pairs bool [B, P, N]: which ones count
    (None: all). An anchor without a pair has 0. RAML's teachers are trained with the sum over anchors.
    """
    near = (anchors[:, None] - positives).square().sum(-1)
    far = (anchors[:, None] - negatives).square().sum(-1)
    found = F.relu(near[:, :, None] - far[:, None] + margin)
    if pairs is None:
        return found.mean((1, 2))
    return (found * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)


def _mean_over_read(tokens: Tensor, target: Tensor, *sides: tuple[int, int | np.ndarray]) -> Tensor:
    """Squared error of [P, 1 + N + M, d] over match token and each pair's first tokens of a side, as
    (slots, count): first a mean within each pair, then over pairs.
    """
    read = [torch.ones(len(tokens), 1, dtype=torch.bool, device=tokens.device)]
    for slots, count in sides:
        counts = torch.as_tensor(count, device=tokens.device).expand(len(tokens))
        read.append(torch.arange(slots, device=tokens.device) < counts[:, None])
    mask = torch.cat(read, dim=1)
    error = (tokens - target).square().mean(-1)
    return ((error * mask).sum(1) / mask.sum(1)).mean()


def _accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    return ((logits > 0) == (labels > 0.5)).float().mean().detach()
