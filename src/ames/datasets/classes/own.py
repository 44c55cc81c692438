"""Own labels: a folder with a sub-folder a class, or a CSV file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ames.datasets.classes.class_set import ClassSet, Row, collect
from ames.datasets.finding import find_images
from ames.datasets.lists import read_rows
from ames.errors import AmesError
from ames.io.text import counted

_SPLITS = {"train": "train", "test": "query", "query": "query", "gallery": "gallery"}  # as files say, as here
_HEADERS = (["path", "label"], ["path", "label", "split"])


@dataclass(frozen=True)
class ClassRule:
    """Which classes train, where the labels do not say: the rest of them tests.

    share: of the classes, 0 to 1. seed: another one draws other classes.
    AmesError for a share out of bounds.
    """

    share: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise AmesError(f"the share of classes that train is {self.share}: give 0 to 1")

    def training(self, labels: list[str], source: Path) -> set[str]:
        """Return the classes that train. AmesError where a share above 0, or the rest, gets no class."""
        classes = sorted(set(labels))
        count = round(self.share * len(classes))
        if (self.share > 0 and count == 0) or (self.share < 1 and count == len(classes)):
            raise AmesError(
                f"{source}: {counted(len(classes), 'class', 'classes')}, too few for a share of "
                f"{self.share:g}; give 0 or 1 for one split, or more classes"
            )
        order = np.random.default_rng(self.seed).permutation(len(classes))
        return {classes[place] for place in order[:count]}


def read_folder(root: Path, rule: ClassRule | None = None) -> ClassSet:
    """Read a folder with a sub-folder a class; images below a sub-folder of it are of its class, too.

    rule: which classes train (None: half of them). Images directly in the folder have no class: a note says
    how many. AmesError where all sub-folders are
    called as splits are, and as ``ames.datasets.finding.find_images``.
    """
    found = find_images(root)
    inside = [(name, name.split("/")[0]) for name in found.names if "/" in name]
    classes, notes = {label for _, label in inside}, found.notes()
    if not inside:
        raise AmesError(f"{root}: no images in sub-folders; expected one sub-folder a class")
    if classes <= {*_SPLITS, "val"}:
        raise AmesError(
            f"{root}: its sub-folders are {', '.join(sorted(classes))}, splits and no classes; write a CSV "
            "file (path,label,split), or give each of them alone"
        )
    if loose := len(found.names) - len(inside):
        notes.append(f"{counted(loose, 'image')} directly in {root}, of no class, left out")
    training = (rule or ClassRule()).training([label for _, label in inside], root)
    rows = (Row(name, label, "train" if label in training else "query", root) for name, label in inside)
    return collect(rows, root, root, notes=notes)


def read_csv(path: Path, rule: ClassRule | None = None) -> ClassSet:
    """Read a CSV file whose first line is ``path,label`` or ``path,label,split``.

    Paths are relative to the file's folder. split: train, test, query or gallery; a set has images of test,
    or of query and gallery. Without splits, ``rule`` says which classes train (None: half of them). AmesError
    that names the line for other fields, for a rule beside splits, and as
    ``ames.datasets.classes.class_set.collect``.
    """
    rows = list(read_labelled(path))
    said = {row.split for row in rows}
    if not said - {""}:
        training = (rule or ClassRule()).training([row.label for row in rows], path)
        rows = [row._replace(split="train" if row.label in training else "query") for row in rows]
        return collect(rows, path.parent, path)
    if rule is not None:
        raise AmesError(f"{path}: has a column of splits; leave the share of classes and the seed out")
    if "test" in said and said & {"query", "gallery"}:
        raise AmesError(f"{path}: has images of test, and of query or gallery; use test, or both others")
    if "query" in said and "gallery" not in said:
        raise AmesError(
            f"{path}: has images of query and none of gallery; call them test, for images that are searched "
            "for among each other"
        )
    return collect([row._replace(split=_SPLITS[row.split]) for row in rows], path.parent, path)


def read_labelled(path: Path) -> Iterator[Row]:
    """Yield the rows of a CSV file path,label[,split] as they are written, split "" where it has none."""
    lines = read_rows(path, "list of labels")
    header = [text.strip() for text in lines[0][1]] if lines else []
    if header not in _HEADERS:
        kinds = " or ".join(",".join(names) for names in _HEADERS)
        raise AmesError(f"{path}: its first line is {','.join(header)!r}; expected {kinds}")
    for line, fields in lines[1:]:
        texts = [text.strip() for text in fields]
        if len(texts) != len(header):
            raise AmesError(
                f"{path}: line {line}: {len(texts)} fields; expected {len(header)} ({','.join(header)})"
            )
        split = texts[2] if len(header) == 3 else ""
        if len(header) == 3 and split not in _SPLITS:
            raise AmesError(f"{path}: line {line}: split {split!r}; choose one of {', '.join(_SPLITS)}")
        yield Row(texts[0], texts[1], split, path, line)
