"""Spatial verification: the matches of two images that one geometric model explains (DELG, ECCV 2020)."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.models.base import FromZero, PairSimilarity, constructor_arguments, sound
from ames.models.layers.affine_ransac import SAMPLE, affine_inliers
from ames.models.layers.opencv_ransac import ESTIMATORS, opencv_inliers, sample_size
from ames.models.layers.places import are_shares, checked_positions, checked_size, size_or_nominal
from ames.models.layers.putative import cosines, nearest

OWN = "affine"
_FLOORS = ("none", "sample")
_log = logging.getLogger(__name__)


class SpatialVerification(PairSimilarity):
    """The number of inliers of a geometric model from the database image to the query: a whole number from 0
    to the number of query descriptors, no logit.

    Putative matches: of each query descriptor the nearest database one, if its L2 distance (both of unit
    length) is below ``distance``; ``mutual``: and if that one has no nearer query descriptor; ``ratio``: and
    if it is nearer than ``ratio`` times the second nearest. Otherwise one database descriptor may match many.
    The model is estimated in pixels of the original images: an inlier lies less than ``residual`` from its
    place. As published, 3 matches or fewer have score 0 (as many as determine the model, or fewer), and
    unrelated images with 4 or more have 3, which is what three matches give by themselves. ``floor``
    "sample" subtracts that: the score is max(inliers - 3, 0), 4 for a homography, 7 for a fundamental matrix.

    ``estimator``: "affine" (``ames.models.layers.affine_ransac``), with ``trials`` samples drawn from
    ``seed``, or one of ``ames.models.layers.opencv_ransac.ESTIMATORS``, such as "homography-magsac", which
    have a seed of their own and may end before all trials. Each is deterministic, and depends on the pair
    alone: its matches are put in the order of their places ("prosac": of their distances) first.

    Positions are shares of height and width, or pixels where an image has one above 2. An affine model or a
    homography from database to query absorbs any scale of the database image's axes, so that only the query
    needs ``image_size``. A fundamental matrix is measured in both images, and needs both. AmesError where it
    is missing; ``nominal_size`` takes such an image as a square of so many pixels instead. Codes are a unit
    descriptor and its place (row, col), fp16 each: 2 D + 4 bytes, so that a compact database can be verified.
    Places are stored as they were given, for fundamental matrices in pixels. fp16 rounds a share by a
    quarter of a pixel of 1024 at most.
    """

    learned = False
    reads_positions = True
    reads_size: tuple[str, ...] = ("query",)
    cpu_tokens = 5120
    score_unit = 10.0  # inliers
    links_are = "inliers"

    def __init__(
        self,
        *,
        local_dim: int | None = None,
        distance: float = 1.0,
        mutual: bool = False,
        ratio: float | None = None,
        estimator: str = OWN,
        trials: int = 1000,
        residual: float = 20.0,
        floor: str = "none",
        seed: FromZero = 0,
        nominal_size: int | None = None,
    ) -> None:
        arguments = constructor_arguments(locals())
        super().__init__()
        for name, value, known in (("estimator", estimator, (OWN, *ESTIMATORS)), ("floor", floor, _FLOORS)):
            if value not in known:
                raise AmesError(f"{name} {value!r} is none of {', '.join(known)}")
        for name, number in (("distance", distance), ("ratio", ratio), ("residual", residual)):
            if number is not None and number <= 0:
                raise AmesError(f"{name} {number} is not above 0")
        if ratio is not None and ratio > 1:
            raise AmesError(f"ratio {ratio} is above 1: a nearest descriptor is no farther than the second")
        self.arguments, self.local_dim = arguments, local_dim
        self.estimator, self.trials, self.residual, self.seed = estimator, trials, residual, seed
        self.floor, self.nominal_size = floor, nominal_size
        self.sample = SAMPLE if estimator == OWN else sample_size(estimator)
        self._nearest = partial(nearest, distance=distance, ratio=ratio, both_ways=mutual)
        self.code_bytes = 2 * ((local_dim or 0) + 2)
        self.in_both = estimator.startswith("fundamental")
        self.reads_size = ("query", "database") if self.in_both else ("query",)
        if nominal_size is not None:
            said = "spatial verification takes a query of unknown size as %d x %d pixels"
            _log.warning(said, nominal_size, nominal_size)

    # ---- one image ------------------------------------------------------------------------------

    def tokens(self, local: LocalFeatures) -> LocalFeatures:
        """Unit descriptors with checked positions and sizes. AmesError without positions."""
        kind, values = type(self).__name__, self.normalized(local, torch.float32)
        positions, size = checked_positions(local, kind), checked_size(local, kind)
        return replace(local, descriptors=values, positions=positions, image_size=size)

    def compress(self, local: LocalFeatures) -> LocalFeatures:
        """[..., M, D] -> fp16 [..., M, D + 2]: the unit descriptor, and its place."""
        tokens = self.tokens(local)
        places = self._pixels(tokens, "database") if self.in_both else tokens.positions
        assert places is not None
        most = torch.finfo(torch.float16).max
        codes = torch.cat([tokens.descriptors, places.clamp(-most, most)], -1)
        return tokens.with_descriptors(codes.half(), coded=True)

    def expand(self, codes: LocalFeatures) -> LocalFeatures:
        if self.local_dim is not None:  # else their width is that of the descriptors, whatever it is
            self.check_form(codes)
        values = codes.descriptors.float()
        values = sound(values, values.sum(-1), codes.valid)
        units = F.normalize(values[..., :-2], dim=-1)
        return replace(codes, descriptors=units, positions=values[..., -2:], coded=False)

    def projection(self) -> dict[str, Tensor]:
        """As in the base class: places in pixels are other codes than shares."""
        return {"pixels": torch.ones(1)} if self.in_both else {}

    # ---- a pair ---------------------------------------------------------------------------------

    def score_encoded(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        _, inliers = self.inliers(query.pad(max(query.size, 1)), database.pad(max(database.size, 1)))
        count = inliers.sum(-1)
        return (count if self.floor == "none" else (count - self.sample).clamp(min=0)).float()

    def link_tokens(self, query: LocalFeatures, database: LocalFeatures) -> Tensor:
        """1 for each inlier."""
        place, inliers = self.inliers(query, database)
        links = torch.zeros(*place.shape, database.size, device=place.device)
        return links.scatter_(2, place[..., None], inliers[..., None].float())

    def putative(self, query: LocalFeatures, database: LocalFeatures) -> tuple[Tensor, Tensor]:
        """Tokens of P pairs, N and M at least 1 -> (database descriptor int64 [P, N], matched bool [P, N]) of
        each query descriptor.
        """
        return self._nearest(cosines(query, database))

    def inliers(self, query: LocalFeatures, database: LocalFeatures) -> tuple[Tensor, Tensor]:
        """As ``putative``, of the inliers alone."""
        cosine = cosines(query, database)
        place, matched = self._nearest(cosine)
        enough = matched.sum(-1) > self.sample
        matched &= enough[:, None]
        theirs = self._pixels(database, "database", enough) if self.in_both else database.positions
        assert theirs is not None
        there = theirs.gather(1, place[..., None].expand(-1, -1, 2))
        sides = self._pixels(query, "query", enough), there
        nearness = cosine.amax(-1) if self.estimator.endswith("prosac") else None
        order = _in_order(matched, *sides, nearness)
        ours, theirs = (x.gather(1, order[..., None].expand(-1, -1, 2)) for x in sides)
        found = self._estimate(ours, theirs, matched.sum(-1))
        return place, torch.zeros_like(found).scatter_(1, order, found)

    def _pixels(self, local: LocalFeatures, side: str, wanted: Tensor | None = None) -> Tensor:
        """Places of descriptors in pixels, [..., N, 2]; of images that are not ``wanted``, bool [...], they
        may be anything.
        """
        shares = are_shares(local)
        assert local.positions is not None
        if not bool((shares if wanted is None else shares & wanted).any()):
            return local.positions
        size = size_or_nominal(local, "SpatialVerification", side, self.nominal_size)
        scale = torch.where(shares.unsqueeze(-1), size, torch.ones_like(size))
        return local.positions * scale.unsqueeze(-2)

    def _estimate(self, query: Tensor, database: Tensor, counts: Tensor) -> Tensor:
        """Inliers bool [P, N] of matched points [P, N, 2], each pair's first ``counts``."""
        if self.estimator == OWN:
            limits = {"residual": self.residual, "trials": self.trials, "seed": self.seed}
            return affine_inliers(query, database, counts, **limits)  # type: ignore[arg-type]
        found = np.zeros(query.shape[:2], bool)
        ours, theirs = query.cpu().numpy(), database.cpu().numpy()
        for pair, n in enumerate(counts.tolist()):
            if n:
                sides = ours[pair, :n], theirs[pair, :n]
                found[pair, :n] = opencv_inliers(
                    self.estimator, *sides, residual=self.residual, trials=self.trials
                )
        return torch.from_numpy(found).to(query.device)


def _in_order(matched: Tensor, query: Tensor, database: Tensor, nearness: Tensor | None) -> Tensor:
    """int64 [P, N]: matches first, by their places, or before that by falling ``nearness`` [P, N], so that
    the order of descriptors does not matter.
    """
    keys = [database[..., 1], database[..., 0], query[..., 1], query[..., 0]]
    keys += [] if nearness is None else [(-nearness * 1e4).round()]  # rounded alike in any batch
    order = torch.arange(matched.shape[1], device=matched.device).expand(matched.shape)
    for key in (*keys, ~matched):
        order = order.gather(1, key.gather(1, order).argsort(dim=1, stable=True))
    return order
