"""A chain: steps in a row, read from a list, checked before anything runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ames.chains.asmk_step import Asmk
from ames.chains.expansion_steps import AlphaExpansion, Augment, AverageExpansion, SuperGlobal
from ames.chains.rerank_step import Rerank
from ames.chains.search_steps import Search, Stored
from ames.chains.state import Files, State
from ames.chains.step import COSINES, LOCAL, OTHER, RANKING, SHORTLIST, VECTORS, Step
from ames.errors import AmesError, unknown
from ames.models.load import FILES
from ames.models.registry import MODELS

STEPS: dict[str, type[Step]] = {
    kind.name: kind
    for kind in (Search, Stored, Asmk, Augment, AverageExpansion, AlphaExpansion, SuperGlobal, Rerank)
}
_MAKERS = {VECTORS: "ames prepare", LOCAL: "ames prepare", SHORTLIST: "search", COSINES: "search"}


@dataclass(frozen=True)
class Chain:
    """Steps in a row, under a name."""

    name: str
    steps: tuple[Step, ...]

    def named(self, name: str) -> Chain:
        """Return the same steps under another name."""
        return Chain(name, self.steps)

    def check(self, files: Files) -> None:
        """AmesError where a step lacks what it needs, discards what another made, or does not fit the files.

        Nothing is computed, so that a mistake in the last step is found before the first one runs.
        """
        self.check_order(available(files))
        for number, step in enumerate(self.steps, 1):
            try:
                step.check(files)
            except AmesError as error:
                raise AmesError(f"{self._place(number, step)}: {error}") from error

    def check_order(self, facts: set[str]) -> None:
        """AmesError where the steps do not fit together. facts: what a data set has before the first one."""
        facts, makers = set(facts), dict.fromkeys(facts, "the data set")
        lost: dict[str, str] = {}
        for number, step in enumerate(self.steps, 1):
            place = self._place(number, step)
            made = next((x for x in (RANKING, SHORTLIST) if x in facts), None)
            if step.first and made is not None:
                raise AmesError(f"{place}: makes a new shortlist, and {makers[made]} would be lost: drop one")
            for choices in step.needed():
                if not facts.intersection(choices):
                    raise AmesError(f"{place}: needs {' or '.join(choices)}{_missing(choices, lost, facts)}")
            for fact in facts.intersection(step.drops):
                if fact == RANKING:
                    said = f"the re-ranked list, {makers[fact]}, would be lost"
                    raise AmesError(f"{place}: {said}: put {step.name} before the first search")
                lost[fact] = f"step {number} ({step.name})"
            facts = facts.difference(step.drops).union(step.gives)
            makers |= dict.fromkeys(step.gives, f"that of step {number} ({step.name})")
        if not facts.intersection((SHORTLIST, RANKING)):
            raise AmesError(f"{self.name}: ends without a shortlist: put search after its last step")
        self._check_counts()

    def _check_counts(self) -> None:
        """AmesError where a later step re-ranks more than an earlier one: it would mix two orders."""
        most: int | None = None
        for number, step in enumerate(self.steps, 1):
            if isinstance(step, Rerank):
                if most is not None and step.num_rerank > most:
                    raise AmesError(
                        f"{self._place(number, step)}: re-ranks {step.num_rerank} candidates, the one before "
                        f"only {most}: give as many or fewer"
                    )
                most = step.num_rerank

    def _place(self, number: int, step: Step) -> str:
        return f"{self.name}, step {number} ({step.name})"


def run(step: Step, state: State) -> State:
    """Run a step, and add its seconds: what it does not count as ``offline`` or ``untimed`` is ``online``."""
    start = time.perf_counter()
    after = step(state)
    elapsed = time.perf_counter() - start
    aside = after.offline + after.untimed - state.offline - state.untimed
    return replace(after, online=after.online + elapsed - aside)


def available(files: Files) -> set[str]:
    """Return what a data set has before the first step."""
    facts = set()
    if files.query_vectors is not None and files.gallery_vectors is not None:
        facts.add(VECTORS)
    if files.queries is not None and files.gallery is not None:
        facts.add(LOCAL)
    if files.other is not None:
        facts.add(OTHER)
    return facts


def _missing(choices: Sequence[str], lost: Mapping[str, str], facts: set[str]) -> str:
    """What to do about a missing fact."""
    for fact in choices:
        if fact in lost:
            listed = facts.intersection((SHORTLIST, RANKING))  # which another search would discard
            advice = "put it before that step" if listed else "put search in between"
            return f", and {lost[fact]} has replaced it: {advice}"
    maker = _MAKERS.get(choices[0])
    return f": put {maker} before it" if maker == "search" else "; the data set has none"


# ---- reading ------------------------------------------------------------------------------------------


def parse_chain(name: str, items: Any) -> Chain:
    """Return the chain of a list: names of steps, ``{STEP: {SETTING: VALUE}}``, or names of models, which are
    re-ranked with. AmesError begins with the chain's name and the step.
    """
    if not isinstance(items, Sequence) or isinstance(items, str) or not items:
        raise AmesError(f"{name}: a chain is a list of steps ({', '.join(STEPS)}), not {items!r}")
    return Chain(name, tuple(_step(f"{name}, step {i}", item) for i, item in enumerate(items, 1)))


def _step(place: str, item: Any) -> Step:
    if isinstance(item, str):
        item = {item: {}}
    if not isinstance(item, Mapping) or len(item) != 1:
        raise AmesError(f"{place}: {item!r} is no step: give a name, or {{NAME: {{SETTING: VALUE}}}}")
    ((kind, settings),) = item.items()
    settings = {} if settings is None else settings
    if kind not in STEPS and (kind in MODELS or Path(str(kind)).suffix in FILES):
        if isinstance(settings, Mapping) and "model" in settings:
            raise AmesError(f"{place}: {kind} is a model: leave model={settings['model']} out")
        settings = {"model": kind, **settings} if isinstance(settings, Mapping) else settings
        kind = Rerank.name
    if kind not in STEPS:
        raise AmesError(f"{place}: {unknown('step', str(kind), [*STEPS, *MODELS])}")
    return read_step(f"{place} ({kind})", STEPS[kind], settings)


def read_step(place: str, kind: type[Step], settings: Any) -> Step:
    """Return a step with its settings; AmesError for a setting that it does not have, or of another type."""
    if not isinstance(settings, Mapping):
        raise AmesError(f"{place}: settings are {settings!r}: give {{SETTING: VALUE}}")
    types = get_type_hints(kind)
    known = [field.name for field in fields(kind)]
    for key, value in settings.items():
        if key not in known:
            raise AmesError(f"{place}: {unknown('setting', str(key), known or ['(none)'])}")
        _check_value(f"{place}: {key}", value, types[key])
    missing = [f.name for f in fields(kind) if f.default is MISSING and f.name not in settings]
    if missing:
        raise AmesError(f"{place}: {missing[0]} is missing")
    try:
        return kind(**settings)
    except AmesError as error:
        raise AmesError(f"{place}: {error}") from error


def _check_value(place: str, value: Any, kind: Any) -> None:
    if type(None) in get_args(kind):
        if value is None:
            return
        kind = next(x for x in get_args(kind) if x is not type(None))
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    right = type(value) is kind or (kind is float and type(value) is int)
    if kind in words and not right:
        raise AmesError(f"{place} is {value!r}: give {words[kind]}")


def settings_of(step: Step) -> dict[str, Any]:
    """Return a step as ``parse_chain`` reads it: settings that are not the defaults."""
    given = {f.name: getattr(step, f.name) for f in fields(step) if getattr(step, f.name) != f.default}
    return {step.name: given}
