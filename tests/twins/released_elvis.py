"""A twin of ELViS that computes as the released code does: both images are projected for every pair, and
Sinkhorn's algorithm sums exponentials of [B, N + 1, M + 1]. For tests and for benchmarks, where it is the
other side.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


class ReleasedELViS(nn.Module):
    """The published ``forward`` with the weights of an ``ames.models.elvis.ELViS``."""

    def __init__(self, model):
        super().__init__()
        self.remap_local, self.dust_bin_mlp, self.f = model.remap_local, model.dust_bin_mlp, model.f
        self.dust_bin = model.dust_bin
        self.iterations, self.temperature = model.sinkhorn_iterations, 1 / model.regularization

    def forward(self, src_local, src_mask, tgt_local, tgt_mask):
        """src_local [B, N, D], tgt_local [B, M, D], masks bool [B, N], [B, M], True = padding -> sums [B]."""
        query, database = (F.normalize(self.remap_local(x), dim=-1) for x in (src_local, tgt_local))
        (B, N, _), M = query.shape, database.shape[1]
        cosines = torch.einsum("bnd,bmd->bnm", query, database)
        cosines = cosines.masked_fill(src_mask[:, :, None] | tgt_mask[:, None], -torch.inf)
        scores = torch.cat((cosines, self.dust_bin_mlp(query)), 2)
        corner = self.dust_bin.expand(B, 1, 1)
        scores = torch.cat((scores, torch.cat((self.dust_bin_mlp(database).mT, corner), 2)), 1)
        plan = self.transport(scores * self.temperature, N, M)
        best = torch.cat((plan.max(2)[0], plan.max(1)[0]), 1)
        votes = torch.sigmoid(self.f(best[..., None]))[..., 0]
        return votes.masked_fill(torch.cat((src_mask, tgt_mask), 1), 0).sum(1)

    def transport(self, scores, N, M):
        """Scores over the regularization [B, N + 1, M + 1] -> plan [B, N, M], a column's marginal being 1."""
        each = -math.log(N + M)
        rows, columns = scores.new_full((N + 1,), each), scores.new_full((M + 1,), each)
        rows[-1] += math.log(M)
        columns[-1] += math.log(N)
        u, v = torch.zeros_like(scores[:, :, 0]), torch.zeros_like(scores[:, 0])
        for _ in range(self.iterations):
            u = rows - torch.logsumexp(scores + v[:, None], 2)
            v = columns - torch.logsumexp(scores + u[:, :, None], 1)
        return (scores + u[:, :, None] + v[:, None] - each).exp()[:, :-1, :-1]
