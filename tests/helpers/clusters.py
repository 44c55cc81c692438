"""Global descriptors in clusters, as those of real images are."""

import numpy as np


def unit(n, seed=0, width=32):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((12, width))
    x = centres[rng.integers(0, 12, n)] + 0.7 * rng.standard_normal((n, width))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
