"""Figures of a shortlist re-ranked by scores: by protocol, for one blend, a sweep, or the chosen one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from numbers import Integral, Real
from typing import Any

import numpy as np

from ames.datasets.ground_truth import GroundTruth
from ames.errors import AmesError
from ames.evaluation.protocols import ALL, Protocol, Result, evaluate, ideal
from ames.reranking.shortlist_scores import junk_of, rerank
from ames.search.shortlist import Shortlist

# The grid that a validation split chooses from.
LAMBDAS = tuple(round(0.05 * i, 2) for i in range(20))
GAMMAS = (0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0)

PREFIXES = {"easy": "E", "medium": "M", "hard": "H", "public": "pub", "private": "priv"}
_TAKEN = {"val_map": "the validation's mAP", "mean_map": "the mean over the protocols"}


@dataclass(frozen=True)
class Fusion:
    """lambda and gamma of the blend lambda * s_global + (1 - lambda) * sigmoid(gamma * logit)."""

    lamb: float
    temp: float

    @classmethod
    def stored(cls, about: Mapping[str, Any], *, source: str) -> Fusion | None:
        """What was found on a validation split, out of a checkpoint's description; None where it has none."""
        found = about.get("blend")
        if found is None:
            return None
        try:
            blend = cls(lamb=found["lamb"], temp=found["temp"])
            check_blends([blend.lamb], [blend.temp])
        except (TypeError, KeyError, AmesError) as error:
            raise AmesError(f"{source}: its blend is {found!r}, expected lamb and temp") from error
        return blend


def column(protocol: Protocol, figure: str, *, alone: bool = True) -> str:
    """The key of a figure in results: M_map, H_mp, pub_map as published; ``map`` where the protocol stands
    alone, and for GLDv2's ``all``; else the protocol's own name before it.
    """
    prefix = PREFIXES.get(protocol.name, "" if alone or protocol.name == ALL.name else protocol.name)
    return f"{prefix}_{figure}" if prefix else figure


def columns(protocols: Collection[Protocol], figure: str = "map") -> dict[Protocol, str]:
    """The key of a figure under each protocol. AmesError for two protocols of one name or one key, and for a
    key that results have for something else.
    """
    found: dict[str, Protocol] = {}
    for protocol in protocols:
        key = column(protocol, figure, alone=len(protocols) == 1)
        for other in found.values():
            if other.name == protocol.name:
                raise AmesError(f"two protocols are called {protocol.name!r}: give each a name of its own")
        if key in found:
            raise AmesError(
                f"protocols {found[key].name!r} and {protocol.name!r} share the column {key}: rename one"
            )
        if key in _TAKEN:
            raise AmesError(f"protocol {protocol.name!r}: its column {key} is {_TAKEN[key]}: rename it")
        found[key] = protocol
    return {protocol: key for key, protocol in found.items()}


def figures(results: Mapping[Protocol, Result]) -> dict[str, Any]:
    """{"M_map": ..., "M_mp": {"1": ..., "5": ..., "10": ...}, ...} in percent; None where no query has a
    positive.
    """
    maps, precisions = (columns(results, figure) for figure in ("map", "mp"))
    row: dict[str, Any] = {}
    for protocol, result in results.items():
        row[maps[protocol]] = _rounded(result.map)
        row[precisions[protocol]] = {str(k): _rounded(v) for k, v in result.mp.items()}
    return row


def validation_figures(results: Mapping[Protocol, Result]) -> dict[str, float]:
    """What a training notes of a validation: ``val_map``, the mean of the mAPs there are; of several
    protocols also each one's, ``val_M_map`` and so on. AmesError where no query has a positive.
    """
    found = {protocol: result.map for protocol, result in results.items() if not np.isnan(result.map)}
    if not found:
        raise AmesError(f"no query has a positive under {', '.join(p.name for p in results)}")
    each = {}
    if len(results) > 1:
        own = columns(results)
        each = {p: p.name + "_map" if own[p] == "map" else own[p] for p in found}  # val_map is the mean
    return {"val_map": float(np.mean(list(found.values())))} | {
        f"val_{key}": float(found[protocol]) for protocol, key in each.items()
    }


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 3)  # JSON has no NaN


def evaluate_initial(
    shortlist: Shortlist, ground_truth: GroundTruth, protocols: Sequence[Protocol]
) -> dict[Protocol, Result]:
    """The shortlist as it is."""
    return {p: evaluate(shortlist.ids, ground_truth, p) for p in protocols}


def evaluate_oracle(
    shortlist: Shortlist, ground_truth: GroundTruth, protocols: Sequence[Protocol], num_rerank: int
) -> dict[Protocol, Result]:
    """A perfect re-ranking of the first ``num_rerank`` entries: the most that any model can reach."""
    return {
        p: evaluate(ideal(shortlist.ids, ground_truth, p, num_rerank), ground_truth, p) for p in protocols
    }


def evaluate_reranked(
    shortlist: Shortlist,
    logits: np.ndarray,
    ground_truth: GroundTruth,
    protocols: Sequence[Protocol],
    *,
    num_rerank: int,
    blend: Fusion,
) -> dict[Protocol, Result]:
    """The re-ranked shortlist; logits float32 [Q, M] of ``score_shortlist``."""
    results = {}
    for protocol in protocols:
        ranking = rerank(
            shortlist,
            logits,
            junk_of(ground_truth, protocol),
            num_rerank=num_rerank,
            lamb=blend.lamb,
            temp=blend.temp,
            queries=protocol.queries,
        )
        results[protocol] = evaluate(ranking, ground_truth, protocol)
    return results


def sweep(
    shortlist: Shortlist,
    logits: np.ndarray,
    ground_truth: GroundTruth,
    protocols: Sequence[Protocol],
    *,
    num_rerank: Iterable[int],
    lamb: Iterable[float],
    temp: Iterable[float],
) -> list[dict[str, Any]]:
    """One row for every combination, in the order given."""
    rows = []
    for k, a, t in product(num_rerank, lamb, temp):
        results = evaluate_reranked(
            shortlist, logits, ground_truth, protocols, num_rerank=k, blend=Fusion(a, t)
        )
        rows.append({"num_rerank": k, "lamb": a, "temp": t} | figures(results))
    return rows


def tune(
    shortlist: Shortlist,
    logits: np.ndarray,
    ground_truth: GroundTruth,
    protocols: Sequence[Protocol],
    *,
    num_rerank: int,
    slack: float = 0.5,
) -> tuple[Fusion, float]:
    """The blend of the grid for a model, and its mean mAP over ``protocols``: for validation splits. Those
    under which no query has a positive are left out; AmesError where nothing is left.

    mAP is flat around its best. Of all blends within ``slack`` points of it, the one that trusts the
    global similarity most is taken (the largest lambda / ((1 - lambda) gamma), the ratio of the slopes of
    the two terms): a local score learned on one domain is the part that transfers worse to another.
    """
    protocols = with_positives(shortlist, ground_truth, protocols)
    maps: dict[Fusion, float] = {}
    for lamb, temp in product(LAMBDAS, GAMMAS):
        results = evaluate_reranked(
            shortlist, logits, ground_truth, protocols, num_rerank=num_rerank, blend=Fusion(lamb, temp)
        )
        maps[Fusion(lamb, temp)] = float(np.mean([r.map for r in results.values()]))
    good = max(maps.values()) - slack
    chosen = max(
        (blend for blend, value in maps.items() if value >= good),
        key=lambda blend: (blend.lamb / (1 - blend.lamb) / blend.temp, maps[blend]),
    )
    return chosen, maps[chosen]


def with_positives(
    shortlist: Shortlist, ground_truth: GroundTruth, protocols: Sequence[Protocol]
) -> list[Protocol]:
    """The protocols under which some query has a positive; AmesError if there are none."""
    found = [
        p for p, r in evaluate_initial(shortlist, ground_truth, protocols).items() if not np.isnan(r.map)
    ]
    if not found:
        names = ", ".join(p.name for p in protocols)
        raise AmesError(f"no query has a positive under {names}: there is nothing to choose a blend by")
    return found


def check_sweep(
    shortlist: Shortlist, num_rerank: Sequence[int], lamb: Sequence[float], temp: Sequence[float]
) -> None:
    """Refuses empty lists, lambda outside [0, 1], gamma <= 0 and more candidates than the shortlist has."""
    for name, values in (("num_rerank", num_rerank), ("lamb", lamb), ("temp", temp)):
        if not len(values):
            raise AmesError(f"{name} is an empty list: give at least one value")
    size = shortlist.ids.shape[1]
    for k in num_rerank:
        if not isinstance(k, Integral):
            raise AmesError(f"num_rerank {k!r} is not a whole number")
        if not 1 <= k <= size:
            raise AmesError(f"num_rerank {k} is outside 1 ... {size}, the length of the shortlist")
    check_blends(lamb, temp)


def check_blends(lamb: Iterable[float], temp: Iterable[float]) -> None:
    """Refuses lambda outside [0, 1] and gamma <= 0."""
    for value in lamb:
        if not isinstance(value, Real) or not 0 <= value <= 1:
            raise AmesError(f"lamb {value!r} is outside [0, 1]")
    for value in temp:
        if not isinstance(value, Real) or not 0 < value < float("inf"):
            raise AmesError(f"temp {value!r} is not a number above 0")
