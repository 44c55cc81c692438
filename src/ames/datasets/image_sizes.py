"""Sizes of images in pixels, as they are upright: from lists, else from the files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from ames.datasets.image_headers import JPEG, exif_orientation, size_of
from ames.datasets.images import UnreadableImage, read_image
from ames.datasets.lists import read_rows
from ames.errors import AmesError

_TURNED = (5, 6, 7, 8)  # orientations of EXIF that exchange height and width


def listed_sizes(path: Path | str) -> np.ndarray | None:
    """Return float32 [n, 2], (height, width), of a list of lines ``path,label,width,height``; None: its lines
    have no sizes. AmesError where one has and another has not, or for a size that is none.
    """
    rows = read_rows(path)
    if not any(len(fields) >= 4 for _, fields in rows):
        return None
    sizes = np.zeros((len(rows), 2), np.float32)
    for row, (line, fields) in enumerate(rows):
        try:
            width, height = (float(x) for x in fields[2:4])
            good = 0 < width < np.inf and 0 < height < np.inf
        except ValueError:
            good = False
        if not good:
            raise AmesError(f"{path}: line {line}: no width and height; give path,label,width,height")
        sizes[row] = height, width
    return sizes


def file_sizes(root: Path | str, names: Sequence[str]) -> np.ndarray | None:
    """Return float32 [n, 2], (height, width), of images below a folder; None if one of them is not there. One
    that cannot be decoded, and so has no descriptors, counts as 1 x 1.
    """
    sizes = np.ones((len(names), 2), np.float32)
    for row, name in enumerate(names):
        path = os.path.join(root, name)
        if not os.path.isfile(path):
            return None
        with suppress(UnreadableImage):
            sizes[row] = upright_size(path)
    return sizes


def upright_size(path: Path | str) -> tuple[int, int]:
    """Return (height, width) of the pixels that ``read_image`` returns. Of a JPEG only the headers are read;
    others are decoded. UnreadableImage for what is neither.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise UnreadableImage(str(error)) from error
    size = size_of(data) if data.startswith(JPEG) else None
    if size is None:
        height, width = read_image(path).shape[:2]
        return height, width
    return size[::-1] if exif_orientation(data) in _TURNED else size
