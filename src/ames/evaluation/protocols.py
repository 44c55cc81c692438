"""Evaluation protocols as data, and the evaluation of a ranking under them.

A protocol names the keys of the ground truth with the positives and with the junk (images that are neither
right nor wrong, and are removed before positions are counted), the cutoff of the ranking, and the rule of
average precision.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np

from ames.datasets.ground_truth import GroundTruth, ids
from ames.errors import AmesError
from ames.evaluation.metrics import AP_RULES, ap_heading, average_precision, precision_at
from ames.global_search.shortlist import first_repeated

_POSITIVE, _JUNK, _EMPTY = 1, 2, 3
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


EASY = Protocol("easy", positives=("easy",), junk=("junk", "hard"))
MEDIUM = Protocol("medium", positives=("easy", "hard"), junk=("junk",))
HARD = Protocol("hard", positives=("hard",), junk=("junk", "easy"))
REVISITED = (EASY, MEDIUM, HARD)

NUM_PRIVATE = 750  # the last queries of the GLDv2 test set; the first 379 are public
PUBLIC = Protocol("public", positives=("ok",), cutoff=100, ap="rectangle", queries=(None, -NUM_PRIVATE))
PRIVATE = Protocol("private", positives=("ok",), cutoff=100, ap="rectangle", queries=(-NUM_PRIVATE, None))
ALL = Protocol("all", positives=("ok",), cutoff=100, ap="rectangle")
GLDV2 = (PUBLIC, PRIVATE, ALL)

KNOWN = {protocol.name: protocol for protocol in (*REVISITED, *GLDV2)}  # by their names, in configurations

LEAVE_ONE_OUT = Protocol("leave-one-out", positives=("ok",), junk=("junk",))  # junk: the image itself


def protocols_by_name(names: Sequence[str], known: Iterable[Protocol]) -> tuple[Protocol, ...]:
    """Return each named protocol once, the later of two of one name. AmesError for an unknown name."""
    found = {p.name: p for p in known}
    for name in names:
        if name not in found:
            raise AmesError(f"protocol {name!r} is none of {', '.join(found)}")
    return tuple(found[name] for name in dict.fromkeys(names))


def choose_protocols(ground_truth: GroundTruth, names: Sequence[str] = ()) -> tuple[Protocol, ...]:
    """Return protocols by name; without names, those for the keys of the ground truth.

    easy, hard and junk: REVISITED; ok and junk: LEAVE_ONE_OUT; ok alone: GLDV2, or ALL if there are no more
    queries than in GLDv2's private part. AmesError for an unknown name, and for other keys.
    """
    if names:
        return protocols_by_name(names, (*REVISITED, *GLDV2, LEAVE_ONE_OUT))
    keys = set(ground_truth.queries[0]) if ground_truth.queries else set()
    if {"easy", "hard", "junk"} <= keys:
        return REVISITED
    if {"ok", "junk"} <= keys:
        return (LEAVE_ONE_OUT,)
    if "ok" in keys:
        return GLDV2 if len(ground_truth.queries) > NUM_PRIVATE else (ALL,)
    raise AmesError(
        f"no protocol fits the ground truth: its keys are {', '.join(sorted(keys)) or 'none'}; "
        "expected easy, hard and junk, or ok"
    )


@dataclass(frozen=True, eq=False)
class Result:
    """Metrics of a ranking under one protocol, in percent.

    map: mean of ``aps`` over the queries with a positive; NaN if there is none.
    mp: k -> mean precision at k over the same queries.
    aps: float64 [num_queries], of the evaluated queries in order, NaN for those without a positive. Where the
    protocol's ``empty`` is "miss", these are 0 and count.
    num_queries, num_skipped: evaluated queries, and how many of them have no positive.
    """

    map: float
    mp: dict[int, float]
    aps: np.ndarray
    num_queries: int
    num_skipped: int


def evaluate(
    ranking: np.ndarray, ground_truth: GroundTruth, protocol: Protocol, ks: Sequence[int] = (1, 5, 10)
) -> Result:
    """Evaluate ``ranking`` under ``protocol``.

    ranking: int [Q, M] gallery ids, best first; -1 is no entry and takes no position. M may be below the
    size of the gallery: missing positives count as not found. Q is the number of all queries of the ground
    truth, even if the protocol evaluates only some.
    Raises AmesError when sizes disagree, an id is out of range or twice in a row, the ground truth lacks a
    key of the protocol, or the protocol selects no query.
    """
    return summarize(label(ranking, ground_truth, protocol), protocol, ks)


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of the entries of a ranking under a protocol.

    rows: the evaluated queries; entries: int8 [rows, M], positive, junk, empty (-1) or none of these;
    num_positives: of each of these queries, found or not.
    """

    rows: range
    entries: np.ndarray
    num_positives: np.ndarray


def label(ranking: np.ndarray, ground_truth: GroundTruth, protocol: Protocol) -> Labels:
    """Label the entries of a ranking int [Q, M], as ``evaluate`` takes it, and raise as that does."""
    ranking = _checked(ranking, ground_truth, protocol.duplicates)
    rows = _evaluated(len(ranking), protocol)
    highest = [int(i.max()) for query in ground_truth.queries for i in query.values() if len(i)]
    table = np.zeros(max([int(ranking.max(initial=-1)), *highest]) + 2, np.int8)
    table[-1] = _EMPTY  # of the id -1
    entries = np.empty((len(rows), ranking.shape[1]), np.int8)
    num_positives = np.empty(len(rows), int)
    for row, number in enumerate(rows):
        positives, junk = _keys(ground_truth.queries[number], number, protocol)
        table[positives] = _POSITIVE
        table[junk] = _JUNK
        entries[row] = table[ranking[number]]
        num_positives[row] = (table[np.unique(positives)] == _POSITIVE).sum()
        table[positives] = table[junk] = 0
    return Labels(rows, entries, num_positives)


def ranks_of(entries: np.ndarray) -> np.ndarray:
    """Return the positions int64 [P] of the positives in the labels int8 [M] of a query, junk removed."""
    return np.flatnonzero(entries[entries < _JUNK] == _POSITIVE)


def summarize(labels: Labels, protocol: Protocol, ks: Sequence[int] = (1, 5, 10)) -> Result:
    """Return the metrics of a ranking whose entries are labelled."""
    count = len(labels.rows)
    aps, precisions = np.full(count, np.nan), np.full((count, len(ks)), np.nan)
    for row, (entries, num_positives) in enumerate(zip(labels.entries, labels.num_positives, strict=True)):
        ranks = ranks_of(entries)
        aps[row] = average_precision(ranks, num_positives, rule=protocol.ap, cutoff=protocol.cutoff)
        precisions[row] = precision_at(ranks, ks, num_positives=num_positives)
    empty = np.isnan(aps)
    if protocol.empty == "miss":
        aps[empty], precisions[empty] = 0, 0
    kept = ~np.isnan(aps)
    means = precisions[kept].mean(axis=0) if kept.any() else np.full(len(ks), np.nan)
    return Result(
        map=float(aps[kept].mean()) if kept.any() else float("nan"),
        mp={int(k): float(mean) for k, mean in zip(ks, means, strict=True)},
        aps=aps,
        num_queries=count,
        num_skipped=int(empty.sum()),
    )


def query_counts(ground_truth: GroundTruth, protocols: Sequence[Protocol]) -> dict[str, dict[str, int]]:
    """Return {protocol: {"judged": number of evaluated queries, "without_positive": those of them without a
    positive that its means leave out, 0 where they count as misses}}. Raises AmesError as ``evaluate`` does.
    """
    counts = {}
    for protocol in protocols:
        rows = _evaluated(len(ground_truth.queries), protocol)
        found = (_keys(ground_truth.queries[number], number, protocol) for number in rows)
        empty = sum(not len(np.setdiff1d(positives, junk)) for positives, junk in found)
        empty = 0 if protocol.empty == "miss" else empty
        counts[protocol.name] = {"judged": len(rows), "without_positive": empty}
    return counts


def left_out(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return a sentence for each protocol whose means leave queries out; ``counts`` of ``query_counts``."""
    said = []
    for name, count in counts.items():
        judged, empty = count["judged"], count["without_positive"]
        if empty == judged:
            said.append(f"{name}: none of {judged} queries has a positive, so that there is no figure")
        elif empty:
            verbs = ("has", "is") if empty == 1 else ("have", "are")
            said.append(f"{name}: {empty} of {judged} queries {verbs[0]} no positive and {verbs[1]} left out")
    return said


def ideal(ranking: np.ndarray, ground_truth: GroundTruth, protocol: Protocol, k: int) -> np.ndarray:
    """Return the ranking, int64 [Q, M], of a perfect re-ranking of the first ``k`` of each row.

    First the junk moves to the end of its row, as before each re-ranking; then the positives among the first
    ``k`` move to the front. All else keeps its order; entries of -1 come last. Re-ranking ``k`` images cannot
    reach more. Raises AmesError as ``evaluate`` does.
    """
    if k < 0:
        raise AmesError(f"number of images to re-rank is {k}: give 0 or more")
    labels = label(ranking, ground_truth, replace(protocol, queries=None)).entries
    ranking = np.asarray(ranking, np.int64)
    behind = np.argsort(np.maximum(labels, _POSITIVE), axis=1, kind="stable")
    labels, ranking = (np.take_along_axis(x, behind, 1) for x in (labels, ranking))
    front = (labels == _POSITIVE) & (np.arange(labels.shape[1]) < k)
    return np.take_along_axis(ranking, np.argsort(~front, axis=1, kind="stable"), 1)


def _evaluated(queries: int, protocol: Protocol) -> range:
    """Return the numbers of the queries that a protocol evaluates; AmesError if there are none."""
    rows = range(queries)[slice(*protocol.queries) if protocol.queries else slice(None)]
    if not rows:
        raise AmesError(
            f"protocol {protocol.name!r} selects no query: its part {protocol.queries} of "
            f"{queries} queries is empty; choose another protocol or another part"
        )
    return rows


def _keys(query: Mapping[str, np.ndarray], number: int, protocol: Protocol) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of positives and of junk of query ``number``, int64 [n] each."""
    try:
        return ids(query, protocol.positives), ids(query, protocol.junk)
    except AmesError as error:
        raise AmesError(f"protocol {protocol.name!r}, query {number}: {error}") from error


def _checked(ranking: np.ndarray, ground_truth: GroundTruth, duplicates: str) -> np.ndarray:
    """Return ``ranking`` as int64 [Q, M], checked against the ground truth, each image of a row once."""
    ranking = np.asarray(ranking)
    if ranking.ndim != 2 or ranking.dtype.kind not in "iu":
        raise AmesError(
            f"ranking must be integer gallery ids [queries, entries], not {ranking.dtype} "
            f"of shape {list(ranking.shape)}"
        )
    if len(ranking) != len(ground_truth.queries):
        raise AmesError(
            f"ranking has {len(ranking)} rows but ground truth {len(ground_truth.queries)} queries"
        )
    ranking = ranking.astype(np.int64, copy=False)
    lowest, highest, size = ranking.min(initial=0), ranking.max(initial=-1), len(ground_truth.imlist)
    if lowest < -1:
        raise AmesError(f"ranking holds the id {lowest}: ids start at 0, and -1 is no entry")
    if size and highest >= size:
        raise AmesError(
            f"ranking holds the id {highest} but the gallery of the ground truth has {size} images: "
            "use the shortlist and the ground truth of the same dataset"
        )
    if duplicates == "first":
        return _first_places(ranking)
    twice = first_repeated(ranking)
    if twice is not None:
        raise AmesError(f"ranking of query {twice[0]} lists gallery image {twice[1]} more than once")
    return ranking


def _first_places(ranking: np.ndarray) -> np.ndarray:
    """Return the ranking int64 [Q, M] with -1 in place of an image that is before it in its row."""
    order = np.argsort(ranking, axis=1, kind="stable")
    ordered = np.take_along_axis(ranking, order, 1)
    again = np.zeros(ranking.shape, bool)
    np.put_along_axis(again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], 1)
    return np.where(again, -1, ranking)
