"""Published benchmarks as conf/benchmark describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ames.config.classes import class_protocol, published_sizes
from ames.config.launch import CONF
from ames.datasets.benchmarks.benchmark_lists import POSITIVE_KEY, SELF_KEY
from ames.datasets.benchmarks.readers import READERS
from ames.errors import AmesError, unknown
from ames.evaluation.benchmarks import Benchmark
from ames.evaluation.class_protocol import ClassProtocol
from ames.evaluation.protocols import KNOWN, Protocol
from ames.evaluation.recognition import RecognitionRule, rules_of
from ames.io.yaml_files import as_tuples, check_keys, named_file, names_in, read_yaml

FOLDER = Path(CONF) / "benchmark"
_TEXTS = {"title", "source"}
_SHARED = {"recall_at", "precision_at", "empty", "empty_recall", "duplicates"}  # of every protocol of a file
_RULE = {"published", "query_box", "transform", "skip_self", "protocols", "recognition", "files", *_SHARED}
_KEYS = {*_TEXTS, *_RULE, "reader", "classes", "unsure", "primary"}
_PROTOCOL = {field.name for field in fields(Protocol)}


def benchmark_names() -> list[str]:
    """Return the names of the files of conf/benchmark."""
    return names_in(FOLDER)


def benchmark(name: str) -> Benchmark:
    """Return a benchmark of conf/benchmark, or of another file, NAME.yaml. AmesError for an unknown name."""
    return read_benchmark(named_file(FOLDER, name, "benchmark"))


def read_benchmark(path: Path) -> Benchmark:
    """Read a file; AmesError for keys and values that are not those of conf/benchmark/vpr.yaml."""
    found = read_yaml(path, _KEYS)
    for key in sorted(_TEXTS):
        if not isinstance(found.get(key), str) or not found[key].strip():
            raise AmesError(f"{path}: {key} is {found.get(key)!r}: give a text")
    unsure = found.get("unsure") or []
    if not isinstance(unsure, list) or not all(isinstance(line, str) for line in unsure):
        raise AmesError(f"{path}: unsure is {unsure!r}: give a list of sentences")
    primary = check_keys(path, "primary", found.get("primary"), {"protocol", "figure"})
    given: dict[str, Any] = {
        "name": path.stem,
        "title": found["title"],
        "source": found["source"].strip(),
        "unsure": tuple(unsure),
        "primary_protocol": primary.get("protocol"),
        "primary": primary.get("figure"),
    }
    given |= _of_classes(path, found) if "classes" in found else _of_file(path, found)
    try:
        return Benchmark(**given)
    except AmesError as error:
        raise AmesError(f"{path}: {error}") from error


def _of_file(path: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a benchmark that its own file has."""
    reader = found.get("reader")
    if not isinstance(reader, str) or reader not in READERS:
        raise AmesError(f"{path}: {unknown('reader', str(reader), READERS)}")
    files = check_keys(path, "files", found.get("files") or {}, READERS[reader].files)
    wrong = [key for key, value in files.items() if not isinstance(value, str)]
    if wrong:
        raise AmesError(f"{path}: files: {wrong[0]} is {files[wrong[0]]!r}: give the name of a file")
    skip_self = found.get("skip_self", False)
    if not isinstance(skip_self, bool):
        raise AmesError(f"{path}: skip_self is {skip_self!r}: give true or false")
    protocols = _protocols(path, found)
    for protocol in protocols:
        if skip_self and SELF_KEY not in protocol.junk:
            raise AmesError(
                f"{path}: skip_self: protocol {protocol.name!r} has no {SELF_KEY!r} in its junk, which holds "
                "the query itself"
            )
    return {
        "reader": reader,
        "files": files,
        "protocols": protocols,
        "skip_self": skip_self,
        "query_box": found.get("query_box", "none"),
        "transform": found.get("transform", "any"),
        "recognition": _recognition(path, found.get("recognition")),
        **_sizes(path, found.get("published") or {}),
    }


def _of_classes(path: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a benchmark whose rule is a file of conf/classes, which ``classes`` names."""
    doubled = sorted(key for key in found if key in {*_RULE, "reader"})
    if doubled:
        raise AmesError(
            f"{path}: {doubled[0]} beside classes: the rule is that of conf/classes, and is said there"
        )
    kind = found["classes"]
    if not isinstance(kind, str):
        raise AmesError(f"{path}: classes is {kind!r}: give the name of a file of conf/classes")
    rule, sizes = class_protocol(kind), published_sizes(kind)
    query = sizes.get("query", (None, None))[0]
    return {
        "reader": "classes",
        "files": {"kind": kind},
        "protocols": protocols_of_classes(rule),
        "skip_self": rule.skip_self,
        "transform": rule.transform,
        "queries": query,
        "gallery": query if rule.skip_self else sizes.get("gallery", (None, None))[0],
    }


def protocols_of_classes(rule: ClassProtocol) -> tuple[Protocol, ...]:
    """Return a protocol for each average precision of a class protocol, by the rule's name.

    A query that is the only image of its class is a miss in recall and left out of the average precision, as
    in ``ames.evaluation.class_metrics``. AmesError for a class protocol without an average precision.
    """
    if not rule.average_precision:
        raise AmesError(f"protocol {rule.name!r} has no average precision: a benchmark needs one")
    return tuple(
        Protocol(
            name,
            positives=(POSITIVE_KEY,),
            junk=(SELF_KEY,) if rule.skip_self else (),
            cutoff=rule.cutoff if name == "rectangle" else None,
            ap=name,
            recall_at=rule.recall_at,
            empty="skip",
            empty_recall="miss",
        )
        for name in rule.average_precision
    )


def _protocols(path: Path, found: Mapping[str, Any]) -> tuple[Protocol, ...]:
    listed = found.get("protocols")
    if not isinstance(listed, list) or not listed:
        raise AmesError(f"{path}: protocols is {listed!r}: give a list of names, or of keys and values")
    shared = as_tuples({key: found[key] for key in _SHARED & set(found)})
    return tuple(_protocol(path, item, shared) for item in listed)


def _protocol(path: Path, item: Any, shared: Mapping[str, Any]) -> Protocol:
    values = {"name": item} if isinstance(item, str) else check_keys(path, "a protocol", item, _PROTOCOL)
    values = dict(shared) | as_tuples(values)
    base = KNOWN.get(values["name"]) if isinstance(values.get("name"), str) else None
    try:
        return Protocol(**values) if base is None else replace(base, **values)
    except TypeError as error:
        raise AmesError(f"{path}: protocol {values.get('name')!r}: give a name and positives") from error
    except AmesError as error:
        raise AmesError(f"{path}: {error}") from error


def _sizes(path: Path, values: Any) -> dict[str, int | None]:
    values = check_keys(path, "published", values, {"queries", "gallery"})
    for key, number in values.items():
        if number is not None and (type(number) is not int or number < 1):
            raise AmesError(f"{path}: published {key} is {number!r}: give a number of images, or null")
    return values


def _recognition(path: Path, values: Any) -> tuple[RecognitionRule, ...]:
    if values is None:
        return ()
    values = check_keys(path, "recognition", values, {"neighbours", "temperatures"})
    grid = [values.get(key) for key in ("neighbours", "temperatures")]
    numbers = [isinstance(x, list) and all(type(v) in (int, float) for v in x) for x in grid]
    if not all(numbers):
        raise AmesError(f"{path}: recognition is {values!r}: give neighbours and temperatures, as lists")
    try:
        return tuple(rules_of(grid[0] or [], grid[1] or []))
    except AmesError as error:
        raise AmesError(f"{path}: {error}") from error
