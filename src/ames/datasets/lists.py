"""Text lists of images: paths, labels, other comma-separated files; also the lists of GLDv2."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ames.errors import AmesError
from ames.io.atomic import atomic_file

GLDV2_ID = re.compile("[0-9a-f]{16}")  # of an image of GLDv2


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

    A path with a comma is in double quotes, as in CSV. A list of GLDv2 (``is_gldv2``) is read too: the path
    of the image abc… is a/b/c/abc….jpg, its label the landmark where the list has one.
    """
    return [item for _, item in _items(path)]


def read_sizes(path: Path | str) -> dict[str, tuple[int, int]]:
    """Return (width, height) in pixels of the images whose lines ``path,label,width,height`` have them."""
    sizes = {}
    for _, row in read_rows(path):
        if len(row) >= 4 and all(text.strip().isdecimal() and int(text) > 0 for text in row[2:4]):
            sizes[row[0]] = (int(row[2]), int(row[3]))
    return sizes


def is_gldv2(row: Sequence[str]) -> bool:
    """Return whether the first line of a list is the head of one of GLDv2's (Weyand et al., CVPR 2020):
    train.csv (id,url,landmark_id), index.csv and test.csv (id), retrieval_solution (id,images,Usage).
    """
    return row[0] == "id" and all(re.fullmatch(r"\w+", name) for name in row)


def gldv2_path(name: str) -> str:
    """Return where the archives of GLDv2 have an image, by its id of 16 hexadecimal digits."""
    return f"{name[0]}/{name[1]}/{name[2]}/{name}.jpg"


def _items(path: Path | str) -> list[tuple[int, ListedImage]]:
    rows = read_rows(path)
    if rows and is_gldv2(rows[0][1]):
        items = _of_gldv2(path, rows)
    else:
        items = [(line, ListedImage(row[0], [*row, ""][1] or None)) for line, row in rows]
    if not items:
        raise AmesError(f"{path}: the list names no image")
    return items


def _of_gldv2(path: Path | str, rows: list[tuple[int, list[str]]]) -> list[tuple[int, ListedImage]]:
    head, items = rows[0][1], []
    labelled = head[-1] == "landmark_id"
    for line, row in rows[1:]:
        if not GLDV2_ID.fullmatch(row[0]) or len(row) < len(head):
            raise AmesError(
                f"{path}: line {line}: expected {','.join(head)}, with an id of 16 hexadecimal digits"
            )
        # The last field: an address may have commas.
        items.append((line, ListedImage(gldv2_path(row[0]), row[-1] if labelled else None)))
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
        inside = [part for part in ("train", "index", "test") if os.path.isfile(root / part / names[0])]
        hint = f"; it lies in {root / inside[0]}: give that folder" if inside else ""
        raise AmesError(f"{root}: none of the {len(names)} listed images exists (first: {names[0]}){hint}")


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
