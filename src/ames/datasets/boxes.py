"""Boxes of query images, read from a ground truth, a separate file, or columns of the list of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

from ames.datasets.ground_truth import check_names, load_ground_truth
from ames.datasets.lists import read_rows
from ames.errors import AmesError

Box = tuple[float, float, float, float]


def read_boxes(given: str, names: Sequence[str], listed: Path | None) -> list[Box]:
    """x1, y1, x2, y2 of each image, in pixels of the upright original.

    given: a ground truth (.json, .pkl), a text file of lines x1,y1,x2,y2, or the number (from 1) of the first
    of four columns of the list ``listed``. AmesError if there is not one per name.
    """
    if given.isdecimal() and int(given) >= 1:
        if listed is None:
            raise AmesError(f"boxes {given}: is a column of a list of images, but there is no list")
        boxes = _column(listed, int(given) - 1)
    elif PurePath(given).suffix in (".json", ".pkl"):
        boxes = _from_ground_truth(Path(given), names)
    else:
        boxes = _column(Path(given), 0)
    if len(boxes) != len(names):
        raise AmesError(f"{given}: {len(boxes)} boxes for {len(names)} images")
    return boxes


def _column(path: Path, first: int) -> list[Box]:
    boxes = []
    for line, row in read_rows(path, "file of boxes"):
        try:
            x1, y1, x2, y2 = (float(value) for value in row[first : first + 4])
        except ValueError:
            said = f"{path}: line {line} has no box x1,y1,x2,y2 from column {first + 1} on"
            raise AmesError(said) from None
        boxes.append((x1, y1, x2, y2))
    return boxes


def _from_ground_truth(path: Path, names: Sequence[str]) -> list[Box]:
    truth = load_ground_truth(path)
    if truth.boxes is None:
        raise AmesError(f"{path}: holds no boxes")
    if len(truth.qimlist) == len(names):
        check_names(names, truth.qimlist, source="the list", truth=str(path))
    return [(float(a), float(b), float(c), float(d)) for a, b, c, d in truth.boxes]
