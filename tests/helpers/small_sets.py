"""Small test sets whose figures are not all the same."""

import numpy as np

from ames.datasets.ground_truth import GroundTruth, save_ground_truth
from ames.datasets.layout import DatasetFolder
from ames.global_search.shortlist import Shortlist
from golden import data_root

REVISITED_KEYS = {"easy": 2, "hard": 3, "junk": 2}


def made(path, *, keys=REVISITED_KEYS, queries=6, gallery=150, distractors=0, seed=0):
    """A test set of small descriptors in which right images have noisy copies."""
    rng = np.random.default_rng(seed)
    folder = DatasetFolder(path, "rootsift")
    local = {"query": rng.standard_normal((queries, 5, 8)).astype(np.float32)}
    local["gallery"] = rng.standard_normal((gallery + distractors, 5, 8)).astype(np.float32)
    truth, similarities = [], rng.random((queries, gallery + distractors)).astype(np.float32)
    for query in range(queries):
        drawn, start, found = rng.permutation(gallery), 0, {}
        for key, count in keys.items():
            found[key] = np.sort(drawn[start : start + count])
            start += count
        right = drawn[: start - keys.get("junk", 0)]
        local["gallery"][right] = local["query"][query] + 0.5 * rng.standard_normal((len(right), 5, 8))
        similarities[query, right] += 0.3
        truth.append(found)
    names = [[f"{kind}{i}" for i in range(n)] for kind, n in (("g", gallery), ("q", queries))]
    save_ground_truth(folder.ground_truth, GroundTruth(truth, *names))
    order = np.argsort(-similarities, axis=1, kind="stable")
    Shortlist(order, np.take_along_axis(similarities, order, 1)).save(folder.shortlist)
    for split, x in local.items():
        data_root.write_local(folder.local(split), x, rng, 1, padded=False)
    return folder
