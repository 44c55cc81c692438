"""Compare one image in two files of local descriptors: same, same up to a linear map, or different."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ames.descriptors.local import DescriptorFile
from ames.errors import AmesError

SAME, CLOSE, MAPPED, DIFFERENT = "same", "nearly the same", "same up to a linear map", "different"
MATCHED = 0.8  # share of the locations that both files must have
EQUAL, NEAR = 0.99, 0.9  # median cosines
STRUCTURE = 0.5  # correlation of the similarities among an image's own descriptors
_TOLERANCE = 2e-3  # of locations, as a share of their extent; fp16 keeps a thousandth

_MEANING = {
    SAME: "the two files hold the same descriptors of this image",
    CLOSE: "the same features with small differences: of the image's size or reading, or of precision",
    MAPPED: "the same places, and descriptors that differ by a map: one file holds raw features, the other "
    "projected ones, or their weights differ; do not score one against the other",
    DIFFERENT: "other descriptors: of another image, backbone, or extraction; do not score one against the "
    "other",
}


def compare(
    first: Path | str, second: Path | str, image: str, other_image: str | None = None
) -> dict[str, Any]:
    """Compare the features of one image in two files; ``verdict`` and ``text`` are the result.

    image: a name (if the file has names) or a row; other_image: that in the second file, if different.
    locations: the share of the shorter list's descriptors with a partner at their place and scale in the
    other; cosine: of those partners; structure: correlation of the two matrices of cosines among partners,
    which a linear map hardly changes. Files without locations are compared row by row.
    """
    files = DescriptorFile(first), DescriptorFile(second)
    rows = [_row(files[0], image), _row(files[1], other_image or image)]
    a, b = (_Image(file, row) for file, row in zip(files, rows, strict=True))
    found: dict[str, Any] = {
        "files": [str(first), str(second)],
        "rows": rows,
        "descriptors": [len(a.x), len(b.x)],
        "width": [files[0].width, files[1].width],
        "locations": None,
        "cosine": None,
        "structure": None,
    }
    if not len(a.x) and not len(b.x):
        return found | {"verdict": SAME, "text": "neither file has descriptors of this image"}
    if not len(a.x) or not len(b.x):
        return found | {"verdict": DIFFERENT, "text": "only one of the files has descriptors"}
    if len(a.x) > len(b.x):
        a, b = b, a
    shared, pairs = _partners(a, b)
    found["locations"] = shared
    x, y = a.x[pairs[0]], b.x[pairs[1]]
    if x.shape[1] == y.shape[1] and len(x):
        cosines = (x * y).sum(1)
        values = {"median": np.median(cosines), "mean": cosines.mean(), "min": cosines.min()}
        found["cosine"] = {name: round(float(value), 4) for name, value in values.items()}
    if len(x) > 2:
        found["structure"] = _structure(x, y)
    verdict = _verdict(found)
    return found | {"verdict": verdict, "text": _MEANING[verdict]}


class _Image:
    """The real descriptors of a row, L2-normalized, and their places as shares of the extent."""

    def __init__(self, file: DescriptorFile, row: int) -> None:
        local = file.read([row])[0]
        x = local.descriptors[local.valid].numpy()
        x = 2.0 * np.unpackbits(x, axis=-1) - 1 if file.packed else x.astype(np.float64)
        x = np.nan_to_num(x, posinf=0, neginf=0)
        self.x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        self.places = None
        if local.positions is not None and local.scale is not None and len(x):
            positions, scale = (each[local.valid].numpy() for each in (local.positions, local.scale))
            self.places = np.c_[positions, scale].astype(np.float64)

    @property
    def in_pixels(self) -> bool:
        return self.places is not None and self.places[:, :2].max() > 1.01


def _partners(a: _Image, b: _Image) -> tuple[float | None, tuple[np.ndarray, np.ndarray]]:
    """Share of a's descriptors with a partner in b (None without locations), and the pairs of rows."""
    if a.places is None or b.places is None:
        rows = np.arange(len(a.x))
        return None, (rows, rows)
    if a.in_pixels != b.in_pixels:  # not comparable without the image's size
        return 0.0, (np.empty(0, int), np.empty(0, int))
    extent = np.abs(b.places[:, :2]).max() if b.in_pixels else 1.0
    tolerance = _TOLERANCE * extent
    apart = np.abs(a.places[:, None, :2] - b.places[None, :, :2]).max(-1)
    apart += np.abs(a.places[:, None, 2] - b.places[None, :, 2]) * extent
    if a.x.shape[1] == b.x.shape[1]:
        apart += 0.1 * tolerance * (1 - a.x @ b.x.T)  # of several at one place, the most similar
    nearest = apart.argmin(1)
    matched = apart[np.arange(len(nearest)), nearest] <= 1.2 * tolerance
    return round(float(matched.mean()), 4), (np.flatnonzero(matched), nearest[matched])


def _structure(x: np.ndarray, y: np.ndarray) -> float | None:
    """Correlation of the cosines among x's rows with those among y's."""
    upper = np.triu_indices(len(x), 1)
    first, second = (x @ x.T)[upper], (y @ y.T)[upper]
    if min(first.std(), second.std()) < 1e-6:
        return None
    return round(float(np.corrcoef(first, second)[0, 1]), 4)


def _verdict(found: dict[str, Any]) -> str:
    if found["locations"] is not None and found["locations"] < MATCHED:
        return DIFFERENT
    median = found["cosine"]["median"] if found["cosine"] else 0.0
    if median >= EQUAL:
        return SAME
    if median >= NEAR:
        return CLOSE
    return MAPPED if (found["structure"] or 0.0) >= STRUCTURE else DIFFERENT


def _row(file: DescriptorFile, image: str) -> int:
    if file.names is not None and image in file.names:
        return file.names.index(image)
    if image.isdecimal() and int(image) < len(file):
        return int(image)
    if image.isdecimal():
        raise AmesError(f"{file.path}: no row {image}, it has {len(file)} images")
    known = "has no image of that name" if file.names else "names no images: give a row"
    raise AmesError(f"{file.path}: no image {image!r}, the file {known}")
