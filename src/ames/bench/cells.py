"""One cell of a benchmark: a method on a data set of one seed, measured once and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ames import __version__
from ames.bench.data import Part, mark
from ames.bench.memory import PeakMemory
from ames.chains.chain import Chain, run, settings_of
from ames.chains.rerank_step import Rerank
from ames.chains.state import State
from ames.evaluation.chains import with_fusions
from ames.evaluation.protocol_figures import mean_figures, query_figures
from ames.io.archives import reading_npz
from ames.io.atomic import atomic_file
from ames.reranking.scorer import ComputeConfig

Say = Callable[[str], object]
VALIDATION = "validation"


@dataclass(frozen=True, eq=False)
class Cell:
    """Figures of a method on a data set.

    figures: protocol -> figure (``ames.evaluation.protocol_figures``) -> float64 [Q] in percent, of each
    query, NaN of those left out. online_ms: milliseconds per query of all steps, None where the measurement
    was interrupted; offline_s: seconds before the first query. bytes: of a database image. memory_mb: what
    the method added to the memory at its peak (None: not measured here). chain: its steps as they ran, with
    the fusions that the validation chose.
    """

    figures: Mapping[str, Mapping[str, np.ndarray]]
    online_ms: float | None
    offline_s: float
    bytes: float
    memory_mb: float | None
    chain: list[Any]


@dataclass(eq=False)
class Bench:
    """Measures cells and keeps them in a folder, so that an interrupted benchmark resumes.

    Steps before the first re-ranking by a model run once per data set: all methods that begin with them
    re-rank the same shortlist. Their seconds count for each method.
    """

    folder: Path
    compute: ComputeConfig
    say: Say = lambda line: None
    _prefixes: dict[tuple[str, str], State] = field(default_factory=dict)
    _chosen: dict[tuple[Any, ...], Chain] = field(default_factory=dict)

    def cell(self, part: Part, chain: Chain) -> Cell:
        """Return the cell of a method, measured now or earlier with the same files, settings and version."""
        path = self.folder / part.name / f"{slug(chain.name)}-{self.key(part, chain)}.npz"
        if path.is_file():
            return _load(path)
        cell = self._measure(part, chain)
        _save(path, cell, chain.name)
        protocol, figure = part.primary
        mean = mean_figures(cell.figures[protocol.name])[figure]
        took = "interrupted, not timed" if cell.online_ms is None else f"{cell.online_ms:.1f} ms per query"
        self.say(f"{part.name}: {chain.name}: {protocol.name} {figure} {mean:.1f}; {took}")
        return cell

    def key(self, part: Part, chain: Chain) -> str:
        """Return 12 hexadecimal digits of all that figures and times of a method depend on."""
        read = [mark(path) for test in part.sets for step in chain.steps for path in step.reads(test.files)]
        asked = [settings_of(step) for step in chain.steps]
        rules = [repr(p) for p in (*part.protocols, *part.choosing)]
        how = [self.compute.precision, *self.compute.devices]
        told = [__version__, part.digest, asked, read, rules, how]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def scores(self) -> Path:
        """The folder of scores of an interrupted call; of validation sets in a folder in it, as they may be
        the same files under other protocols, whose scores would count as known, and not be timed.
        """
        return self.folder / "scores"

    def _measure(self, part: Part, chain: Chain) -> Cell:
        chain = self._with_fusions(part, chain)
        for step in chain.steps:
            step.prepare(part.test.files)
        with PeakMemory() as memory:
            state = self._run(part, chain)
        truth = part.test.ground_truth
        return Cell(
            figures={p.name: query_figures(state.rankings[p.name].ids, truth, p) for p in part.protocols},
            online_ms=1000 * state.online / len(truth.queries) if state.timed else None,
            offline_s=state.offline,
            bytes=float(sum(state.stored.values())),
            memory_mb=memory.added_mb,
            chain=[settings_of(step) for step in chain.steps],
        )

    def _with_fusions(self, part: Part, chain: Chain) -> Chain:
        """Return the chain with the choices of the validation set, which are those of all its seeds."""
        if part.validation is None:
            return chain
        key = part.spec.validation, part.choosing, chain.steps
        if key not in self._chosen:
            self._chosen[key] = with_fusions(
                chain,
                part.validation,
                part.choosing,
                compute=self.compute,
                score_cache=self.scores / VALIDATION,
            )
        return self._chosen[key]

    def _run(self, part: Part, chain: Chain) -> State:
        state = part.test.start(part.protocols, self.compute, self.scores)
        done: list[Any] = []
        self._prefixes = {key: kept for key, kept in self._prefixes.items() if key[0] == part.name}
        for step in chain.steps:
            if isinstance(step, Rerank):
                state = run(step, state)
                continue
            done.append(settings_of(step))
            key = part.name, json.dumps(done, sort_keys=True)
            if key not in self._prefixes:
                self._prefixes[key] = run(step, state)
            state = self._prefixes[key]
        return state


def slug(name: str) -> str:
    """Return a name that every file system takes."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip("-.").lower()[:60] or "method"


def _save(path: Path, cell: Cell, name: str) -> None:
    about = {
        "method": name,
        "online_ms": cell.online_ms,
        "offline_s": cell.offline_s,
        "bytes": cell.bytes,
        "memory_mb": cell.memory_mb,
        "chain": cell.chain,
        "figures": [(protocol, name) for protocol, found in cell.figures.items() for name in found],
    }
    values = [x for found in cell.figures.values() for x in found.values()]
    arrays = {f"figure_{i}": x for i, x in enumerate(values)}
    with atomic_file(path) as file:
        np.savez(file, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)


def _load(path: Path) -> Cell:
    with reading_npz(path, "a cell of a benchmark"), np.load(path, allow_pickle=False) as content:
        about = json.loads(str(content["about"][()]))
        figures: dict[str, dict[str, np.ndarray]] = {}
        for number, (protocol, name) in enumerate(about["figures"]):
            figures.setdefault(protocol, {})[name] = content[f"figure_{number}"]
    keys = ("online_ms", "offline_s", "bytes", "memory_mb", "chain")
    return Cell(figures, *(about[key] for key in keys))
