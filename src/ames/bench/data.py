"""The data sets of a suite on disk: generated, prepared, opened, and their images timed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ames.backbones import is_backbone
from ames.bench.suite import DataSpec, Suite
from ames.config.benchmarks import benchmark
from ames.database.manifest import NAME
from ames.datasets.landmarks.build import Parameters, make_landmarks
from ames.datasets.layout import DatasetFolder
from ames.descriptors.local import recorded
from ames.errors import AmesError
from ames.evaluation.chains import ChainSet, open_chain_set
from ames.evaluation.protocols import Protocol, choose_protocols, query_counts
from ames.evaluation.query_time import query_ms
from ames.extraction.config import ExtractionConfig
from ames.extraction.factory import build_extractor
from ames.io.atomic import atomic_file
from ames.io.claims import parsed
from ames.io.hashing import sha256
from ames.pipelines.prepare import extract_split
from ames.pipelines.vector_curve import timed_queries

log = logging.getLogger(__name__)
_LANDMARKS = {"split": "test", "landmarks": 40, "distractors": 500}
_VIEWS = {"easy": 4, "hard": 6, "junk": 2}
TIMED = 20  # images whose extraction is timed


@dataclass(frozen=True, eq=False)
class Part:
    """A data set of one seed, opened. validation: the set that choices are made on, None: there is none;
    choosing: by which protocols.
    """

    spec: DataSpec
    seed: int
    test: ChainSet
    protocols: tuple[Protocol, ...]
    validation: ChainSet | None
    choosing: tuple[Protocol, ...] = ()

    @property
    def name(self) -> str:
        """Its name in files and messages."""
        return part_name(self.spec, self.seed)

    @property
    def primary(self) -> tuple[Protocol, str]:
        """The protocol and the figure that tables show first."""
        names = [p.name for p in self.protocols]
        rule = None if self.spec.benchmark is None else benchmark(self.spec.benchmark)
        usual = "medium" if "medium" in names else names[-1]
        if rule is not None and rule.primary_protocol in names:
            usual = rule.primary_protocol
        wanted = self.spec.primary or usual
        if wanted not in names:
            raise AmesError(f"dataset {self.spec.name}: primary {wanted!r} is none of {', '.join(names)}")
        protocol = self.protocols[names.index(wanted)]
        of_rule = rule is not None and wanted == rule.primary_protocol
        return protocol, rule.primary if rule is not None and of_rule else protocol.ap_name

    @property
    def sets(self) -> tuple[ChainSet, ...]:
        """The set itself, and its validation set."""
        return (self.test,) if self.validation is None else (self.test, self.validation)

    @property
    def digest(self) -> str:
        """What results on it depend on: its files, their sizes and times of change, and ground truths."""
        parts: list[str] = []
        for test in self.sets:
            parts += [sha256(test.ground_truth_file), *map(mark, files_of(test))]
        return " ".join(parts)


def mark(path: Path) -> str:
    """Return the name of a file, its size and its time of change."""
    status = path.stat()
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"


def files_of(test: ChainSet) -> list[Path]:
    """Return the files of descriptors of a set, the manifest of a database, and the lists, which may have
    the sizes of images.
    """
    files = test.files
    found = [x.path for x in (files.queries, files.gallery, files.other) if x is not None]
    found += [Path(x.sources[0]) for x in (files.query_vectors, files.gallery_vectors) if x is not None]
    found += [files.folder.image_list(split) for split in ("query", "gallery")]
    found = [path / NAME if path.is_dir() else path for path in found]
    return [path for path in found if path.is_file()]


def part_name(spec: DataSpec, seed: int) -> str:
    """Return the name of a data set of a seed."""
    return spec.name if spec.generate is None or len(spec.seeds) == 1 else f"{spec.name}-s{seed}"


def make_data(suite: Suite, root: Path, *, workers: int, say: Callable[[str], object]) -> None:
    """Draw and extract what the suite generates; what is there stays. AmesError for a missing folder."""
    for spec in suite.datasets:
        for seed in spec.seeds:
            folder = place(spec, seed, root)
            if spec.generate is None:
                if not folder.path.is_dir():
                    raise AmesError(f"{folder.path}: no such folder; dataset {spec.name} is below --data")
                continue
            given: dict[str, Any] = {**_LANDMARKS, **_VIEWS, **spec.generate}
            make_landmarks(folder.path, Parameters(seed=seed, **given), workers=workers)
            config = ExtractionConfig(backbone=spec.descriptors, workers=workers)
            extractor = build_extractor(config)
            for split in ("query", "gallery"):
                done = extract_split(folder, split, extractor)
                if not done.already:
                    say(done.summary())


def place(spec: DataSpec, seed: int, root: Path) -> DatasetFolder:
    """Return the folder of a data set of a seed."""
    path = Path(spec.folder) if spec.folder is not None else Path(part_name(spec, seed))
    return DatasetFolder(path if path.is_absolute() else root / path, spec.descriptors)


def open_parts(suite: Suite, root: Path) -> list[Part]:
    """Open every data set of the table, with its validation set; AmesError where files disagree."""
    parts: list[Part] = []
    for spec in suite.reported:
        aside = None if spec.validation is None else suite.dataset(spec.validation)
        other = None if aside is None else place(aside, aside.seeds[0], root)
        chosen_on = None if aside is None or other is None else _open(aside, other, other)
        for seed in spec.seeds:
            test = _open(spec, place(spec, seed, root), other)
            protocols = _fitting(spec, test)
            choosing = () if aside is None or chosen_on is None else _choosing(protocols, aside, chosen_on)
            part = Part(spec, seed, test, protocols, chosen_on, choosing)
            if other is not None and other.path.resolve() == test.files.folder.path.resolve():
                _check_apart(spec, protocols, choosing)
            _ = part.primary
            if any(part.name == other.name for other in parts):
                raise AmesError(f"dataset {spec.name}: another one is called {part.name}, too: rename it")
            parts.append(part)
    return parts


def _check_apart(spec: DataSpec, protocols: Sequence[Protocol], choosing: Sequence[Protocol]) -> None:
    """AmesError where choices would be made by the protocol that is reported, on the same queries."""
    both = next((one.name for one in protocols if one in choosing), None)
    if both is not None:
        raise AmesError(
            f"dataset {spec.name}: is validated on its own queries under protocol {both!r}: give another "
            "validation set, or other protocols"
        )


def _fitting(spec: DataSpec, test: ChainSet) -> tuple[Protocol, ...]:
    """The protocols of a data set. AmesError, with its name, where its ground truth lacks a key of theirs."""
    try:
        protocols = _protocols(spec, test)
        query_counts(test.ground_truth, protocols)
    except AmesError as error:
        raise AmesError(f"dataset {spec.name}: {error}") from error
    return protocols


def _protocols(spec: DataSpec, test: ChainSet) -> tuple[Protocol, ...]:
    if spec.benchmark is None:
        return choose_protocols(test.ground_truth, spec.protocols)
    rule = benchmark(spec.benchmark)
    return tuple(map(rule.protocol, spec.protocols)) if spec.protocols else rule.protocols


def _choosing(protocols: tuple[Protocol, ...], spec: DataSpec, test: ChainSet) -> tuple[Protocol, ...]:
    """The protocols that the suite gives the validation set, else the reported set's, else those that fit."""
    if not spec.protocols and spec.benchmark is None:
        try:
            query_counts(test.ground_truth, protocols)
        except AmesError:  # other keys, or too few queries for a part of them
            return choose_protocols(test.ground_truth)
        return protocols
    return _fitting(spec, test)


def _open(spec: DataSpec, folder: DatasetFolder, other: DatasetFolder | None) -> ChainSet:
    database = None if spec.database is None else folder.path / spec.database
    return open_chain_set(
        folder,
        ground_truth=spec.ground_truth,
        distractors=spec.distractors,
        database=database,
        other=other,
    )


def extraction_ms(part: Part, kept: Path) -> float | None:
    """Return the median milliseconds of the extraction of an image, one at a time, reading included.

    kept: the file of an earlier measurement, which is taken if it is of the same descriptors. None where the
    images are not there, or where the descriptors' backbone, or its weights, are not.
    """
    folder = part.test.files.folder
    listed, local = folder.image_list("query"), folder.local("query")
    backbone = recorded(local).provenance.get("backbone") if local.is_file() else None
    if backbone is None or not is_backbone(str(backbone)) or not listed.is_file():
        return None
    measured = _measured(kept)
    if measured.get("of") == mark(local):
        return measured.get("ms")
    regions, ms = timed_queries(folder, count=TIMED), None
    try:
        extractor = build_extractor(ExtractionConfig(backbone=str(backbone), workers=0, batch_size=1))
        ms = query_ms(extractor, regions) if regions else None
    except AmesError as error:
        log.info("no time of extraction: %s", error)
    with atomic_file(kept) as file:
        file.write(json.dumps({"ms": ms, "backbone": backbone, "of": mark(local)}).encode())
    return ms


def _measured(kept: Path) -> dict[str, Any]:
    """What an earlier call measured; nothing where the file is damaged."""
    try:
        found = parsed(kept.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
