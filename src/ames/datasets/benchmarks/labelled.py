"""Benchmarks whose images have classes: lists path,label, class-labelled sets, a sub-folder a class, MET."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ames.datasets.benchmarks.benchmark_lists import BenchmarkLists, listed_file, truth_of_labels
from ames.datasets.classes.class_lists import read_class_list
from ames.datasets.classes.class_set import ClassSplit
from ames.datasets.classes.readers import read_class_set
from ames.datasets.finding import find_images
from ames.errors import AmesError
from ames.io.claims import parsed
from ames.io.text import counted


def read_lists(root: Path, files: Mapping[str, str], skip_self: bool = False) -> BenchmarkLists:
    """Read test_query.txt and test_gallery.txt, ``path,label`` a line.

    Where the root has neither, and queries are searched for among the others: a sub-folder a class of the
    folder ``files["folder"]`` (the root, where that is missing), of which every image is a query. A note says
    so: published figures may be of chosen queries. AmesError as ``truth_of_labels``.
    """
    paths = [root / f"test_{split}.txt" for split in ("query", "gallery")]
    if all(path.is_file() for path in paths):
        query, gallery = map(read_class_list, paths)
        return _of_splits(root, root, query, gallery, skip_self=skip_self)
    if any(path.is_file() for path in paths) or not skip_self:
        raise AmesError(f"{root}: needs {paths[0].name} and {paths[1].name}, path,label a line")
    found = read_folder(root, files, skip_self)
    note = f"{root}: has no {paths[0].name}: every image is a query, not the published choice of them"
    found.notes.insert(0, note)
    return found


def read_folder(root: Path, files: Mapping[str, str], skip_self: bool = True) -> BenchmarkLists:
    """Read a sub-folder a class of ``files["folder"]`` below the root, or of the root where that is missing.

    Every image is a query. Images directly in the folder have no class: a note says how many.
    """
    inside = files.get("folder", "")
    folder = root / inside if inside and (root / inside).is_dir() else root
    found = find_images(folder)
    before = f"{inside}/" if folder != root else ""
    names = [name for name in found.names if "/" in name]
    if not names:
        raise AmesError(f"{folder}: no images in sub-folders; expected one sub-folder a class")
    notes = []
    if loose := len(found.names) - len(names):
        notes.append(f"{counted(loose, 'image')} directly in {folder}, of no class, left out")
    split = ClassSplit([before + name for name in names], [name.split("/")[0] for name in names])
    return _of_splits(root, folder, split, split, skip_self=skip_self, notes=notes)


def read_classes(root: Path, files: Mapping[str, str], skip_self: bool = False) -> BenchmarkLists:
    """Read the test splits of a set of ``ames.datasets.classes.readers``, of the kind ``files["kind"]``."""
    found = read_class_set(files["kind"], root)
    if found.query is None:
        raise AmesError(f"{root}: {files['kind']} has no test images")
    gallery = found.query if found.gallery is None else found.gallery
    return _of_splits(root, root, found.query, gallery, skip_self=skip_self, notes=found.notes)


def read_met(root: Path, files: Mapping[str, str], skip_self: bool = False) -> BenchmarkLists:
    """Read ``files["database"]`` and ``files["queries"]`` of The Met dataset (Ypsilantis et al. 2021).

    root: the folder with the lists, or with ground_truth/ and images/; paths begin with images/. A query
    without MET_id is a distractor, of no class. AmesError for a class that the database does not have.
    """
    folder = root / "ground_truth" if (root / "ground_truth").is_dir() else root
    hint = "give the folder of The Met dataset"
    database = listed_file(folder, files, "database", hint)
    path = listed_file(folder, files, "queries", hint)
    gallery, query = _met(database, "id", needed=True), _met(path, "MET_id", needed=False)
    known = set(gallery.labels)
    for image, label in zip(query.paths, query.labels, strict=True):
        if label and label not in known:
            raise AmesError(
                f"{path}: {image} has the MET_id {label}, of no image of {database.name}; the lists are of "
                "different versions"
            )
    distractors = query.labels.count("")
    notes = [f"{counted(distractors, 'query has', 'queries have')} no MET_id: of no class, distractors"]
    return _of_splits(root, path, query, gallery, skip_self=skip_self, notes=notes if distractors else [])


def _met(path: Path, key: str, *, needed: bool) -> ClassSplit:
    try:
        rows = parsed(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AmesError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(rows, list):
        raise AmesError(f"{path}: not a list of images")
    split = ClassSplit()
    for number, row in enumerate(rows):
        split.paths.append(_met_path(path, number, row))
        label = row.get(key)
        if isinstance(label, bool) or not isinstance(label, (int, str)):
            if needed or label is not None:
                raise AmesError(f"{path}: image {number} has {key} {label!r}; expected a number")
            label = ""
        split.labels.append(str(label))
    return split


def _met_path(path: Path, number: int, row: Any) -> str:
    if not isinstance(row, Mapping) or not isinstance(row.get("path"), str):
        raise AmesError(f"{path}: image {number} has no path")
    return f"images/{row['path']}"


def _of_splits(
    root: Path,
    source: Path,
    query: ClassSplit,
    gallery: ClassSplit,
    *,
    skip_self: bool,
    notes: list[str] | None = None,
) -> BenchmarkLists:
    truth = truth_of_labels(
        source, (query.paths, query.labels), (gallery.paths, gallery.labels), skip_self=skip_self
    )
    return BenchmarkLists(
        root,
        source,
        query.paths,
        gallery.paths,
        truth,
        query_labels=query.labels,
        gallery_labels=gallery.labels,
        notes=list(notes or []),
    )
