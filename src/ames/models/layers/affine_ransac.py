"""An affine model between matched points, by RANSAC over samples of three (Fischler and Bolles, 1981).

Nothing is drawn while pairs are compared. The samples depend on the number of matches and on a seed alone: so
a pair has the same inliers in any batch. Where there are no more triples than trials, all are tried, and the
count of inliers is the largest that any triple reaches.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

SAMPLE = 3  # matches that determine the model
_FLAT = 1e-10  # area of a triangle, as a share of its sides' product, below which it has no model
# Residuals, of a group of pairs, that are computed together. On a CPU they should stay in its caches; larger
# arrays are fetched from the system anew each time, which takes longer than what is computed with them.
_CELLS = {"cpu": 1 << 16}
_CELLS_ELSEWHERE = 1 << 24
_WASTE = 0.75  # the share of the matches of the largest pair of a group that the others have at least


@lru_cache(maxsize=1024)
def triples(count: int, trials: int, seed: int) -> Tensor:
    """int64 [T, 3]: all triples of ``count`` matches if there are ``trials`` at most, else ``trials`` random
    ones, each of three different matches. Do not write to it.
    """
    if math.comb(count, SAMPLE) <= trials:
        found = np.array(list(combinations(range(count), SAMPLE)), np.int64).reshape(-1, SAMPLE)
        return torch.from_numpy(found)
    rng = np.random.default_rng([seed, count])
    first, second, third = (rng.integers(0, count - skipped, trials) for skipped in range(SAMPLE))
    second += second >= first
    low, high = np.minimum(first, second), np.maximum(first, second)
    third += third >= low
    third += third >= high
    return torch.from_numpy(np.stack([first, second, third], 1))


def affine_inliers(
    query: Tensor, database: Tensor, counts: Tensor, *, residual: float, trials: int, seed: int
) -> Tensor:
    """Return the inliers of each pair's best affine model from database to query: bool [P, n].

    query, database: [P, n, 2], matched points, each pair's first ``counts`` (int64 [P]). An inlier lies less
    than ``residual`` from where the model puts its database point; of models with equally many, the first.
    Triples whose database points lie on a line have no model. Pairs of fewer than three matches have no
    inliers.
    """
    found = torch.zeros(query.shape[:2], dtype=torch.bool, device=query.device)
    numbers = counts.tolist()
    cells = _CELLS.get(query.device.type, _CELLS_ELSEWHERE)
    order = sorted((p for p, n in enumerate(numbers) if n >= SAMPLE), key=lambda p: -numbers[p])
    while order:
        size = numbers[order[0]]
        most = max(1, cells // (min(trials, math.comb(size, SAMPLE)) * size))
        group = [p for p in order[:most] if numbers[p] >= _WASTE * size]
        order = order[len(group) :]
        samples = [triples(numbers[p], trials, seed) for p in group]
        longest = max(map(len, samples))
        # A shorter table repeats its first triple, which changes nothing.
        table = torch.stack([torch.cat([x, x[:1].expand(longest - len(x), -1)]) for x in samples])
        rows = torch.tensor(group, device=query.device)
        real = torch.arange(size, device=query.device) < counts[rows][:, None]
        ours, theirs = (side[rows, :size].double() for side in (query, database))
        found[rows, :size] = _best(ours, theirs, real, table.to(query.device), residual)
    return found


def _best(query: Tensor, database: Tensor, real: Tensor, table: Tensor, residual: float) -> Tensor:
    """Inliers bool [G, n] of the best model; points float64 [G, n, 2], real bool [G, n], table [G, T, 3]."""
    model = _models(query, database, table)
    points = torch.cat([database, torch.ones_like(database[..., :1])], -1)
    squared = None
    for axis in range(2):
        off = torch.baddbmm(query[..., axis, None], points, model[..., axis].mT, beta=-1)  # [G, n, T]
        squared = off.square_() if squared is None else squared.add_(off.square_())
    assert squared is not None
    inside = (squared < residual**2) & real[..., None]
    best = inside.sum(1).argmax(-1)
    return inside.gather(2, best[:, None, None].expand(-1, inside.shape[1], 1))[..., 0]


def _models(query: Tensor, database: Tensor, table: Tensor) -> Tensor:
    """[G, T, 3, 2]: affine models (factors of row, of column, constant) through triples, NaN without one."""
    G, T, _ = table.shape
    where = table.view(G, T * SAMPLE, 1).expand(-1, -1, 2)
    a, b, c = database.gather(1, where).view(G, T, SAMPLE, 2).unbind(2)
    u, v, w = query.gather(1, where).view(G, T, SAMPLE, 2).unbind(2)
    first, second = b - a, c - a
    area = first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
    flat = area.abs() <= _FLAT * first.norm(dim=-1) * second.norm(dim=-1)
    area = area.masked_fill(flat, torch.nan)[..., None]
    of_row = ((v - u) * second[..., 1:] - (w - u) * first[..., 1:]) / area
    of_column = ((w - u) * first[..., :1] - (v - u) * second[..., :1]) / area
    constant = u - a[..., :1] * of_row - a[..., 1:] * of_column
    return torch.stack([of_row, of_column, constant], 2)
