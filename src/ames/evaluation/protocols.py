"""Evaluation protocols as data, and the evaluation of a ranking under them.

A protocol names the keys of the ground truth with the positives and with the junk (images that are neither
right nor wrong, and are removed before positions are counted), the cutoff of the ranking, and the rule of
average precision.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ames.datasets.ground_truth import GroundTruth, ids
from ames.errors import AmesError
from ames.evaluation.metrics import average_precision, precision_at
from ames.evaluation.protocol import Protocol
from ames.global_search.shortlist import first_repeated

_POSITIVE, _JUNK, _EMPTY = 1, 2, 3


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
