"""The library's own files of a benchmark: test_query.txt, test_gallery.txt, gnd_<folder>.json."""

from __future__ import annotations

import csv
import filecmp
import os
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from pathlib import Path
from tempfile import TemporaryDirectory

from ames.datasets.benchmarks.benchmark_lists import BenchmarkLists
from ames.datasets.ground_truth import save_ground_truth
from ames.datasets.layout import DatasetFolder
from ames.errors import AmesError


def write_benchmark_lists(folder: Path | str, lists: BenchmarkLists, *, overwrite: bool = False) -> bool:
    """Write the lists, ``path`` or ``path,label`` a line, and the ground truth; return whether anything was.

    Distractors follow the gallery in its list; the ground truth does not name them. Files of the same content
    stay. AmesError where one has another content, unless ``overwrite``. All are written before any takes its
    name.
    """
    folder = Path(folder)
    paths = DatasetFolder(folder, "")
    targets = [paths.image_list("query"), paths.image_list("gallery"), paths.ground_truth]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".lists-", dir=folder) as staged:
            made = [Path(staged) / path.name for path in targets]
            _write(made[0], lists.queries, lists.query_labels)
            _write(made[1], lists.gallery, lists.gallery_labels, lists.distractors or ())
            save_ground_truth(made[2], lists.ground_truth())
            changed = [x for x in zip(made, targets, strict=True) if not _equal(*x)]
            for _, path in changed:
                if path.exists() and not overwrite:
                    raise AmesError(
                        f"{path}: exists and has another content; name another folder, or give --overwrite"
                    )
            for new, path in changed:
                os.replace(new, path)
    except OSError as error:
        raise AmesError(f"{folder}: cannot be written ({error.strerror or error})") from error
    return bool(changed)


def _write(path: Path, names: Sequence[str], labels: Sequence[str], behind: Iterable[str] = ()) -> None:
    """Write a list as ``ames.datasets.classes.class_lists`` does; images behind it have no label, and may be
    more than fit into memory.
    """
    pairs = zip(names, labels or repeat(""), strict=False)
    rows = [[name, label] if label else [name] for name, label in pairs]
    spaces = any(field != field.strip() for row in rows for field in row)  # which readers cut off, unquoted
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL if spaces else csv.QUOTE_MINIMAL, lineterminator="\n")
        writer.writerows(chain(rows, ([name] for name in behind)))


def _equal(one: Path, other: Path) -> bool:
    return other.is_file() and filecmp.cmp(one, other, shallow=False)
