"""ELViS: similarity of two images from the votes of their matched local descriptors (ICLR 2026)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ames.features import LocalFeatures
from ames.models.base import PairSimilarity, constructor_arguments
from ames.models.layers.binarization import Binarize, fit_itq, pack_bits, unpack_bits
from ames.models.layers.initialization import pca_projection
from ames.models.layers.optimal_transport import masses, plan, with_dustbins

DIM = 128  # of a token, in every published model
_VOTE_EPS = 1e-6  # of the LayerNorm of the votes, as published


class ELViS(PairSimilarity):
    """Votes of matches found by optimal transport; parameters carry the names of the published checkpoints.

    A descriptor is projected (Linear + LayerNorm; ``binarized``: sign(x W) + Linear + LayerNorm) and then
    L2-normalized; it is not before, so that its length matters. The cosines of two images, with a learned
    dustbin for each descriptor, become a transport plan. The best match of each descriptor of either image is
    a vote in [0, 1], and **the score is the sum of votes, in [0, N + M]**: no logit. A fusion needs a small
    gamma. Training learns from g(score), ``training_logits``.

    Masses count real descriptors alone: a pair is scored as if both images were trimmed to theirs, and an
    image without any has score 0. ``forward`` counts slots, as published.
    A database descriptor is stored as 256 bytes (128 fp16), or 16 (``binarized``). Scores are computed in
    fp32 whatever format is asked for: sums of exponentials need it.

    sinkhorn_iterations, regularization: of the transport (the authors' ``sh_iter`` and 1 / ``sh_temp``).
    """

    # For small images many calls cost more than the caches save; for large ones it makes no difference.
    cpu_tokens = 5120
    score_unit = 10.0  # votes
    links_are = "votes"

    def __init__(
        self,
        *,
        local_dim: int = 768,
        embed_dim: int = 16,
        proj_dim: int = 64,
        sinkhorn_iterations: int = 10,
        regularization: float = 0.1,
        binarized: bool = False,
    ) -> None:
        arguments = constructor_arguments(locals())
        super().__init__()
        if regularization <= 0:
            raise ValueError(f"regularization {regularization} is not above 0")
        self.arguments, self.local_dim, self.binarized = arguments, local_dim, binarized
        self.sinkhorn_iterations, self.regularization = sinkhorn_iterations, regularization
        self.code_bytes = DIM // 8 if binarized else 2 * DIM
        self.code_bits = DIM if binarized else None
        first = [Binarize(local_dim, DIM)] if binarized else []
        width = DIM if binarized else local_dim
        self.remap_local = nn.Sequential(*first, nn.Linear(width, DIM), nn.LayerNorm(DIM))
        self.f = nn.Sequential(
            nn.Linear(1, embed_dim),
            nn.LayerNorm(embed_dim, eps=_VOTE_EPS),
            nn.GELU(),
            nn.Linear(embed_dim, 1),
        )
        self.g = nn.Sequential(nn.Linear(1, proj_dim), nn.GELU(), nn.Linear(proj_dim, 1))
        self.dust_bin = nn.Parameter(torch.ones(()))
        self.dust_bin_mlp = nn.Sequential(nn.Linear(DIM, DIM), nn.GELU(), nn.Linear(DIM, 1), nn.Tanh())
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    @classmethod
    def arguments_of(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """As the base's; iterations and regularization are in no tensor: those of the paper."""
        if not {"dust_bin", "dust_bin_mlp.0.weight", "f.0.weight", "g.0.weight"} <= state.keys():
            return None
        binarized = "remap_local.0.W" in state
        first = state.get("remap_local.0.W" if binarized else "remap_local.0.weight")
        if first is None or first.ndim != 2:
            return None
        return {
            "local_dim": first.shape[0 if binarized else 1],
            "embed_dim": len(state["f.0.weight"]),
            "proj_dim": len(state["g.0.weight"]),
            "binarized": binarized,
        }

    # ---- projection -----------------------------------------------------------------------------

    def tokens(self, local: LocalFeatures) -> LocalFeatures:
        return self._tokens(local)

    def _tokens(self, local: LocalFeatures, *, checked: bool = True) -> LocalFeatures:
        values = self.plain(local, self.dust_bin.dtype, checked=checked)
        return local.with_descriptors(F.normalize(self.remap_local(values), dim=-1))

    def compress(self, local: LocalFeatures) -> LocalFeatures:
        """Codes as a database stores them: packed bits, or fp16 tokens."""
        if not self.binarized:
            return super().compress(local)
        signs = self.remap_local[0](self.plain(local, self.dust_bin.dtype))
        return local.with_descriptors(pack_bits(signs), coded=True)

    def expand(self, codes: LocalFeatures) -> LocalFeatures:
        if not self.binarized:
            stored = super().expand(codes)  # fp16 changed their lengths
            return stored.with_descriptors(F.normalize(stored.descriptors.to(self.dust_bin.dtype), dim=-1))
        self.check_form(codes)
        signs = unpack_bits(codes.descriptors, self.dust_bin.dtype)
        return codes.with_descriptors(F.normalize(self.remap_local[1:](signs), dim=-1))

    def projection(self) -> dict[str, Tensor]:
        return self.remap_local.state_dict()

    # ---- similarity -----------------------------------------------------------------------------

    def encode(self, tokens: LocalFeatures) -> LocalFeatures:
        """tokens [..., N, 128] -> [..., N, 129]: each with the score of its dustbin."""
        local = LocalFeatures(tokens.descriptors, tokens.valid).pad(max(tokens.size, 1))
        x = local.descriptors
        return local.with_descriptors(torch.cat((x, self.dust_bin_mlp(x)), -1))

    def score_encoded(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """``encode`` of P query images and of P database images -> sums of votes [P], in [0, N + M]."""
        score = self._votes(query, database, masses(query.valid, database.valid))
        both = query.valid.any(1) & database.valid.any(1)
        return torch.where(both, score, 0.0)

    def training_logits(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """g(score) of pairs, query [P, N, D] and database [P, M, D] -> [P]."""
        return self.logits(self.pairs(query, database))

    def logits(self, score: Tensor) -> Tensor:
        """g: sums of votes [P] -> the logits [P] that training compares with labels."""
        with torch.autocast(score.device.type, enabled=False):  # 200.3 and 200.4 votes are one bfloat16
            return cast(Tensor, self.g(score.unsqueeze(-1))).squeeze(-1)

    def forward(
        self,
        src_local: Tensor,
        src_mask: Tensor | None = None,
        tgt_local: Tensor | None = None,
        tgt_mask: Tensor | None = None,
    ) -> Tensor:
        """As published: src_local [B, N, D], tgt_local [B, M, D], masks bool [B, N], [B, M] or None,
        **True = padding** -> sums of votes [B], also in training mode (``logits`` of them is what the
        published code then returns).

        Masses count slots, padding included: as 10 iterations do not converge, the amount of padding changes
        scores. Each mask is heeded by itself; the published code ignores one that is given alone. Nothing is
        rounded, and values that are not finite pass; ``score`` refuses them.
        """
        if tgt_local is None:
            raise ValueError("tgt_local is missing: ELViS scores two images")
        query, database = (
            self.encode(self._tokens(_features(x, mask), checked=False))
            for x, mask in ((src_local, src_mask), (tgt_local, tgt_mask))
        )
        slots = torch.ones_like(query.valid), torch.ones_like(database.valid)
        return self._votes(query, database, masses(*slots))

    def _votes(self, query: LocalFeatures, database: LocalFeatures, mass: tuple[Tensor, Tensor]) -> Tensor:
        """Sums of the votes of real descriptors [P], of a transport between these masses."""
        matched = self._plan(query, database, mass)
        best = torch.cat((matched.amax(2), matched.amax(1)), 1)
        return (self._vote(best) * torch.cat((query.valid, database.valid), 1)).sum(1)

    def link_tokens(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """The vote of each descriptor, at its best match; a cell holds those of both sides. They sum to the
        score.
        """
        query, database = self.encode(query), self.encode(database)
        matched = self._plan(query, database, masses(query.valid, database.valid))
        links = torch.zeros_like(matched)
        for axis, side in ((2, query), (1, database)):
            best, place = matched.max(axis, keepdim=True)
            real = side.valid.unsqueeze(axis)
            links.scatter_add_(axis, place, self._vote(best) * real)
        return links

    def _vote(self, best: Tensor) -> Tensor:
        """Votes in [0, 1] of best matches in a plan, elementwise."""
        with torch.autocast(best.device.type, enabled=False):
            return torch.sigmoid(self.f(best.unsqueeze(-1))).squeeze(-1)

    def _plan(self, query: LocalFeatures, database: LocalFeatures, mass: tuple[Tensor, Tensor]) -> Tensor:
        """The transport plan [P, N, M] of pairs between these masses."""
        x, y, valid = query.descriptors, database.descriptors, torch.cat((query.valid, database.valid), 1)
        # Sums of exponentials need float32, also where training computes in fewer bits.
        with torch.autocast(x.device.type, enabled=False):
            x, y = (side.to(torch.promote_types(side.dtype, torch.float32)) for side in (x, y))
            x = x / self.regularization
            cosines = x[..., :DIM] @ y[..., :DIM].mT
            dustbins = y[..., DIM] / self.regularization
            scores = with_dustbins(cosines, x[..., DIM], dustbins, self.dust_bin / self.regularization)
            if not bool(valid.all()):
                either = query.valid.unsqueeze(2) & database.valid.unsqueeze(1)
                scores = scores.masked_fill(F.pad(~either, (0, 1, 0, 1)), float("-inf"))
            corner, bound = self.dust_bin.item() / self.regularization, 1 / self.regularization
            return plan(scores, mass, self.sinkhorn_iterations, corner=corner, bound=bound)

    # ---- start from data ------------------------------------------------------------------------

    @torch.no_grad()
    def fit_projection(self, descriptors: Tensor, *, seed: int = 0) -> None:
        """Start the projection from data: ITQ for bits, centred PCA for full precision.

        descriptors: float [n, D], n at least 128; real descriptors only.
        """
        x = descriptors.to(self.dust_bin.device, torch.float32)
        first = self.remap_local[0]
        if isinstance(first, Binarize):
            first.W.copy_(fit_itq(F.normalize(x, dim=-1), DIM, seed=seed))
        else:
            pca_projection(cast(nn.Linear, first), x)


def _features(descriptors: Tensor, padding: Tensor | None) -> LocalFeatures:
    return LocalFeatures.from_descriptors(descriptors, None if padding is None else ~padding.bool())
