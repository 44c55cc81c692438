"""Ground truth, the relevant gallery images of each query: the type, its JSON file, the published pickles.

The layout of the file is that of the revisited Oxford/Paris ground truth: a dict with ``imlist`` (names of
the gallery images), ``qimlist`` (names of the queries) and ``gnd``, a list with one dict per query that maps
``easy``, ``hard``, ``junk``, ``ok`` ... to positions in ``imlist``, and ``bbx`` to the box [x1, y1, x2, y2]
in pixels. Files of GLDv2 hold ``gnd`` alone: their images have no names.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from ames.datasets.finding import SUFFIXES
from ames.errors import AmesError
from ames.io.atomic import atomic_file
from ames.io.claims import parsed
from ames.io.pickles import load_pickle

BOX_KEY = "bbx"


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Relevant gallery images of each query.

    queries: one dict per query, key (``easy``, ``hard``, ``junk``, ``ok`` ...) -> int64 [n] positions in
    ``imlist``.
    imlist, qimlist: names of the gallery images and of the queries, in order. Where the file names none,
        they are the positions "0", "1", ...; ``imlist`` is empty while the size of the gallery is unknown.
    boxes: float64 [Q, 4], x1, y1, x2, y2 in pixels of the query image, or None (whole images).
    """

    queries: list[dict[str, np.ndarray]]
    imlist: list[str]
    qimlist: list[str]
    boxes: np.ndarray | None = None


def ids(query: Mapping[str, np.ndarray], keys: Sequence[str]) -> np.ndarray:
    """Gallery ids of ``query`` under all ``keys``, int64 [n]; AmesError for a key that it does not have."""
    missing = [key for key in keys if key not in query]
    if missing:
        raise AmesError(f"ground truth has no key {missing[0]!r}: its keys are {', '.join(sorted(query))}")
    parts = [np.asarray(query[key], dtype=np.int64) for key in keys]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def load_ground_truth(
    path: Path | str, *, gallery_size: int | None = None, query_size: int | None = None
) -> GroundTruth:
    """Read and check a ground-truth file, ``.json`` or a published ``.pkl``, of which nothing is executed.

    gallery_size, query_size: of the descriptors; needed to check the ids of a file without names. AmesError
    if the file cannot be read or fails a check of ``parse_ground_truth``.
    """
    path = Path(path)
    if path.suffix == ".pkl":
        raw = load_pickle(path)
    else:
        try:
            raw = parsed(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise AmesError(f"{path}: cannot read the ground truth: {error.strerror or error}") from error
        except ValueError as error:
            raise AmesError(f"{path}: not a JSON file, so no ground truth: {error}") from error
    return parse_ground_truth(raw, source=str(path), gallery_size=gallery_size, query_size=query_size)


def parse_ground_truth(
    raw: Any, *, source: str, gallery_size: int | None = None, query_size: int | None = None
) -> GroundTruth:
    """Ground truth from a file's dict (layout: above); AmesError beginning with ``source`` if it is invalid.

    Every query must have the keys of the first one, every id must be a position in the gallery, and sizes
    must agree with the names and with those given.
    """
    if not isinstance(raw, Mapping):
        raise AmesError(f"{source}: ground truth must be a dict with imlist, qimlist and gnd")
    if "gnd" not in raw:
        raise AmesError(f"{source}: not a ground truth: it lacks the key gnd")
    imlist, qimlist = (
        _names(raw[key], key, source=source) if raw.get(key) is not None else None
        for key in ("imlist", "qimlist")
    )
    gnd = raw["gnd"]
    if not isinstance(gnd, Sequence) or not all(isinstance(query, Mapping) for query in gnd):
        raise AmesError(f"{source}: gnd must be a list with one dict per query")
    if qimlist is None:
        qimlist = [str(number) for number in range(len(gnd))]
    if len(gnd) != len(qimlist):
        raise AmesError(f"{source}: gnd has {len(gnd)} queries but qimlist has {len(qimlist)} names")
    if query_size is not None and query_size != len(gnd):
        raise AmesError(f"{source}: gnd has {len(gnd)} queries, but there are {query_size}")
    if imlist is None:
        imlist = [str(number) for number in range(gallery_size or 0)]
        num_images = gallery_size
    else:
        num_images = len(imlist)
        if gallery_size is not None and gallery_size != num_images:
            raise AmesError(f"{source}: imlist has {num_images} names, but the gallery {gallery_size} images")
    for number, query in enumerate(gnd):
        odd = sorted(set(query) ^ set(gnd[0]), key=str)
        if odd:
            raise AmesError(f"{source}: query {number} and query 0 differ in having the key {odd[0]!r}")
    queries = [
        {
            str(key): _indices(value, num_images, where=f"{source}: query {number}, {key}")
            for key, value in query.items()
            if key != BOX_KEY
        }
        for number, query in enumerate(gnd)
    ]
    boxes = None
    if gnd and BOX_KEY in gnd[0]:
        rows = [_box(query[BOX_KEY], where=f"{source}: query {n}, {BOX_KEY}") for n, query in enumerate(gnd)]
        boxes = np.stack(rows)
    return GroundTruth(queries=queries, imlist=imlist, qimlist=qimlist, boxes=boxes)


def save_ground_truth(path: Path | str, ground_truth: GroundTruth) -> Path:
    """Write ``ground_truth`` as JSON, whole or not at all, and return the path.

    AmesError if the name does not end in ``.json``, the content fails a check of ``parse_ground_truth``, or
    the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".json":
        raise AmesError(f"{path}: ground truth is saved as JSON: give a name that ends in .json")
    gnd: list[dict[str, Any]] = [
        {key: np.asarray(value).tolist() for key, value in query.items()} for query in ground_truth.queries
    ]
    if ground_truth.boxes is not None:
        if len(ground_truth.boxes) != len(gnd):
            raise AmesError(f"{path}: {len(ground_truth.boxes)} boxes for {len(gnd)} queries")
        for query, box in zip(gnd, ground_truth.boxes, strict=True):
            query[BOX_KEY] = np.asarray(box).tolist()
    raw: dict[str, Any] = {"qimlist": list(ground_truth.qimlist), "gnd": gnd}
    if ground_truth.imlist:  # else the size of the gallery is not known
        raw = {"imlist": list(ground_truth.imlist)} | raw
    parse_ground_truth(raw, source=str(path))
    with atomic_file(path) as file:
        file.write(json.dumps(raw, separators=(",", ":"), ensure_ascii=False).encode())
    return path


def _names(value: Any, key: str, *, source: str) -> list[str]:
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    if not listed or not all(isinstance(name, str) for name in value):
        raise AmesError(f"{source}: {key} must be a list of image names")
    return [str(name) for name in value]


def _indices(value: Any, num_images: int | None, *, where: str) -> np.ndarray:
    """``value`` as int64 [n], each in [0, num_images) (None: not known)."""
    try:
        array = np.asarray(value)
    except ValueError:  # lists of unequal lengths
        array = np.empty((0, 0))
    if array.ndim == 1 and array.size == 0:
        return np.empty(0, dtype=np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise AmesError(f"{where}: must be a flat list of positions in imlist")
    fractional = array[array != np.floor(array)]
    if len(fractional):
        raise AmesError(f"{where}: {fractional[0]} is not a whole number, so no position in imlist")
    outside = array[(array < 0) | (array >= (np.inf if num_images is None else num_images))]
    if len(outside) and num_images is None:
        raise AmesError(f"{where}: {outside[0]:g} is below 0, so no position in the gallery")
    if len(outside):
        raise AmesError(f"{where}: {outside[0]:g} is outside of imlist, which has {num_images} names")
    return array.astype(np.int64)


def _box(value: Any, *, where: str) -> np.ndarray:
    """``value`` as float64 [4]: x1 < x2, y1 < y2, finite."""
    try:
        box = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        box = np.empty(0)
    if box.shape != (4,) or not np.isfinite(box).all() or box[0] >= box[2] or box[1] >= box[3]:
        raise AmesError(f"{where}: must be a box [x1, y1, x2, y2] with x1 < x2 and y1 < y2")
    return box


def check_names(found: Sequence[str], wanted: Sequence[str], *, source: str, truth: str) -> None:
    """AmesError if ``found``, the images of ``source``, differ from a ground truth's in content or order.

    Folders and suffixes may be missing on one side; a ground truth without names passes.
    """
    if list(wanted) == [str(i) for i in range(len(wanted))]:
        return
    for row, (one, other) in enumerate(zip(found, wanted, strict=True)):
        a, b = _parts(one), _parts(other)
        shared = min(len(a), len(b))
        if a[-shared:] != b[-shared:]:
            raise AmesError(
                f"{source}: image {row} is {one!r}, but {other!r} in {truth}: both must have the same "
                "images in the same order"
            )


def _parts(name: str) -> tuple[str, ...]:
    path = PurePath(name)
    return (path.with_suffix("") if path.suffix.lower() in SUFFIXES else path).parts
