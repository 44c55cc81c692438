"""The lists of the Google Landmarks Dataset v2 for retrieval (Weyand et al., CVPR 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ames.datasets.benchmarks.benchmark_lists import POSITIVE_KEY, BenchmarkLists, listed_file
from ames.datasets.lists import GLDV2_ID, gldv2_path, read_rows
from ames.errors import AmesError

_USAGES = ("Public", "Private", "Ignored")
NUM_PRIVATE = 750
_HINT = "give the folder of GLDv2 with its lists"


def read_gldv2(root: Path, files: Mapping[str, str], skip_self: bool = False) -> BenchmarkLists:
    """Read ``files["index"]`` (id), ``files["test"]`` (id) and ``files["solution"]`` (id,images,Usage).

    Image abc… lies in index/a/b/c/ or test/a/b/c/. Queries are the public ones, then the private ones, in the
    solution's order; ignored ones are left out. A note says where the private ones are not 750, by which the
    protocols "public" and "private" divide. AmesError for an id that is not in its list.
    """
    index_file = listed_file(root, files, "index", _HINT)
    solution = listed_file(root, files, "solution", _HINT)
    index = _ids(index_file)
    places = {name: number for number, name in enumerate(index)}
    rows = _solution(solution)
    notes = _compare_tests(root / files["test"], solution, rows)
    kept = [row for usage in ("Public", "Private") for row in rows if row[2] == usage]
    truth = []
    for query, images, _ in kept:
        unknown = next((image for image in images if image not in places), None)
        if unknown is not None:
            raise AmesError(f"{solution}: query {query}: image {unknown} is not in {index_file.name}")
        truth.append({POSITIVE_KEY: np.unique(np.array([places[x] for x in images], np.int64))})
    private = sum(row[2] == "Private" for row in kept)
    if private != NUM_PRIVATE:
        notes.append(
            f"{solution}: {private:,} private queries, {NUM_PRIVATE} are published: the protocols public and "
            "private divide at the last 750"
        )
    if ignored := len(rows) - len(kept):
        notes.append(f"{ignored:,} queries of the usage Ignored are left out")
    queries = [f"test/{gldv2_path(row[0])}" for row in kept]
    gallery = [f"index/{gldv2_path(name)}" for name in index]
    return BenchmarkLists(root, solution, queries, gallery, truth, notes=notes)


def _ids(path: Path) -> list[str]:
    rows = read_rows(path, "list of ids")
    if not rows or rows[0][1][0] != "id":
        raise AmesError(f"{path}: its first line is no list of columns that begins with id")
    for line, fields in rows[1:]:
        if not GLDV2_ID.fullmatch(fields[0]):
            raise AmesError(f"{path}: line {line}: {fields[0]!r} is no id of 16 hexadecimal digits")
    return [fields[0] for _, fields in rows[1:]]


def _solution(path: Path) -> list[tuple[str, list[str], str]]:
    """(query, images, usage) of each line."""
    rows = read_rows(path, "list of queries")
    if not rows or rows[0][1] != ["id", "images", "Usage"]:
        raise AmesError(f"{path}: its first line is not id,images,Usage")
    found = []
    for line, fields in rows[1:]:
        images = [] if len(fields) != 3 or fields[1] == "None" else fields[1].split()
        if (
            len(fields) != 3
            or fields[2] not in _USAGES
            or not all(map(GLDV2_ID.fullmatch, [fields[0], *images]))
        ):
            raise AmesError(f"{path}: line {line} is not id,images,Usage with Usage {', '.join(_USAGES)}")
        found.append((fields[0], images, fields[2]))
    return found


def _compare_tests(path: Path, solution: Path, rows: list[tuple[str, list[str], str]]) -> list[str]:
    """Notes; AmesError for a query of the solution that the list of test images does not have."""
    if not path.is_file():
        return [f"{path}: not there, so that the queries are not compared with it"]
    known = set(_ids(path))
    missing = next((row[0] for row in rows if row[0] not in known), None)
    if missing is not None:
        raise AmesError(f"{solution}: query {missing} is not in {path.name}; the lists are of two versions")
    return []
