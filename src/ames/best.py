"""The best entries of many queries among candidates that come in pieces, exactly: ties by id."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_LOW = 2**32 - 1
NONE = torch.iinfo(torch.int64).min  # no candidate


def keys(similarities: Tensor, ids: Tensor) -> Tensor:
    """int64, larger the better a candidate is: by similarity float32, equal ones by the smaller id.

    The upper half is the order of the floats as whole numbers, the lower one the id (below 2**32), negated:
    one number says everything, and the best are found without caring for ties.
    """
    bits = (similarities + 0.0).view(torch.int32)  # -0 is 0
    bits = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # negative floats count backwards
    return (bits.long() << 32) | (_LOW - ids)


def ids_of(found: Tensor) -> Tensor:
    """int64 ids of keys."""
    return _LOW - (found & _LOW)


def similarities_of(found: Tensor) -> Tensor:
    """float32 similarities of keys, bit for bit."""
    bits = (found >> 32).int()
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).view(torch.float32)


def best_of(candidates: Tensor, k: int) -> Tensor:
    """The ``k`` best keys [Q, k] of [Q, n], best first."""
    return candidates.topk(k, dim=1).values


class Best:
    """The ``k`` best entries of ``count`` queries among all that were offered, in the gallery's order.

    Candidates are collected until a query's room is full; only then the best are chosen, and what is not
    better than the last of them is not taken any more. room: of a query, ``capacity``.
    """

    def __init__(self, count: int, k: int, room: int, device: torch.device) -> None:
        self._k = k
        self._keys = torch.full((count, room), NONE, dtype=torch.int64, device=device)
        self._filled = torch.zeros(count, dtype=torch.int64, device=device)
        self._least = torch.full((count, 1), -torch.inf, device=device)
        self._most = 0  # filled at most
        self._chosen = False  # until then every query has everything that was offered

    def offer(self, similarities: Tensor, start: int) -> None:
        """similarities float32 [count, n] of the images from ``start`` on, behind all earlier ones."""
        n, room = similarities.shape[1], self._keys.shape[1]
        if not self._chosen and self._most + n <= room:
            ids = torch.arange(start, start + n, device=similarities.device)
            self._keys[:, self._most : self._most + n] = keys(similarities, ids)
            self._filled += n
            self._most += n
            return
        if not self._chosen:
            self._choose()
        rows, columns, counts = self._better(similarities)
        if int((self._filled + counts).max()) > room:
            self._choose()
            rows, columns, counts = self._better(similarities)
        # Behind what its query has already: the first of a query's new ones at `filled`, the next behind it.
        before = self._filled - (counts.cumsum(0) - counts)
        place = torch.arange(len(rows), device=rows.device) + before[rows]
        self._keys[rows, place] = keys(similarities[rows, columns], start + columns)
        self._filled += counts
        self._most = int(self._filled.max())

    def _better(self, similarities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(queries, columns) of what is still taken, by query, and how many each query has of them. An equal
        similarity is not: its id is larger than those that are there.
        """
        taken = (similarities > self._least).flatten()
        if taken.device.type == "cpu":  # numpy does it eight times as fast
            places = torch.from_numpy(np.flatnonzero(taken.numpy()))
        else:
            places = taken.nonzero()[:, 0]
        rows = places // similarities.shape[1]
        columns = places - rows * similarities.shape[1]
        return rows, columns, torch.bincount(rows, minlength=len(similarities))

    def _choose(self) -> None:
        best = best_of(self._keys[:, : self._most], self._k)
        self._keys[:, : self._k] = best
        self._keys[:, self._k :] = NONE
        self._filled[:] = self._most = self._k
        self._least = similarities_of(best[:, -1:])
        self._chosen = True

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """ids int64 [count, k] and similarities float32, best first, after ``k`` or more were offered."""
        best = best_of(self._keys[:, : self._most], self._k)
        return ids_of(best).cpu().numpy(), similarities_of(best).cpu().numpy()


def capacity(k: int, at_once: int, total: int) -> int:
    """Candidates to hold of a query, of ``total`` that come ``at_once``: the best so far and new ones."""
    return min(k + max(k, at_once), total)
