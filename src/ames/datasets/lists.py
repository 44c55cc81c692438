"""Text lists of images: paths, labels, other comma-separated files."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ames.errors import AmesError
from ames.io.atomic import atomic_file


class ListedImage(NamedTuple):
    """One line of a list: path relative to the image root, and its label (None where it has none)."""

    path: str
    label: str | None


def read_rows(path: Path | str, what: str = "list of images") -> list[tuple[int, list[str]]]:
    """Return (line number from 1, fields) of each line of a comma-separated file that is not blank.

    A field with a comma is in double quotes. AmesError if the file is missing or not such a text.
    """
    path = Path(path)
    if not path.is_file():
        raise AmesError(f"{path}: no such {what}")
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows put a mark at the start
        if "\0" in text:
            raise AmesError(f"{path}: not a text file (zero bytes in it: UTF-16?)")
        # Not by splitlines, for which a name with U+2028 in it is two lines.
        reader = csv.reader(map(str.strip, text.split("\n")))
        rows, line = [], 0
        for fields in reader:
            if reader.line_num > line + 1:  # the lines up to the next quote have become one field
                raise AmesError(f"{path}: line {line + 1}: a double quote that is not closed")
            line = reader.line_num
            if fields:
                rows.append((line, fields))
        return rows
    except OSError as error:
        raise AmesError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise AmesError(f"{path}: not a text file ({error.reason})") from error
    except csv.Error as error:
        raise AmesError(f"{path}: not a {what} ({error})") from error


def read_list(path: Path | str) -> list[ListedImage]:
    """Read lines ``path,label[,width,height]`` or ``path``; blank lines are skipped.

    A path with a comma is in double quotes, as in CSV.
    """
    return [item for _, item in _items(path)]


def _items(path: Path | str) -> list[tuple[int, ListedImage]]:
    items = [(line, ListedImage(row[0], [*row, ""][1] or None)) for line, row in read_rows(path)]
    if not items:
        raise AmesError(f"{path}: the list names no image")
    return items


def write_names(path: Path | str, names: Sequence[str]) -> None:
    """Write a list of paths without labels that ``read_list`` reads back, whatever characters they have."""
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([name] for name in names)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())


def check_all_exist(root: Path, names: Sequence[str]) -> None:
    """Raise AmesError if no image of a list exists: then the root is wrong, not the images."""
    if not any(os.path.isfile(root / name) for name in names):  # Path.is_file may raise for some names
        raise AmesError(f"{root}: none of the {len(names)} listed images exists (first: {names[0]})")


def list_digest(names: Sequence[str], boxes: Iterable[Sequence[float]] = ()) -> str:
    """Return 16 hexadecimal digits that identify a list and its boxes."""
    digest = hashlib.sha256("\n".join(names).encode())
    for box in boxes:
        digest.update(repr([float(x) for x in box]).encode())
    return digest.hexdigest()[:16]


class TrainingList(NamedTuple):
    """labels int64 [n]; first int64 [n]: the first row with the same path."""

    labels: np.ndarray
    first: np.ndarray


def read_training_list(path: Path | str) -> TrainingList:
    """Return the labels of a training list, and which of its rows are the same image.

    AmesError if an image has no label, or two.
    """
    items = _items(path)
    first: dict[str, int] = {}
    for row, (line, item) in enumerate(items):
        if item.label is None:
            raise AmesError(f"{path}: image {row + 1} ({item.path}) has no label; training needs path,label")
        other, known = items[first.setdefault(item.path, row)]
        if known.label != item.label:
            raise AmesError(
                f"{path}: {item.path} has the label {known.label} in line {other} and {item.label} in line "
                f"{line}: remove one of the lines"
            )
    labels = np.unique([item.label for _, item in items], return_inverse=True)[1].astype(np.int64)
    return TrainingList(labels, np.array([first[item.path] for _, item in items]))
