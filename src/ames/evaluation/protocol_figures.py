"""Every figure of a protocol, for each query and as means: average precision, precision and recall at k."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ames.datasets.ground_truth import GroundTruth
from ames.evaluation.metrics import average_precision, hit_at, precision_at
from ames.evaluation.protocols import Protocol, label, ranks_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ProtocolFigures:
    """Figures in percent.

    means: name -> mean over the queries that are not left out; NaN where all are.
    queries: name -> float64 [Q], as ``query_figures`` returns them.
    """

    means: dict[str, float]
    queries: dict[str, np.ndarray]


def figure_names(protocol: Protocol) -> list[str]:
    """Return the names of a protocol's figures, as in tables: mAP@100, P@5, R@1."""
    precisions = [f"P@{k}" for k in protocol.precision_at]
    return [protocol.ap_name, *precisions, *(f"R@{k}" for k in protocol.recall_at)]


def query_figures(ranking: np.ndarray, truth: GroundTruth, protocol: Protocol) -> dict[str, np.ndarray]:
    """Return each figure of each query in percent, name (``figure_names``) -> float64 [Q].

    ranking: int [Q, M] gallery ids, best first, as ``ames.evaluation.protocols.evaluate`` takes it; -1 is no
    entry. Junk, the query itself among it, takes no position, wherever it stands. NaN where the query is left
    out: it is outside of the protocol's part of the queries, or has no positive and the rule is "skip".
    "R@k" is 100 for a query with a positive among the first k, else 0: its mean is the recall of metric
    learning and of place recognition, the share of queries with a hit. A line of the log says where the
    ranking has fewer entries than a figure reads. AmesError as ``evaluate``.
    """
    labels = label(ranking, truth, protocol)
    _say_short(labels.entries.shape[1], len(truth.imlist), protocol)
    names = figure_names(protocol)
    found = np.full((len(truth.queries), len(names)), np.nan)
    for row, entries, count in zip(labels.rows, labels.entries, labels.num_positives, strict=True):
        found[row] = _figures(ranks_of(entries), int(count), protocol)
    return {name: found[:, column].copy() for column, name in enumerate(names)}


def evaluate_protocol(ranking: np.ndarray, truth: GroundTruth, protocol: Protocol) -> ProtocolFigures:
    """Return the figures of a ranking under a protocol, as means and for each query.

    Arguments and AmesError as ``query_figures``.
    """
    queries = query_figures(ranking, truth, protocol)
    return ProtocolFigures(mean_figures(queries), queries)


def mean_figures(queries: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the mean of each figure over the queries that are not left out; NaN where all are."""
    kept = {name: values[~np.isnan(values)] for name, values in queries.items()}
    return {name: float(values.mean()) if len(values) else float("nan") for name, values in kept.items()}


def _say_short(entries: int, images: int, protocol: Protocol) -> None:
    wanted = max([protocol.cutoff or 0, *protocol.recall_at, *protocol.precision_at])
    wanted = min(wanted, images or wanted)
    if entries < wanted:
        log.warning(
            "protocol %r reads the first %d images, and the ranking has %d: what is not in it is not found",
            protocol.name,
            wanted,
            entries,
        )


def _figures(ranks: np.ndarray, count: int, protocol: Protocol) -> np.ndarray:
    """The figures of one query, in the order of ``figure_names``."""
    ap = average_precision(ranks, count, rule=protocol.ap, cutoff=protocol.cutoff)
    precisions = precision_at(ranks, protocol.precision_at, num_positives=count)
    recalls = hit_at(ranks, protocol.recall_at, num_positives=count)
    if not count:
        if protocol.empty == "miss":
            ap, precisions = 0.0, np.zeros(len(precisions))
        if (protocol.empty_recall or protocol.empty) == "miss":
            recalls = np.zeros(len(recalls))
    return np.concatenate([[ap], precisions, recalls])
