"""Readers of published lists: CUB-200-2011, Stanford Online Products, DeepFashion In-Shop, GLDv2-clean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ames.datasets.classes.class_set import ClassSet, Row, collect
from ames.datasets.classes.lines import malformed, read_lines
from ames.datasets.lists import gldv2_path
from ames.errors import AmesError

CUB_TRAINED = 100  # classes 1 to 100 train, 101 to 200 test (Oh Song et al., CVPR 2016)
_GLDV2_ID = re.compile("[0-9a-f]{16}")


def read_cub(root: Path) -> ClassSet:
    """Read ``images.txt`` of CUB-200-2011 (Wah et al. 2011): the classes 1 to 100 train, the others test.

    root: the folder CUB_200_2011, which holds images.txt and images/. The label is the folder's name; the
    class is the number that it begins with. The archive's own division (train_test_split.txt) is of
    classification, and is not read.
    """
    path = root / "images.txt"

    def rows() -> Iterator[Row]:
        for number, line in read_lines(path, "give the folder CUB_200_2011 of the archive"):
            found = re.fullmatch(r"\d+ ((\d+)\.[^/]*)/(.+)", line)
            if found is None:
                raise malformed(path, number, line, "'NUMBER CLASS.NAME/IMAGE'")
            split = "train" if int(found[2]) <= CUB_TRAINED else "query"
            yield Row(f"images/{found[1]}/{found[3]}", found[1], split, path, number)

    return collect(rows(), root, path, needed=("train", "query"))


def read_sop(root: Path) -> ClassSet:
    """Read ``Ebay_train.txt`` and ``Ebay_test.txt`` of Stanford Online Products (Oh Song et al., CVPR 2016).

    root: the folder Stanford_Online_Products. The class is the product (``class_id``), not the super-class.
    """
    header = "image_id class_id super_class_id path"

    def rows() -> Iterator[Row]:
        for split, name in (("train", "Ebay_train.txt"), ("query", "Ebay_test.txt")):
            path = root / name
            lines = read_lines(path, "give the folder Stanford_Online_Products of the archive")
            _check_header(path, lines, header)
            for number, line in lines:
                fields = line.split(maxsplit=3)
                if len(fields) != 4 or not all(field.isdecimal() for field in fields[:3]):
                    raise malformed(path, number, line, f"{header!r}")
                yield Row(fields[3], fields[1], split, path, number)

    return collect(rows(), root, root / "Ebay_*.txt", needed=("train", "query"))


def read_inshop(root: Path) -> ClassSet:
    """Read ``Eval/list_eval_partition.txt`` of DeepFashion In-Shop (Liu et al., CVPR 2016).

    root: the folder that holds Eval/. Queries and gallery are apart. Paths begin with ``img/``, or with
    ``Img/img/`` where that folder exists: img.zip lies in Img/. AmesError where the number of images in the
    first line is not that of the lines.
    """
    path = root / "Eval" / "list_eval_partition.txt"
    inside = "Img/" if (root / "Img" / "img").is_dir() else ""

    def rows() -> Iterator[Row]:
        lines = read_lines(path, "give the folder of the In-Shop benchmark, which holds Eval/ and img/")
        number, first = next(lines, (1, ""))
        if not first.isdecimal():
            raise malformed(path, number, first, "the number of images")
        _check_header(path, lines, "image_name item_id evaluation_status")
        count = 0
        for number, line in lines:
            count += 1
            fields = line.split()
            if len(fields) != 3 or fields[2] not in ("train", "query", "gallery"):
                raise malformed(path, number, line, "'IMAGE ITEM train|query|gallery'")
            yield Row(inside + fields[0], fields[1], fields[2], path, number)
        if count != int(first):
            raise AmesError(
                f"{path}: its first line says {int(first):,} images, and {count:,} follow: the file is cut "
                "off or changed; unpack it again"
            )

    return collect(rows(), root, path, needed=("train", "query", "gallery"))


def read_gldv2_clean(root: Path) -> ClassSet:
    """Read ``train_clean.csv`` of the Google Landmarks Dataset v2 (Weyand et al., CVPR 2020): training alone.

    root: the folder with train_clean.csv. The image abc….jpg lies in a/b/c/, or in train/a/b/c/ where there
    is a folder train. ``train.csv``, the list before cleaning, is compared where it is there: an image with
    another landmark, or none, is an AmesError.
    """
    path, whole = root / "train_clean.csv", root / "train.csv"
    inside = "train/" if (root / "train").is_dir() else ""

    def rows() -> Iterator[Row]:
        lines = read_lines(path, "give the folder with GLDv2's lists")
        _check_header(path, lines, "landmark_id,images")
        for number, line in lines:
            label, comma, images = line.partition(",")
            names = images.split()
            if not (comma and label.isdecimal() and names and all(map(_GLDV2_ID.fullmatch, names))):
                raise malformed(path, number, line, "'LANDMARK,ID ID ...'")
            for name in names:
                yield Row(inside + gldv2_path(name), label, "train", path, number)

    found = collect(rows(), root, path)
    if whole.is_file():
        _compare_landmarks(found, whole)
    else:
        found.notes.append(f"{whole}: not there, so that {path.name} is not compared with it")
    return found


def _compare_landmarks(found: ClassSet, whole: Path) -> None:
    """AmesError unless train.csv has every image of the set, under the same landmark."""
    assert found.train is not None, "the reader collects one split"
    pairs = zip(found.train.paths, found.train.labels, strict=True)
    known = {path[-20:].removesuffix(".jpg"): label for path, label in pairs}
    lines = read_lines(whole, "give GLDv2's list")
    _check_header(whole, lines, "id,url,landmark_id")
    for number, line in lines:
        name, _, rest = line.partition(",")  # an address may have commas
        label = rest.rpartition(",")[2]
        if not label.isdecimal():
            raise malformed(whole, number, line, "'ID,URL,LANDMARK'")
        if known.pop(name, label) != label:
            raise AmesError(
                f"{whole}: line {number}: {name} is of landmark {label}, and of another one in "
                "train_clean.csv; the lists are of different versions"
            )
    if known:
        raise AmesError(
            f"{whole}: lacks {len(known):,} images of train_clean.csv (first: {next(iter(known))}); the "
            "lists are of different versions, or the file is cut off"
        )


def _check_header(path: Path, lines: Iterator[tuple[int, str]], expected: str) -> None:
    """Read the next line; AmesError unless it has these names, in whatever spacing."""
    number, line = next(islice(lines, 1), (1, ""))
    if line.split() != expected.split():
        raise malformed(path, number, line, f"the names of the columns, {expected!r}")
