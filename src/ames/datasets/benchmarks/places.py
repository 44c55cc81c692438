"""Sets of visual place recognition: images with positions in metres."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from ames.datasets.benchmarks.benchmark_lists import POSITIVE_KEY, BenchmarkLists
from ames.datasets.finding import find_images
from ames.datasets.lists import read_rows
from ames.errors import AmesError

RADIUS = 25.0  # metres: what counts as the same place (Arandjelovic et al., NetVLAD, CVPR 2016)
_FARTHEST = 1e9  # metres: UTM has 1e7
_SLACK = 1 + 1e-6  # of a cell: rounding must not put a neighbour two cells away


def read_places(root: Path, files: Mapping[str, str], skip_self: bool = False) -> BenchmarkLists:
    """Read queries and database of a set: two folders, or two files path,easting,northing.

    ``files["queries"]``, ``files["database"]``: folders below the root; images in them are called
    @EASTING@NORTHING@...@.jpg, in metres (UTM), the format of the common downloader. Where the root has
    queries.csv and database.csv instead, they say the positions of their images. Right is an image at most 25
    metres away. Zones of UTM are not compared, as in the published evaluation. AmesError for an image without
    a position.
    """
    tables = [root / f"{split}.csv" for split in ("queries", "database")]
    if all(path.is_file() for path in tables):
        (queries, asked), (gallery, known) = map(_of_table, tables)
        source = tables[0]
    else:
        (queries, asked), (gallery, known) = (_of_folder(root, files[key]) for key in ("queries", "database"))
        source = root
    truth = [{POSITIVE_KEY: found} for found in within(asked, known, RADIUS)]
    return BenchmarkLists(root, source, queries, gallery, truth)


def within(queries: np.ndarray, gallery: np.ndarray, radius: float) -> list[np.ndarray]:
    """Return for each query the rising ids int64 [k] of the gallery at most ``radius`` away.

    queries float64 [Q, 2], gallery float64 [n, 2], radius in their unit. The plane is divided into cells as
    wide as the radius; only a query's cell and the eight around it are compared, so that memory grows with
    the images, not with the pairs.
    """
    size = radius * _SLACK
    cells = np.floor(gallery / size).astype(np.int64)
    order = np.lexsort((cells[:, 1], cells[:, 0]))
    names, starts = np.unique(cells[order], axis=0, return_index=True)
    parts = np.split(order, starts[1:])
    members = {(int(x), int(y)): ids for (x, y), ids in zip(names, parts, strict=True)}
    found = []
    for point in queries:
        x, y = (int(value) for value in np.floor(point / size))
        near = [members[cell] for cell in _around(x, y) if cell in members]
        ids = np.concatenate(near) if near else np.empty(0, np.int64)
        distances = np.sqrt(((gallery[ids] - point) ** 2).sum(1))
        found.append(np.sort(ids[distances <= radius]).astype(np.int64))
    return found


def _around(x: int, y: int) -> list[tuple[int, int]]:
    return [(x + i, y + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]


def _of_folder(root: Path, name: str) -> tuple[list[str], np.ndarray]:
    folder = root / name
    if not folder.is_dir():
        raise AmesError(
            f"{folder}: no such folder, and {root} has no queries.csv, database.csv (path,easting,northing)"
        )
    names = [f"{name}/{image}" for image in find_images(folder).names]
    positions = []
    for image in names:
        fields = PurePosixPath(image).name.split("@")
        if len(fields) < 4:
            raise AmesError(f"{root / image}: its name has no position; expected @EASTING@NORTHING@...")
        positions.append(_position(fields[1:3], str(root / image)))
    return names, np.array(positions)


def _of_table(path: Path) -> tuple[list[str], np.ndarray]:
    rows = read_rows(path, "list of positions")
    if not rows or [field.strip() for field in rows[0][1]] != ["path", "easting", "northing"]:
        raise AmesError(f"{path}: its first line is not path,easting,northing")
    positions, names = [], []
    for line, fields in rows[1:]:
        if len(fields) != 3:
            raise AmesError(f"{path}: line {line}: {len(fields)} fields; expected path,easting,northing")
        names.append(fields[0])
        positions.append(_position(fields[1:], f"{path}: line {line}"))
    return names, np.array(positions, np.float64).reshape(-1, 2)


def _position(texts: list[str], where: str) -> tuple[float, float]:
    try:
        east, north = (float(text) for text in texts)
    except ValueError:
        east = north = float("nan")
    if not (abs(east) < _FARTHEST and abs(north) < _FARTHEST):  # NaN is not
        raise AmesError(f"{where}: {texts[0]!r}, {texts[1]!r} is no position in metres")
    return east, north
