"""The id lists of ILIAS (Kordopatis-Zilos et al., CVPR 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ames.datasets.benchmarks.benchmark_lists import (
    POSITIVE_KEY,
    BenchmarkLists,
    Distractors,
    listed_file,
)
from ames.datasets.lists import read_rows
from ames.errors import AmesError

_CORE = "ilias_core"


def read_ilias(root: Path, files: Mapping[str, str], skip_self: bool = False) -> BenchmarkLists:
    """Read ``files["queries"]`` and ``files["positives"]``: the id is the first field of a line.

    An id begins with its object's name: OBJECT/query/Q000_00.jpg, OBJECT/pos/P000_00.jpg. Both lists are
    sorted, as by the published evaluation; paths begin with ilias_core/ where that folder exists.
    ``files["distractors"]``: ids of YFCC100M, behind the positives; without that file a note says so, and the
    gallery has no distractors. AmesError for an object of a query that no positive is of.
    """
    hint = "give the folder of ILIAS, which holds image_ids/"
    query_file, positive_file = (listed_file(root, files, key, hint) for key in ("queries", "positives"))
    queries, positives = _ids(query_file), _ids(positive_file)
    members: dict[str, list[int]] = {}
    for number, name in enumerate(positives):
        members.setdefault(_object(positive_file, name), []).append(number)
    truth = []
    for name in queries:
        found = members.get(_object(query_file, name))
        if found is None:
            raise AmesError(f"{query_file}: no positive of {positive_file.name} is of the object of {name}")
        truth.append({POSITIVE_KEY: np.array(found, np.int64)})
    inside = f"{_CORE}/" if (root / _CORE).is_dir() else ""
    path, notes = root / files["distractors"], []
    if not path.is_file():
        notes.append(f"{path}: not there: the gallery has the positives alone, without distractors")
    return BenchmarkLists(
        root,
        query_file,
        [inside + name for name in queries],
        [inside + name for name in positives],
        truth,
        distractors=Distractors(path) if path.is_file() else None,
        notes=notes,
    )


def _ids(path: Path) -> list[str]:
    return sorted(fields[0].strip() for _, fields in read_rows(path, "list of ids"))


def _object(path: Path, name: str) -> str:
    first, slash, rest = name.partition("/")
    if not first or not slash or not rest:
        raise AmesError(f"{path}: {name!r} is no id OBJECT/FOLDER/IMAGE")
    return first
