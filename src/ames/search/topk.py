"""The best entries of many queries among candidates that come in pieces, exactly: ties by id."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_LOW = 2**32 - 1
_PATIENCE = 256  # candidates of a query that are collected at least before the best are chosen
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


class Best:
    """The ``k`` best entries of ``count`` queries among all that were offered, in the gallery's order.

    Candidates are collected until there are many; only then the best are chosen, and what is not
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
        (count, n), room = similarities.shape, self._keys.shape[1]
        device = similarities.device
        if not self._chosen and self._most + n <= room:
            ids = torch.arange(start, start + n, device=device)
            self._keys[:, self._most : self._most + n] = keys(similarities, ids)
            self._filled += n
        else:
            if not self._chosen:
                self._choose()
            places, bounds = self._better(similarities)
            if int((self._filled + bounds.diff()).max()) > room:
                self._choose()
                places, bounds = self._better(similarities)
            # Behind what its query has already: the first new one at `filled`, the next behind it.
            counts, rows = bounds.diff(), torch.arange(count, device=device)
            columns = places - (rows * n).repeat_interleave(counts)
            targets = (rows * room + self._filled - bounds[:-1]).repeat_interleave(counts)
            targets += torch.arange(len(places), device=device)
            self._keys.view(-1)[targets] = keys(similarities.flatten()[places], start + columns)
            self._filled += counts
        self._most = int(self._filled.max())
        if self._most > self._k + max(self._k, _PATIENCE):
            self._choose()

    def _better(self, similarities: Tensor) -> tuple[Tensor, Tensor]:
        """Where in [count, n], flattened, what is still taken lies, and where each query's part of it begins.
        An equal similarity is not taken: its id is larger than those that are there.
        """
        taken = (similarities > self._least).flatten()
        if taken.device.type == "cpu":  # numpy does it eight times as fast
            places = torch.from_numpy(np.flatnonzero(taken.numpy()))
        else:
            places = taken.nonzero()[:, 0]
        count, n = similarities.shape
        return places, torch.searchsorted(places, torch.arange(count + 1, device=places.device) * n)

    def _choose(self) -> None:
        best = self._keys[:, : self._most].topk(self._k, dim=1, sorted=False).values  # half the time
        self._keys[:, : self._k] = best
        self._keys[:, self._k : self._most] = NONE
        self._filled[:] = self._most = self._k
        self._least = similarities_of(best.amin(1, keepdim=True))
        self._chosen = True

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """ids int64 [count, k] and similarities float32, best first, after ``k`` or more were offered."""
        best = self._keys[:, : self._most].topk(self._k, dim=1).values
        return ids_of(best).cpu().numpy(), similarities_of(best).cpu().numpy()


def capacity(k: int, at_once: int, total: int) -> int:
    """Candidates to hold of a query, of ``total`` that come ``at_once``: the best so far and new ones."""
    return min(k + max(k, at_once), total)
