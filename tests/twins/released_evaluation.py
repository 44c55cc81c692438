"""A twin of the released evaluation: every query against one rank at a time, once for each protocol.

The gallery file is opened and read again for each rank; where several protocols share a pair it is scored
again. For tests and benchmarks.
"""

import numpy as np
import torch

from ames.evaluation.protocols import evaluate
from ames.evaluation.sweep import junk_ids, metrics
from ames.reranking.fusion import junk_behind
from twins.released_reads import read


@torch.no_grad()
def released_evaluation(model, queries, gallery, shortlist, truth, protocols, *, counts, ks, lamb, temp):
    """model: a ReleasedAMES; queries, gallery: paths of HDF5 files; counts: descriptors of (query, database)
    images. Returns rows of metrics, one for each k, and how often a pair was scored.
    """
    rows = {k: {"num_rerank": k} for k in ks}
    scored = 0
    query, query_mask = read(queries, list(range(len(shortlist.ids))), counts[0])
    for protocol in protocols:
        columns = junk_behind(shortlist.ids, junk_ids(truth, protocol))
        ids = np.take_along_axis(shortlist.ids, columns, 1)
        similarities = np.take_along_axis(shortlist.similarities, columns, 1)
        logits = []
        for rank in range(max(ks)):
            database, mask = read(gallery, ids[:, rank].tolist(), counts[1])
            logits.append(model(query.float(), query_mask, database.float(), mask).numpy())
            scored += len(ids)
        local = 1 / (1 + np.exp(-temp * np.stack(logits, 1)))
        for k in ks:
            blended = lamb * similarities[:, :k] + (1 - lamb) * local[:, :k]
            order = np.argsort(-blended, axis=1, kind="stable")
            ranking = ids.copy()
            ranking[:, :k] = np.take_along_axis(ids[:, :k], order, 1)
            rows[k] |= metrics({protocol: evaluate(ranking, truth, protocol)})
    return list(rows.values()), scored
