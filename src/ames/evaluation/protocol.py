"""A protocol as data: which images are right, which do not count, and the rules of each figure."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

from ames.errors import AmesError
from ames.evaluation.metrics import AP_RULES, ap_heading

EMPTY_RULES, DUPLICATE_RULES = ("skip", "miss"), ("refuse", "first")


@dataclass(frozen=True)
class Protocol:
    """How a ranking is evaluated.

    positives, junk: keys of the ground truth; an image under both is junk.
    cutoff, ap: ``cutoff`` and ``rule`` of ``ames.evaluation.metrics.average_precision``.
    queries: (start, stop) of the evaluated queries, as in a slice; None: all.
    recall_at, precision_at: the k of ``ames.evaluation.protocol_figures``: a query with a positive among the
    first k, and the precision at k.
    empty: what a query without a positive is: "skip", left out of the means, or "miss", 0 in each.
    empty_recall: the same of recall at k alone; None: as ``empty``.
    duplicates: an image that a ranking lists again: "refuse", an AmesError, or "first", where only its first
    place counts and the others take no position.
    Raises AmesError for an unknown rule, for empty ``positives``, and for values of another type.
    """

    name: str
    positives: tuple[str, ...]
    junk: tuple[str, ...] = ()
    cutoff: int | None = None
    ap: str = "trapezoid"
    queries: tuple[int | None, int | None] | None = None
    recall_at: tuple[int, ...] = ()
    precision_at: tuple[int, ...] = ()
    empty: str = "skip"
    empty_recall: str | None = None
    duplicates: str = "refuse"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise AmesError(f"a protocol is called {self.name!r}: give a name, as text")
        for key, value, right in (
            ("positives", self.positives, _is_keys(self.positives)),
            ("junk", self.junk, _is_keys(self.junk)),
            ("cutoff", self.cutoff, self.cutoff is None or (_is_whole(self.cutoff) and self.cutoff >= 1)),
            ("queries", self.queries, self.queries is None or _is_part(self.queries)),
            ("recall_at", self.recall_at, _are_ks(self.recall_at)),
            ("precision_at", self.precision_at, _are_ks(self.precision_at)),
            ("empty", self.empty, self.empty in EMPTY_RULES),
            ("empty_recall", self.empty_recall, self.empty_recall in (None, *EMPTY_RULES)),
            ("duplicates", self.duplicates, self.duplicates in DUPLICATE_RULES),
        ):
            if not right:
                raise AmesError(f"protocol {self.name!r} has {key} {value!r}: give {_EXPECTED[key]}")
        if not self.positives:
            raise AmesError(f"protocol {self.name!r} has no positives: name the keys of the ground truth")
        if self.ap not in AP_RULES:
            raise AmesError(f"protocol {self.name!r} has ap {self.ap!r}: choose one of {', '.join(AP_RULES)}")
        if self.ap == "at-r" and self.cutoff is not None:
            raise AmesError(f"protocol {self.name!r} has cutoff {self.cutoff}: the rule 'at-r' has none")

    @property
    def ap_name(self) -> str:
        """The name of the mean average precision in tables: mAP, mAP@100, mAP@R."""
        return ap_heading(self.ap, self.cutoff)


_EXPECTED = {
    "positives": "a list of keys of the ground truth",
    "junk": "a list of keys of the ground truth",
    "cutoff": "a whole number of at least 1, or null",
    "queries": "[start, stop], whole numbers or null",
    "recall_at": "different whole numbers from 1 on, rising",
    "precision_at": "different whole numbers from 1 on, rising",
    "empty": "skip or miss",
    "empty_recall": "skip, miss or null",
    "duplicates": "refuse or first",
}


def _is_keys(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(isinstance(key, str) for key in value)


def _is_part(value: Any) -> bool:
    return (
        isinstance(value, (tuple, list)) and len(value) == 2 and all(x is None or _is_whole(x) for x in value)
    )


def _are_ks(value: Any) -> bool:
    whole = isinstance(value, (tuple, list)) and all(_is_whole(k) and k >= 1 for k in value)
    return whole and list(value) == sorted(set(value))


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
