"""What a benchmark consists of: data sets, methods and cascades, read from a YAML file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ames.chains.chain import Chain, parse_chain, read_step
from ames.chains.rerank_step import Rerank
from ames.chains.step import LOCAL, OTHER, VECTORS
from ames.errors import AmesError, unknown
from ames.io.package import CONF
from ames.io.yaml_files import load_yaml, named_file, names_in
from ames.models.registry import all_shipped_for

FOLDER = CONF / "bench"
_TOP = ("title", "datasets", "methods", "baseline", "cascades")
_GIVEN = ("folder", "generate", "seeds", "descriptors", "validation", "protocols", "primary")
_DATASET = (*_GIVEN, "benchmark", "ground_truth", "distractors", "database")
_GENERATE = {"split": str, "landmarks": int, "distractors": int}
_CASCADE = ("of", "cheap", "loss")
_FACTS = {VECTORS, LOCAL, OTHER}  # what a data set can have


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """A data set of a suite.

    folder: below the root of data, or generate: parameters of generated landmarks; one of them. seeds: of
    generated landmarks, each of which gives a set of its own; results are means over them. descriptors: the
    name in the files' names. validation: name of the data set on which lambda, gamma, codebooks and cascades
    are chosen. protocols: names (empty: those that fit). primary: the protocol that tables show first.
    benchmark: its file of conf/benchmark, whose protocols and first figure are taken. ground_truth,
    distractors, database: as of an evaluation.
    """

    name: str
    descriptors: str
    folder: str | None = None
    generate: Mapping[str, Any] | None = None
    seeds: tuple[int, ...] = (0,)
    validation: str | None = None
    protocols: tuple[str, ...] = ()
    primary: str | None = None
    benchmark: str | None = None
    ground_truth: str | None = None
    distractors: bool = False
    database: str | None = None


@dataclass(frozen=True, kw_only=True)
class CascadeSpec:
    """A cascade to find.

    of: the method whose last step re-ranks exactly. cheap: re-rankings that may come before it. loss: points
    of mAP that it may lose on the validation set.
    """

    name: str
    of: str
    cheap: tuple[Rerank, ...]
    loss: float = 0.1


@dataclass(frozen=True)
class Suite:
    """A benchmark.

    baseline: the method that others are compared with. reported: data sets of the table, those
    that no other one is validated on.
    """

    title: str
    datasets: tuple[DataSpec, ...]
    methods: tuple[Chain, ...]
    baseline: str
    cascades: tuple[CascadeSpec, ...] = ()

    @property
    def reported(self) -> tuple[DataSpec, ...]:
        """The data sets of the table."""
        asides = {x.validation for x in self.datasets}
        return tuple(x for x in self.datasets if x.name not in asides)

    def dataset(self, name: str) -> DataSpec:
        """Return a data set by its name."""
        return next(x for x in self.datasets if x.name == name)

    def method(self, name: str) -> Chain:
        """Return a method by its name."""
        return next(x for x in self.methods if x.name == name)


def list_suites() -> list[str]:
    """Return the names of the suites of conf/bench."""
    return names_in(FOLDER)


def read_suite(name_or_path: str | Path) -> Suite:
    """Read a suite of conf/bench by its name, or a file by its path, FILE.yaml.

    AmesError names the key that is wrong: nothing is computed before the whole file fits.
    """
    path = named_file(FOLDER, name_or_path, "suite")
    content = load_yaml(path)
    return parse_suite(content, source=str(path))


def folder_suite(
    folder: Path, name: str | None, validation: Path | None = None, benchmark: str | None = None
) -> Suite:
    """Return the suite of one prepared data set: methods that need no weights, and the models shipped for its
    descriptors. benchmark: its file of conf/benchmark. AmesError where the descriptors must be named.
    """
    names = sorted(x.name.removesuffix("_query_local.hdf5") for x in folder.glob("*_query_local.hdf5"))
    if name is None:
        if len(names) != 1:
            there = f"it holds {', '.join(names)}" if names else "it holds no *_query_local.hdf5"
            raise AmesError(f"{folder}: give --name, the name in the descriptor files; {there}")
        name = names[0]
    place = folder.resolve()
    own: dict[str, Any] = {"folder": str(place), "descriptors": name}
    datasets = {place.name: own}
    if benchmark is not None:
        own["benchmark"] = benchmark
    if validation is not None:
        aside = validation.resolve()
        own["validation"] = f"{aside.name} (validation)"
        datasets[own["validation"]] = {"folder": str(aside), "descriptors": name}
    content = {
        "title": f"Methods on {place.name}",
        "datasets": datasets,
        "methods": default_methods(name),
    }
    return parse_suite(content, source=str(folder))


def default_methods(backbone: str) -> dict[str, Any]:
    """Return chains that fit any data set, and those of the models shipped for a backbone."""
    methods: dict[str, Any] = {
        "global": ["search"],
        "average QE": ["search", {"average-qe": {"neighbours": 2}}],
        "alpha-QE": ["search", "alpha-qe"],
        "DBA": ["dba", "search"],
        "SuperGlobal": ["search", "superglobal"],
        "Chamfer": ["search", {"chamfer": {"query_desc_num": 200, "db_desc_num": 200}}],
    }
    for binarized in (False, True):
        for model in reversed(all_shipped_for(backbone, binarized=binarized)):
            methods[model] = ["search", model]
    return methods


def parse_suite(content: Any, *, source: str) -> Suite:
    """Return a suite of a file's content; AmesError begins with ``source``."""
    content = _mapping(source, content, _TOP)
    listed = _mapping(f"{source}: datasets", content.get("datasets") or {})
    datasets = tuple(_dataset(f"{source}: dataset {key}", str(key), value) for key, value in listed.items())
    chains = _mapping(f"{source}: methods", content.get("methods") or {})
    methods = tuple(_method(source, str(key), value) for key, value in chains.items())
    if not datasets or not methods:
        raise AmesError(f"{source}: needs datasets and methods, at least one of each")
    names = [x.name for x in methods]
    baseline = str(content.get("baseline", names[0]))
    if baseline not in names:
        raise AmesError(f"{source}: baseline: {unknown('method', baseline, names)}")
    _check_datasets(source, datasets)
    found = _mapping(f"{source}: cascades", content.get("cascades") or {})
    cascades = tuple(_cascade(f"{source}: cascade {key}", str(key), v, methods) for key, v in found.items())
    suite = Suite(str(content.get("title", Path(source).stem)), datasets, methods, baseline, cascades)
    if not suite.reported:
        raise AmesError(f"{source}: every data set validates another one: none is left to report")
    if cascades:
        _check_validation(source, suite)
    return suite


def _check_datasets(source: str, datasets: Sequence[DataSpec]) -> None:
    """AmesError for a name that is no file's, and for a validation set that does not exist."""
    for one in datasets:
        if Path(one.name).name != one.name or one.name in (".", ".."):
            raise AmesError(f"{source}: dataset {one.name!r}: names files: give a name without /")
        others = [x.name for x in datasets if x.name != one.name]
        if one.validation is not None and one.validation not in others:
            said = unknown("validation set", one.validation, others or ["(there is no other one)"])
            raise AmesError(f"{source}: dataset {one.name}: {said}")


def _check_validation(source: str, suite: Suite) -> None:
    """AmesError unless all reported data sets have one validation set, on which cascades are found."""
    names = {x.validation for x in suite.reported}
    if None in names:
        raise AmesError(f"{source}: cascades are chosen on a validation set: give each data set one")
    if len(names) > 1:
        listed = ", ".join(sorted(map(str, names)))
        raise AmesError(
            f"{source}: cascades are chosen on one validation set, not on {listed}: make two suites"
        )


def _mapping(place: str, value: Any, known: Sequence[str] = ()) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise AmesError(f"{place}: expected keys and values, found {type(value).__name__}")
    wrong = [str(key) for key in value if known and key not in known]
    if wrong:
        raise AmesError(f"{place}: {unknown('key', wrong[0], known)}")
    return value


def _method(source: str, name: str, value: Any) -> Chain:
    chain = parse_chain(f"{source}: method {name}", value)
    chain.check_order(_FACTS)
    return chain.named(name)


def _dataset(place: str, name: str, value: Any) -> DataSpec:
    found = _mapping(place, value, _DATASET)
    if ("folder" in found) == ("generate" in found):
        raise AmesError(f"{place}: give folder, or generate: {{landmarks: NUMBER}}")
    if not isinstance(found.get("descriptors"), str):
        raise AmesError(
            f"{place}: descriptors is missing: give the name in the files' names, such as rootsift"
        )
    for key in ("folder", "validation", "primary", "benchmark", "ground_truth", "database"):
        value = found.get(key, "")
        if not isinstance(value, str) and (value is not None or key == "folder"):
            raise AmesError(f"{place}: {key} is {value!r}: give text")
    seeds, protocols = found.get("seeds", [0]), found.get("protocols", [])
    whole = isinstance(seeds, list) and bool(seeds) and all(type(x) is int and x >= 0 for x in seeds)
    if not whole or len(set(seeds)) < len(seeds):
        raise AmesError(f"{place}: seeds are {seeds!r}: give a list of whole numbers, each once")
    if "seeds" in found and "generate" not in found:
        raise AmesError(f"{place}: seeds are of generated landmarks: leave them out")
    if not isinstance(protocols, list) or not all(isinstance(x, str) for x in protocols):
        raise AmesError(f"{place}: protocols are {protocols!r}: give a list of names")
    if not isinstance(found.get("distractors", False), bool):
        raise AmesError(f"{place}: distractors is {found['distractors']!r}: give true or false")
    if "generate" in found:
        _check_generate(place, found["generate"])
    lists = {"seeds": tuple(seeds), "protocols": tuple(protocols)}
    return DataSpec(name=name, **{**found, **lists})


def _check_generate(place: str, value: Any) -> None:
    found = _mapping(f"{place}: generate", value, tuple(_GENERATE))
    for key, given in found.items():
        if type(given) is not _GENERATE[key]:
            raise AmesError(f"{place}: generate: {key} is {given!r}")


def _cascade(place: str, name: str, value: Any, methods: Sequence[Chain]) -> CascadeSpec:
    found = _mapping(place, value, _CASCADE)
    names = [x.name for x in methods]
    of, loss, cheap = found.get("of"), found.get("loss", 0.1), found.get("cheap")
    if of not in names:
        raise AmesError(f"{place}: of: {unknown('method', str(of), names)}")
    last = next(x for x in methods if x.name == of).steps[-1]
    if not isinstance(last, Rerank):
        raise AmesError(f"{place}: of: the last step of {of} re-ranks nothing with a model")
    if type(loss) not in (int, float) or not 0 <= loss < math.inf:
        raise AmesError(f"{place}: loss is {loss!r}: give points of mAP, 0 or more")
    if not isinstance(cheap, list) or not cheap:
        raise AmesError(f"{place}: cheap is {cheap!r}: give a list of re-rankings, {{model: NAME, ...}}")
    steps = []
    for number, item in enumerate(cheap, 1):
        step = read_step(f"{place}: cheap {number}", Rerank, item)
        assert isinstance(step, Rerank), "the kind that was asked for"
        steps.append(step)
    if name in names:
        raise AmesError(f"{place}: a method has this name: give another")
    return CascadeSpec(name=name, of=str(of), cheap=tuple(steps), loss=float(loss))
