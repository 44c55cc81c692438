"""How images with classes are evaluated, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ames.errors import AmesError
from ames.evaluation.metrics import AP_RULES, ap_heading


@dataclass(frozen=True)
class ClassProtocol:
    """How the search for images of the same class is evaluated.

    recall_at: the k of recall@k, the share of queries with an image of their class among the first k.
    average_precision: rules, none or several, of which each gives an mAP. "trapezoid": over the whole
    ranking, the mean of the precision just before and at each hit (revisited Oxford/Paris evaluation; RAML).
    "rectangle": the precision at each hit among the first ``cutoff``, over min(positives, cutoff) (GLDv2;
    ELViS on classes). "at-r": MAP@R, the precision at each hit among the first R, over R, which is the number
    of positives (Musgrave et al., "A Metric Learning Reality Check", ECCV 2020).
    cutoff: of "rectangle" alone; None: the whole ranking.
    skip_self: queries and gallery are the same images, and none is searched for itself: it is removed by its
    number, not by its rank, so that a copy of it counts.
    transform: the test transform of the images, which changes figures: "crop", "square" or "long" (``resize``
    of ``ames.embedders.inputs.InputSpec``), or "any". It goes into results; vectors are not compared with it.
    AmesError for values of another type or out of bounds.
    """

    name: str
    recall_at: tuple[int, ...] = (1, 2, 4, 8)
    average_precision: tuple[str, ...] = ("trapezoid", "at-r")
    cutoff: int | None = None
    skip_self: bool = True
    transform: str = "any"

    def __post_init__(self) -> None:
        ks, rules = self.recall_at, self.average_precision
        for key, right, expected in (
            ("name", isinstance(self.name, str) and bool(self.name.strip()), "text"),
            ("recall_at", _are_ks(ks), "different whole numbers from 1 on, rising"),
            ("average_precision", _are_rules(rules), f"a list of {', '.join(AP_RULES)}, each once"),
            ("cutoff", self.cutoff is None or _is_k(self.cutoff), "a whole number from 1 on, or null"),
            ("skip_self", isinstance(self.skip_self, bool), "true or false"),
            ("transform", isinstance(self.transform, str) and bool(self.transform), "a name, as text"),
        ):
            if not right:
                raise AmesError(f"protocol {self.name!r}: {key} is {getattr(self, key)!r}: give {expected}")
        if self.cutoff is not None and "rectangle" not in rules:
            raise AmesError(f"protocol {self.name!r}: cutoff {self.cutoff} is for the rule 'rectangle' alone")

    def heading(self, rule: str) -> str:
        """Return the name of a rule's mAP in tables: mAP, mAP@100, mAP@R."""
        return ap_heading(rule, self.cutoff if rule == "rectangle" else None)


def _is_k(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_ks(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_is_k, value)) and list(value) == sorted(set(value))


def _are_rules(value: Any) -> bool:
    return isinstance(value, tuple) and all(value.count(x) == 1 and x in AP_RULES for x in value)
