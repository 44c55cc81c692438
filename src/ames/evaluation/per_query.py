"""Figures of each query, so that a person sees which queries, and which objects, are searched badly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ames.datasets.ground_truth import GroundTruth
from ames.evaluation.metrics import average_precision, precision_at, recall_at
from ames.evaluation.protocols import Protocol, label, ranks_of

KS = (1, 5, 10)


@dataclass(frozen=True, eq=False)
class Figures:
    """Figures in percent: aps float64 [Q], precisions and recalls float64 [Q, len(ks)]; NaN of queries
    without an answer.
    """

    aps: np.ndarray
    precisions: np.ndarray
    recalls: np.ndarray
    ks: tuple[int, ...] = KS

    def mean(self, rows: Sequence[int] | np.ndarray | None = None) -> dict[str, float | None]:
        """Return {"mAP": ..., "P@1": ..., "R@1": ..., ...} over some queries (None: all).

        Queries without an answer are left out; None where all are.
        """
        chosen = np.arange(len(self.aps)) if rows is None else np.asarray(rows, np.int64)
        chosen = chosen[~np.isnan(self.aps[chosen])]
        columns = {"mAP": self.aps}
        for letter, table in (("P", self.precisions), ("R", self.recalls)):
            columns |= {f"{letter}@{k}": table[:, i] for i, k in enumerate(self.ks)}
        return {key: float(x[chosen].mean()) if len(chosen) else None for key, x in columns.items()}


def figures(
    ranking: np.ndarray, ground_truth: GroundTruth, protocol: Protocol, ks: Sequence[int] = KS
) -> Figures:
    """Return the figures of each query of a ranking int [Q, M], which is as ``protocols.evaluate`` takes it.

    Average precision and precision at k are those of ``protocols.evaluate``; recall at k is
    ``metrics.recall_at``. AmesError as ``protocols.evaluate``.
    """
    labels = label(ranking, ground_truth, protocol)
    count = len(labels.rows)
    aps = np.full(count, np.nan)
    precisions, recalls = np.full((2, count, len(ks)), np.nan)
    for row, (entries, positives) in enumerate(zip(labels.entries, labels.num_positives, strict=True)):
        ranks = ranks_of(entries)
        aps[row] = average_precision(ranks, positives, rule=protocol.ap, cutoff=protocol.cutoff)
        precisions[row] = precision_at(ranks, ks, num_positives=positives)
        recalls[row] = recall_at(ranks, ks, num_positives=positives)
    return Figures(aps, precisions, recalls, tuple(ks))
