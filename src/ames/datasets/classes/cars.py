"""Cars196 (Krause et al. 2013): the list of all cars, a MATLAB file or a CSV file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ames.datasets.classes.class_set import ClassSet, Row, collect
from ames.datasets.classes.own import read_labelled
from ames.errors import AmesError, first_line, installing

CARS_TRAINED = 98  # classes 1 to 98 train, 99 to 196 test (Oh Song et al., CVPR 2016)
_PATH, _CLASS = 0, 5  # fields of an annotation


def read_cars(root: Path) -> ClassSet:
    """Read ``cars_annos.mat`` (MATLAB 5, by scipy), or ``cars_annos.csv`` (path,label) where there is one.

    root: the folder that holds the list and car_ims/. The classes 1 to 98 train, the others test; the own
    division of the file is of classification, and is not read. AmesError where scipy is needed and missing.
    """
    table, listed = root / "cars_annos.csv", root / "cars_annos.mat"
    if table.is_file():
        found = [(row.path, row.label, row.line) for row in read_labelled(table)]
        return collect(_rows(found, table), root, table, needed=("train", "query"))
    if not listed.is_file():
        raise AmesError(
            f"{listed}: no such file; give the folder with it, or write {table.name} (path,label)"
        )
    return collect(_rows(_annotations(listed), listed), root, listed, needed=("train", "query"))


def _rows(found: list[tuple[str, str, int]], source: Path) -> Iterator[Row]:
    for path, label, line in found:
        row = Row(path, label, "train", source, line)
        if not re.fullmatch(r"[1-9]\d{0,8}", label):
            raise AmesError(f"{row.where()}: {path} has the label {label!r}; expected the class, 1 to 196")
        yield row if int(label) <= CARS_TRAINED else row._replace(split="query")


def _annotations(path: Path) -> list[tuple[str, str, int]]:
    """(path, class, 0) of each car."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise AmesError(
            f"{path}: needs scipy: {installing('mat')}; or write cars_annos.csv (path,label) beside it"
        ) from None
    try:
        content = loadmat(path, variable_names=["annotations"])
    except Exception as error:  # what scipy raises for a damaged file differs
        raise AmesError(f"{path}: not a MATLAB 5 file that scipy reads ({first_line(error)})") from error
    table = content.get("annotations")
    if table is None or table.dtype.names is None or len(table.dtype.names) <= _CLASS:
        raise AmesError(f"{path}: has no 'annotations' with a path and a class each; is it cars_annos.mat?")
    path_field, class_field = table.dtype.names[_PATH], table.dtype.names[_CLASS]
    return [_annotation(path, n, car[path_field], car[class_field]) for n, car in enumerate(table.flat, 1)]


def _annotation(source: Path, number: int, path: Any, label: Any) -> tuple[str, str, int]:
    path, label = np.asarray(path), np.asarray(label)
    if path.size != 1 or path.dtype.kind != "U" or label.size != 1 or label.dtype.kind not in "iu":
        raise AmesError(
            f"{source}: annotation {number} has no path in its first field, or no class in its sixth; is it "
            "cars_annos.mat, of all cars?"
        )
    return str(path.item()), str(int(label.item())), 0
