"""The library's own lists of a class-labelled data set: train.txt, test_query.txt, test_gallery.txt."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from ames.datasets.classes.class_set import ClassSet, ClassSplit
from ames.datasets.layout import DatasetFolder
from ames.datasets.lists import read_list
from ames.errors import AmesError
from ames.io.atomic import atomic_file


def write_class_lists(folder: Path | str, found: ClassSet, *, overwrite: bool = False) -> bool:
    """Write the lists of a set, ``path,label`` a line, and return whether anything was written.

    Queries without a gallery are searched for among each other: test_gallery.txt equals test_query.txt. A
    list of the same content stays. AmesError where the folder has one of other content, or one that the set
    does not have, unless ``overwrite``, which replaces the one and removes the other.
    """
    wanted = _texts(Path(folder), found)
    for path, text in wanted.items():
        if path.exists() and not overwrite and (text is None or path.read_bytes() != text):
            said = "is not one of this data set" if text is None else "has another content"
            raise AmesError(f"{path}: exists and {said}; name another folder, or give --overwrite")
    changed = False
    for path, text in wanted.items():
        if text is None:
            changed |= path.exists()
            path.unlink(missing_ok=True)
        elif not path.exists() or path.read_bytes() != text:
            changed = True
            with atomic_file(path) as file:
                file.write(text)
    return changed


def read_class_list(path: Path | str) -> ClassSplit:
    """Read a list of a test split. AmesError if an image has no label, or is listed twice."""
    split = ClassSplit()
    rows: dict[str, int] = {}
    for number, (name, label) in enumerate(read_list(path), 1):
        if label is None:
            raise AmesError(f"{path}: image {number} ({name}) has no label; classes need path,label")
        if rows.setdefault(name, number) != number:
            raise AmesError(f"{path}: image {number} ({name}) is image {rows[name]}, too; remove one")
        split.paths.append(name)
        split.labels.append(label)
    return split


def _texts(folder: Path, found: ClassSet) -> Mapping[Path, bytes | None]:
    """The content of each list, None of those that the set does not have."""
    lists = DatasetFolder(folder, "").image_list
    query = None if found.query is None else _text(found.query)
    return {
        lists(): None if found.train is None else _text(found.train),
        lists("query"): query,
        lists("gallery"): query if found.gallery is None else _text(found.gallery),
    }


def _text(split: ClassSplit) -> bytes:
    rows = list(zip(split.paths, split.labels, strict=True))
    spaces = any(field != field.strip() for row in rows for field in row)  # which readers cut off, unquoted
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL if spaces else csv.QUOTE_MINIMAL, lineterminator="\n")
    writer.writerows(rows)
    return text.getvalue().encode()
