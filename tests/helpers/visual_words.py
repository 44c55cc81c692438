"""Small images for inverted files: drawn ones, and ones whose words are known."""

import numpy as np

from ames.local_search.codebook import Codebook
from ames.local_search.inverted_file import InvertedFile
from ames.local_search.kernel import Kernel
from golden import asmk


def some(count, dim, seed, most=9):
    """Images of 0 to ``most`` vectors; the second one has none."""
    rng = np.random.default_rng(seed)
    sizes = [0 if i == 1 else rng.integers(1, most) for i in range(count)]
    return [asmk.unit(rng.standard_normal((n, dim)).astype(np.float32)) for n in sizes]


def planted(*words):
    """An image of one descriptor near each of these words of ``axes``."""
    x = np.zeros((len(words), 8), np.float32)
    x[np.arange(len(words)), list(words)] = 1.25
    return x


def axes(**settings):
    return InvertedFile(Codebook(np.eye(8, dtype=np.float32)), Kernel(query_assign=1, **settings))
