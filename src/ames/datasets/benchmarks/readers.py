"""The kinds of published files, by the names that conf/benchmark uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ames.datasets.benchmarks.benchmark_lists import BenchmarkLists
from ames.datasets.benchmarks.gldv2 import read_gldv2
from ames.datasets.benchmarks.gnd import read_gnd
from ames.datasets.benchmarks.ilias import read_ilias
from ames.datasets.benchmarks.labelled import read_classes, read_folder, read_lists, read_met
from ames.datasets.benchmarks.places import read_places
from ames.errors import AmesError, unknown


@dataclass(frozen=True)
class Reader:
    """read(root, files, skip_self); files: the keys that it takes, optional: those that it can do without."""

    read: Callable[[Path, Mapping[str, str], bool], BenchmarkLists]
    files: frozenset[str]
    optional: frozenset[str] = frozenset()


def _reader(
    read: Callable[[Path, Mapping[str, str], bool], BenchmarkLists], files: str, optional: str = ""
) -> Reader:
    return Reader(read, frozenset([*files.split(), *optional.split()]), frozenset(optional.split()))


READERS: dict[str, Reader] = {
    "gnd": _reader(read_gnd, "truth", "distractors"),
    "lists": _reader(read_lists, "", "folder"),
    "folder": _reader(read_folder, "", "folder"),
    "classes": _reader(read_classes, "kind"),
    "met": _reader(read_met, "database queries"),
    "gldv2": _reader(read_gldv2, "index test solution"),
    "ilias": _reader(read_ilias, "queries positives distractors"),
    "places": _reader(read_places, "queries database"),
}


def read_lists_of(
    kind: str, root: Path | str, files: Mapping[str, str], *, skip_self: bool
) -> BenchmarkLists:
    """Read published files of one of ``READERS``.

    files: key -> name below the root. AmesError for an unknown kind or key, a missing key, and whatever is
    wrong in the files.
    """
    if kind not in READERS:
        raise AmesError(unknown("reader", kind, READERS))
    reader, root = READERS[kind], Path(root)
    for key in files:
        if key not in reader.files:
            raise AmesError(f"reader {kind!r}: {unknown('file', key, sorted(reader.files))}")
    missing = sorted(reader.files - reader.optional - set(files))
    if missing:
        raise AmesError(f"reader {kind!r} needs the file {missing[0]!r}")
    if not root.is_dir():
        raise AmesError(f"{root}: no such folder")
    return reader.read(root, files, skip_self)
