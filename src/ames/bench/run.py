"""Run a suite: data, cells, cascades, and the files of the result."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ames import __version__
from ames.bench.cells import VALIDATION, Bench, Cell, slug
from ames.bench.data import Part, extraction_ms, make_data, open_parts
from ames.bench.find_cascade import NoCascadeError, find_cascade
from ames.bench.pictures import draw
from ames.bench.suite import CascadeSpec, Suite
from ames.bench.table import comma_separated, dataset_rows, flat, latex, markdown
from ames.chains.cascade import load_cascade
from ames.chains.chain import Chain
from ames.errors import AmesError
from ames.evaluation.chains import ChainSet, lacks_fusion
from ames.evaluation.protocols import left_out, query_counts
from ames.io.atomic import atomic_file
from ames.lanes import usable_cores
from ames.reranking.scorer import ComputeConfig
from ames.training.logging.environment import processor

Say = Callable[[str], object]


@dataclass(frozen=True)
class Report:
    """What a suite gave. rows: of each data set; tables: the same as texts, by data set; files: written."""

    rows: dict[str, list[dict[str, Any]]]
    tables: dict[str, list[dict[str, Any]]]
    notes: dict[str, list[str]]
    files: list[Path]


def run_suite(
    suite: Suite,
    out: Path,
    *,
    data: Path | None = None,
    workers: int = 2,
    compute: ComputeConfig | None = None,
    say: Say = lambda line: None,
) -> Report:
    """Measure all methods on all data sets of a suite, and write the results below ``out``.

    data: the root of the data sets' folders (None: ``out/data``). Every chain is checked against every data
    set, and its validation set, before the first one runs. What is measured already, with the same files,
    settings and version, is read.
    """
    compute = compute or ComputeConfig()
    data = out / "data" if data is None else data
    place = next(path for path in (out.resolve(), *out.resolve().parents) if path.exists())
    if not os.access(place, os.W_OK):
        raise AmesError(f"{place}: cannot be written; give another --out")
    _check_names(suite)
    make_data(suite, data, workers=workers, say=say)
    parts = open_parts(suite, data)
    _check(suite, parts)
    bench = Bench(out / "cells", compute, say)
    methods, notes = list(suite.methods), []
    for spec in suite.cascades:
        found, line = _found(spec, suite, parts, bench, out)
        notes.append(line)
        methods += [] if found is None else [found]
    cells = {part.name: {chain.name: bench.cell(part, chain) for chain in methods} for part in parts}
    shutil.rmtree(bench.scores, ignore_errors=True)
    return _write(suite, parts, cells, out, notes, compute)


def _check_names(suite: Suite) -> None:
    """AmesError where two data sets, or two cascades, would be written to files of one name."""
    for kind, names in (
        ("datasets", [x.name for x in suite.datasets]),
        ("cascades", [x.name for x in suite.cascades]),
    ):
        for place, name in enumerate(names):
            same = next((other for other in names[:place] if slug(other) == slug(name)), None)
            if same is not None:
                raise AmesError(f"{kind} {same!r} and {name!r}: their files have one name: rename one")


def _check(suite: Suite, parts: Sequence[Part]) -> None:
    """AmesError where a method, or a re-ranking of a cascade, does not fit the files that it runs on."""
    for part in parts:
        for chain in suite.methods:
            _check_one(chain, part.name, part.test)
            if part.validation is not None and lacks_fusion(chain):
                _check_one(chain, f"{part.spec.validation} (validation)", part.validation)
    for spec in suite.cascades:
        assert parts[0].validation is not None, "the suite has checked it"
        before = suite.method(spec.of).steps[:-1]
        for step in spec.cheap:
            name = f"{parts[0].spec.validation} (validation)"
            _check_one(Chain(spec.name, (*before, step)), name, parts[0].validation)


def _check_one(chain: Chain, name: str, test: ChainSet) -> None:
    """AmesError, with the data set's name, where a chain does not fit it."""
    try:
        chain.check(test.files)
    except AmesError as error:
        raise AmesError(f"dataset {name}: method {error}") from error


def _found(
    spec: CascadeSpec, suite: Suite, parts: Sequence[Part], bench: Bench, out: Path
) -> tuple[Chain | None, str]:
    """Return the method of a cascade, found now or earlier, and a line on it; None where there is none."""
    chain, part = suite.method(spec.of), parts[0]
    assert part.validation is not None, "the suite has checked it"
    path = out / "cascades" / f"{slug(spec.name)}.yaml"
    asked = {"loss_allowed": spec.loss, "asked": bench.key(part, Chain("", (*chain.steps, *spec.cheap)))}
    cascade = load_cascade(path) if path.is_file() else None
    if cascade is None or any(cascade.found.get(key) != value for key, value in asked.items()):
        try:
            cascade = find_cascade(
                spec,
                chain,
                part.validation,
                part.choosing,
                compute=bench.compute,
                score_cache=bench.scores / VALIDATION,
                say=bench.say,
            )
        except NoCascadeError as error:
            return None, str(error)
        cascade = replace(cascade, found={**cascade.found, **asked})
        cascade.save(path)
    share = cascade.found.get("predicted_share_of_time")
    place = part.validation.files.folder.name
    line = f"{spec.name}: {path}, {share:.1%} of the time of {spec.of} predicted on {place}"
    return Chain(spec.name, (*chain.steps[:-1], *cascade.stages)), line


def _write(
    suite: Suite,
    parts: Sequence[Part],
    cells: Mapping[str, Mapping[str, Cell]],
    out: Path,
    notes: list[str],
    compute: ComputeConfig,
) -> Report:
    rows: dict[str, list[dict[str, Any]]] = {}
    tables: dict[str, list[dict[str, Any]]] = {}
    said: dict[str, list[str]] = {}
    extraction, pictures = {}, []
    for spec in suite.reported:
        own = [part for part in parts if part.spec is spec]
        by_method = {chain: [cells[part.name][chain] for part in own] for chain in cells[own[0].name]}
        rows[spec.name] = dataset_rows(own, by_method, suite.baseline)
        primary = own[0].primary
        tables[spec.name] = [flat(row, primary, seeds=len(own)) for row in rows[spec.name]]
        extraction[spec.name] = extraction_ms(own[0], out / "cells" / f"{own[0].name}-extraction.json")
        said[spec.name] = [*_said(own, extraction[spec.name]), *notes]
        try:
            title = f"{suite.title}: {spec.name}"
            pictures.append(draw(rows[spec.name], primary, out / f"bench-{slug(spec.name)}.png", title=title))
        except AmesError as error:
            said[spec.name].append(f"no picture: {error}")
    about = {
        "title": suite.title,
        "baseline": suite.baseline,
        "version": __version__,
        "machine": {"processor": processor(), "cores": usable_cores()},
        "precision": compute.precision,
        "extraction_ms": extraction,
        "notes": said,
        "chains": {name: cell.chain for name, cell in cells[parts[0].name].items()},
        "datasets": rows,
    }
    text = {
        "bench.md": _page(suite, tables, said),
        "bench.json": json.dumps(about, indent=1),
        "bench.csv": comma_separated(rows),
        "bench.tex": "\n".join(f"% {name}\n{latex(table)}" for name, table in tables.items()),
    }
    files = []
    for name, content in text.items():
        with atomic_file(out / name) as file:
            file.write(content.encode())
        files.append(out / name)
    return Report(rows, tables, said, files + pictures)


def _said(parts: Sequence[Part], extraction: float | None) -> list[str]:
    """Return what a reader of a data set's table must know."""
    queries = sum(len(part.test.ground_truth.queries) for part in parts)
    images = [len(part.test.ground_truth.imlist) for part in parts]
    seeds = f" of {len(parts)} seeds" if len(parts) > 1 else ""
    lines = [
        f"{queries:,} queries{seeds}, {max(images):,} images each; figures in percent; intervals and "
        "differences: 95 %, paired bootstrap over the objects of the queries"
    ]
    first = parts[0]
    if first.validation is None:
        lines.append("no validation set: lambda and gamma are those that each model brings")
    else:
        by = ", ".join(protocol.name for protocol in first.choosing)
        lines.append(f"lambda, gamma and codebooks are of {first.validation.files.folder.name} ({by})")
    if extraction is not None:
        lines.append(f"extraction of a photo: {extraction:.0f} ms")
    counts = query_counts(first.test.ground_truth, first.protocols)
    return lines + left_out(counts)


def _page(suite: Suite, tables: Mapping[str, list[dict[str, Any]]], said: Mapping[str, list[str]]) -> str:
    text = f"# {suite.title}\n"
    for name, table in tables.items():
        text += f"\n## {name}\n\n{markdown(table)}\n" + "".join(f"- {line}\n" for line in said[name])
    return text
