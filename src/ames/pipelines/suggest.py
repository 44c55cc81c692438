"""Lambda, gamma and the number of local descriptors for a collection, from a person's own truth."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ames.errors import AmesError
from ames.evaluation.held_out import Interval, halves, interval, part
from ames.evaluation.protocols import LEAVE_ONE_OUT
from ames.evaluation.sweep import choose_fusion
from ames.io.locks import locked
from ames.models.registry import MODELS
from ames.pipelines.own_set import OwnSet, open_own_set
from ames.reporting.tables import format_table
from ames.reranking.fusion import Fusion
from ames.retrieval.collection import LOCK, Collection
from ames.retrieval.retriever import NUM_RERANK

COUNTS = (10, 25, 50, 100, 200)  # descriptors that are tried, of those that a collection stores
SLACK = 0.5  # points of mAP that fewer descriptors may cost
FEW = 10  # objects in a half, below which figures are of these objects alone


@dataclass(frozen=True)
class Trial:
    """A setting, and what it reaches: mAP in percent on the half where it was chosen and on the other one.

    size: bytes per photo. gain: of mAP on the other half, over the collection as it is.
    """

    stored: int
    size: int
    fusion: Fusion
    chosen: float
    reported: float
    gain: Interval


@dataclass(frozen=True)
class Suggestion:
    """now: the collection as it is. trials: the best fusion at each number of descriptors, that which is
    stored last. fewest: the fewest descriptors that cost at most ``SLACK`` on the half of the choice.
    objects: numbers of objects in both halves. words: of the ``ames index`` that makes the collection anew.
    """

    now: Trial
    trials: Sequence[Trial]
    fewest: Trial
    objects: tuple[int, int]
    words: Sequence[str]
    notes: list[str]

    @property
    def best(self) -> Trial:
        """The fusion for what the collection stores."""
        return self.trials[-1]

    def warnings(self) -> list[str]:
        """Return what keeps a person from trusting the figures."""
        lines, gain = [], self.best.gain
        if min(self.objects) < FEW:
            lines.append(
                f"WARNING: {self.objects[0]} and {self.objects[1]} objects are too few to tell: the figures "
                f"are of these objects alone; give {2 * FEW} objects or more"
            )
        if not gain.tells and self.best.fusion != self.now.fusion:
            lines.append(
                f"WARNING: the interval [{gain.low:+.1f}, {gain.high:+.1f}] holds 0: these photos do not "
                "tell the suggestion from what the collection has"
            )
        return lines

    def text(self) -> str:
        """Return what a terminal shows."""
        rows = [_row("now", self.now), *(_row("chosen", trial) for trial in self.trials)]
        lines = [
            format_table(rows),
            f"lambda and gamma were chosen on {self.objects[0]} objects, and are reported on the other "
            f"{self.objects[1]}; gain: of mAP over now, with a 95 % interval (bootstrap over objects)",
            *self.notes,
            *self.warnings(),
        ]
        if self.fewest.stored < self.best.stored:
            saved = self.best.size - self.fewest.size
            lines.append(
                f"{self.fewest.stored} descriptors per photo reach the same within {SLACK} points where they "
                f"were chosen, and save {saved} bytes per photo. They need a new collection:\n"
                f"  ames index {shlex.join(self.words)} -o NEW.db --desc-num {self.fewest.stored}"
            )
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "now": _plain(self.now),
            "trials": [_plain(trial) for trial in self.trials],
            "suggested": _plain(self.best),
            "fewest": _plain(self.fewest),
            "objects": {"chosen": self.objects[0], "reported": self.objects[1]},
            "notes": self.notes + self.warnings(),
        }


def suggest(
    folder: Path | str,
    truth: Path | str,
    *,
    num_rerank: int = NUM_RERANK,
    seed: int = 0,
    counts: Sequence[int] = COUNTS,
    device: str = "cpu",
    workers: int = 0,
) -> Suggestion:
    """Choose lambda and gamma for a collection on half of the objects, and report them on the other half.

    counts: numbers of descriptors per photo; those above what the collection stores are left out. seed: of
    the halves and of the bootstrap. AmesError as ``open_own_set``, for a list-wise model, and for fewer than
    two objects with answers.
    """
    with open_own_set(folder, truth, num_rerank=num_rerank, device=device, workers=workers) as own:
        if own.index.reranker.model.window is not None:
            raise AmesError(f"{folder}: its model is list-wise, whose scores depend on lambda and gamma")
        k = min(num_rerank, own.shortlist.ids.shape[1])
        fusion = own.index.reranker.fusion
        assert fusion is not None, "a retriever has a fusion"
        chooser = _Chooser(own, k, seed)
        held = own.index.database.slots - own.index.reranker.model.extra_slots
        wanted = sorted({count for count in counts if 1 <= count < held} | {held})
        scores = {count: own.scores(k, device=device, stored=count) for count in wanted}
        base = chooser.aps(scores[held], fusion, chooser.second)
        now = chooser.trial(held, scores[held], fusion, base)
        trials = [chooser.trial(count, scores[count], None, base) for count in wanted]
        good = max(trial.chosen for trial in trials) - SLACK
        fewest = next(trial for trial in trials if trial.chosen >= good)
        return Suggestion(now, trials, fewest, chooser.objects, _words(own, Path(folder)), own.notes)


def _words(own: OwnSet, folder: Path) -> list[str]:
    there = Collection.load(folder)
    assert own.index.root is not None, "an own set has a record"
    assert there is not None, "the folder was opened as a collection"
    words = [str(own.index.root), "--preset", there.model]
    return words if there.model in MODELS else [*words, "--backbone", there.extraction.backbone]


class _Chooser:
    """Both halves of a set: settings are chosen on the first, and reported on the second."""

    def __init__(self, own: OwnSet, num_rerank: int, seed: int) -> None:
        self.own, self.num_rerank, self.seed = own, num_rerank, seed
        answered = np.array([i for i, query in enumerate(own.truth.queries) if len(query["ok"])], np.int64)
        names = [own.questions.asked[i].object for i in answered]
        first, second = halves(names, seed=seed)
        self.first, self.second = answered[first], answered[second]
        self.names = [names[i] for i in second]
        self.objects = len({names[i] for i in first}), len(set(self.names))

    def aps(self, scores: Any, fusion: Fusion, rows: np.ndarray) -> np.ndarray:
        """Average precisions float64 of some queries."""
        found = part(self.own.shortlist, scores, self.own.truth, LEAVE_ONE_OUT, rows)
        return found.evaluate(self.num_rerank, fusion)[LEAVE_ONE_OUT].aps

    def trial(self, stored: int, scores: Any, fusion: Fusion | None, base: np.ndarray) -> Trial:
        """The figures of a fusion, None: of the best one on the first half; base: the comparison's."""
        unit, database = self.own.index.reranker.model.score_unit, self.own.index.database
        if fusion is None:
            half = part(self.own.shortlist, scores, self.own.truth, LEAVE_ONE_OUT, self.first)
            fusion, _ = choose_fusion(half, self.num_rerank, unit=unit)
        aps = self.aps(scores, fusion, self.second)
        held = database.slots - self.own.index.reranker.model.extra_slots
        return Trial(
            stored,
            database.image_bytes - (held - stored) * database.manifest.code_bytes,
            fusion,
            float(self.aps(scores, fusion, self.first).mean()),
            float(aps.mean()),
            interval(aps - base, self.names, seed=self.seed),
        )


def apply_fusion(folder: Path | str, suggestion: Suggestion) -> str:
    """Write the suggested lambda and gamma into a collection, as a whole or not at all; return what was done.

    Nothing is written where the other half says that they are worse. AmesError while another process indexes.
    """
    folder, fusion = Path(folder), suggestion.best.fusion
    if fusion == suggestion.now.fusion:
        return f"{folder}: has these lambda and gamma already"
    if suggestion.best.gain.mean < 0:
        return f"{folder}: left as it is: on the other half, the suggestion is worse"
    busy = "another process is indexing photos to it; wait for it to end"
    with locked(folder.with_name(folder.name + LOCK), folder, busy):
        there = Collection.load(folder)
        assert there is not None, "the folder was opened as a collection"
        replace(there, fusion=fusion).save(folder)
    before = suggestion.now.fusion
    return (
        f"{folder}: lambda {fusion.lamb:g} and gamma {fusion.gamma:g} are written (before: {before.lamb:g} "
        f"and {before.gamma:g})"
    )


def _row(name: str, trial: Trial) -> dict[str, Any]:
    return {
        "": name,
        "descriptors": trial.stored,
        "bytes/photo": trial.size,
        "lambda": f"{trial.fusion.lamb:g}",
        "gamma": f"{trial.fusion.gamma:g}",
        "mAP where chosen": trial.chosen,
        "mAP reported": trial.reported,
        "gain": f"{trial.gain.mean:+.1f} [{trial.gain.low:+.1f}, {trial.gain.high:+.1f}]",
    }


def _plain(trial: Trial) -> dict[str, Any]:
    keys = {"descriptors": trial.stored, "bytes_per_photo": trial.size} | trial.fusion.to_keys()
    return keys | {"map_chosen": trial.chosen, "map_reported": trial.reported, "gain": vars(trial.gain)}
