"""Small test sets with local and global descriptors, for chains."""

import numpy as np

from ames.datasets.ground_truth import load_ground_truth
from ames.descriptors.local import write_globals
from helpers import small_sets

WIDTH = 8


def made(path, **options):
    """``small_sets.made`` with global descriptors; those of right images are nearer to the query's."""
    folder = small_sets.made(path, **options)
    truth = load_ground_truth(folder.ground_truth)
    rng = np.random.default_rng(options.get("seed", 0) + 50)
    vectors = {
        "query": rng.standard_normal((len(truth.qimlist), 6)),
        "gallery": rng.standard_normal((len(truth.imlist), 6)),
    }
    for number, query in enumerate(truth.queries):
        for key in ("easy", "hard", "ok"):
            for image in query.get(key, ()):
                vectors["gallery"][image] += 0.7 * vectors["query"][number]
    for split, x in vectors.items():
        write_globals(folder.vectors(split), x / np.linalg.norm(x, axis=1, keepdims=True))
    return folder
