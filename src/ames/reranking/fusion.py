"""Fusion of global similarity and local score, and ranking by it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from ames.errors import AmesError
from ames.global_search.shortlist import Shortlist


@dataclass(frozen=True)
class Fusion:
    """lambda and gamma of lambda * s_global + (1 - lambda) * sigmoid(gamma * logit) (AMES, ECCV 2024).

    Configurations, results and checkpoints call them ``lamb`` and ``temp``: ``from_keys``, ``to_keys``.
    """

    lamb: float
    gamma: float

    def __post_init__(self) -> None:
        check_fusions([self.lamb], [self.gamma])

    @classmethod
    def from_keys(cls, keys: Any, *, source: str) -> Fusion:
        """Read published keys. AmesError begins with ``source`` where they are missing or out of range."""
        try:
            fusion = cls(lamb=keys["lamb"], gamma=keys["temp"])
        except (TypeError, KeyError, AmesError) as error:
            raise AmesError(f"{source} is {keys!r}, expected lamb and temp") from error
        return fusion

    @classmethod
    def from_checkpoint(cls, about: Mapping[str, Any], *, source: str) -> Fusion | None:
        """Read the choice of a validation split from a checkpoint's description; None if it has none."""
        keys = about.get("blend")
        return None if keys is None else cls.from_keys(keys, source=f"{source}: its blend")

    def to_keys(self) -> dict[str, float]:
        """Return the published keys."""
        return {"lamb": self.lamb, "temp": self.gamma}

    def fuse(self, similarities: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Return the fused scores, elementwise: float32 similarities and logits of any one shape."""
        # The sigmoid, without overflow.
        local = 0.5 * (1 + np.tanh(0.5 * self.gamma * logits.astype(np.float64)))
        return self.lamb * similarities + (1 - self.lamb) * local


def check_fusions(lamb: Iterable[float], gamma: Iterable[float]) -> None:
    """Refuse lambda outside [0, 1] and gamma <= 0."""
    for value in lamb:
        if not isinstance(value, Real) or not 0 <= value <= 1:
            raise AmesError(f"lamb {value!r} is outside [0, 1]")
    for value in gamma:
        if not isinstance(value, Real) or not 0 < value < float("inf"):
            raise AmesError(f"temp {value!r} is not a number above 0")


def junk_behind(shortlist_ids: np.ndarray, junk: Sequence[np.ndarray]) -> np.ndarray:
    """Return columns int64 [Q, M] that move the junk of each query, and empty entries (-1), of a shortlist
    [Q, M] to the end; all else keeps its order. The first k are taken after that.
    """
    behind = np.stack([np.isin(row, j) | (row < 0) for row, j in zip(shortlist_ids, junk, strict=True)])
    return np.argsort(behind, axis=1, kind="stable")


def rank(scores: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Return the order int64 [Q, k] by descending scores [Q, k]; ties keep their order, entries that are not
    ``present`` come last. AmesError if a score that is present is NaN.
    """
    if np.isnan(scores[present]).any():
        raise AmesError("some of the entries to re-rank were not scored")
    return np.argsort(np.where(present, -scores, np.inf), axis=1, kind="stable")


def rerank(
    shortlist: Shortlist, logits: np.ndarray, junk: Sequence[np.ndarray], *, num_rerank: int, fusion: Fusion
) -> np.ndarray:
    """Return the ranking int64 [Q, M]: junk moved to the end, then the first ``num_rerank`` by fused score.

    Ties and entries after ``num_rerank`` keep the shortlist's order. AmesError if a score is missing.
    """
    columns = junk_behind(shortlist.ids, junk)
    ids, similarities, local = (
        np.take_along_axis(x, columns, 1) for x in (shortlist.ids, shortlist.similarities, logits)
    )
    head = slice(None), slice(num_rerank)
    order = rank(fusion.fuse(similarities[head], local[head]), ids[head] >= 0)
    ids[head] = np.take_along_axis(ids[head], order, 1)
    return ids


def rerank_by(found: Shortlist, logits: np.ndarray, fusion: Fusion, k: int) -> Shortlist:
    """Return the best ``k`` of a shortlist with their fused scores; empty entries stay last."""
    scores = np.where(found.ids >= 0, fusion.fuse(found.similarities, logits), -np.inf)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Shortlist(
        np.take_along_axis(found.ids, order, 1), np.take_along_axis(scores, order, 1).astype(np.float32)
    )
