"""Ground truth files of the layout of revisited Oxford and Paris: .json, .pkl, and INSTRE's .mat."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ames.datasets.benchmarks.benchmark_lists import BenchmarkLists, Distractors, listed_file
from ames.datasets.finding import SUFFIXES
from ames.datasets.ground_truth import (
    BOX_KEY,
    GroundTruth,
    check_names,
    load_ground_truth,
    parse_ground_truth,
)
from ames.datasets.lists import read_list
from ames.errors import AmesError, first_line, installing

_SUFFIXES = (".json", ".pkl", ".mat")
_IMAGES = "jpg"  # the folder of images of revisited Oxford and Paris


def read_gnd(root: Path, files: Mapping[str, str], skip_self: bool = False) -> BenchmarkLists:
    """Read ``files["truth"]`` below the root: its name, without the suffix, of a .json, a .pkl or a .mat.

    Names of images are those of ``imlist`` and ``qimlist``: NAME stands for jpg/NAME.jpg beside the file,
    and a.jpg for itself. Where test_query.txt and test_gallery.txt are beside the file, paths are theirs;
    a ground truth without names needs them. ``files["distractors"]``: a list of images behind the gallery,
    in jpg/ beside it. Nothing of a pickle is executed; a .mat is read by scipy.
    AmesError where files are missing or disagree.
    """
    path = _truth_file(root, files["truth"])
    lists = [path.parent / f"test_{split}.txt" for split in ("query", "gallery")]
    named = all(file.is_file() for file in lists)
    listed = [[item.path for item in read_list(file)] for file in lists] if named else None
    truth = _load(path, listed)
    inside = _inside(root, path.parent)
    if listed is not None:
        for file, found, wanted in zip(lists, listed, (truth.qimlist, truth.imlist), strict=True):
            check_names(found, wanted, source=str(file), truth=str(path))
        queries, gallery = ([inside + name for name in names] for names in listed)
    elif not truth.imlist or truth.imlist[0] == "0":
        raise AmesError(f"{path}: names no images; put {lists[0].name} and {lists[1].name} beside it")
    else:
        queries, gallery = ([inside + _place(x) for x in names] for names in (truth.qimlist, truth.imlist))
    behind = _distractors(root, files)
    return BenchmarkLists(root, path, queries, gallery, truth.queries, boxes=truth.boxes, distractors=behind)


def _truth_file(root: Path, name: str) -> Path:
    places = [root / f"{name}{suffix}" for suffix in _SUFFIXES]
    for path in places:
        if path.is_file():
            return path
    raise AmesError(f"no ground truth exists; looked for {', '.join(map(str, places))}")


def _load(path: Path, listed: list[list[str]] | None) -> GroundTruth:
    sizes = {} if listed is None else {"query_size": len(listed[0]), "gallery_size": len(listed[1])}
    if path.suffix == ".mat":
        return parse_ground_truth(_matlab(path), source=str(path), **sizes)
    return load_ground_truth(path, **sizes)


def _matlab(path: Path) -> dict[str, Any]:
    """The content of a MATLAB file with imlist, qimlist and gnd, whose ids count from 1."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise AmesError(f"{path}: needs scipy: {installing('mat')}; or save it as .json") from None
    try:
        content = loadmat(path, variable_names=["imlist", "qimlist", "gnd"])
        names = {key: [_text(x) for x in content[key].ravel()] for key in ("imlist", "qimlist")}
        keys = content["gnd"].dtype.names
        queries = [{key: _numbers(query[key], key) for key in keys} for query in content["gnd"].ravel()]
    except Exception as error:  # what scipy raises for a damaged file differs
        raise AmesError(f"{path}: not a ground truth that scipy reads ({first_line(error)})") from error
    return names | {"gnd": queries}


def _numbers(cell: Any, key: str) -> np.ndarray:
    """A box as it is, or ids from 0."""
    values = np.asarray(cell).ravel()
    return values.astype(np.float64) if key == BOX_KEY else values.astype(np.int64) - 1


def _text(cell: Any) -> str:
    return str(np.asarray(cell).ravel()[0])


def _place(name: str) -> str:
    has_suffix = PurePosixPath(name).suffix.lower() in SUFFIXES
    return name if has_suffix else f"{_IMAGES}/{name}.jpg"


def _inside(root: Path, folder: Path) -> str:
    """The path of a folder below the root, before the names in it."""
    inside = folder.relative_to(root).as_posix()
    return "" if inside == "." else f"{inside}/"


def _distractors(root: Path, files: Mapping[str, str]) -> Distractors | None:
    if "distractors" not in files:
        return None
    path = listed_file(root, files, "distractors", "give the folder that holds both sets")
    return Distractors(path, before=f"{_inside(root, path.parent)}{_IMAGES}/")
