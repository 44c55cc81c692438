"""Feature files of hloc become the library's: OUT_local.hdf5, OUT_global.hdf5."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ames.datasets.lists import list_digest, read_list
from ames.descriptors.encoding import LocalRows, VectorRows
from ames.descriptors.plan import OutputPlan
from ames.descriptors.provenance import Provenance
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.inspection.conversion import Options, write_rows
from ames.inspection.hloc import Features, Shape, image_names, read_image, read_shape
from ames.io.hdf5 import open_hdf5

_log = logging.getLogger(__name__)
_NAMED = 3  # images that a message names


def from_hloc(path: Path, out: Path | None, how: Options) -> tuple[Path, str]:
    """Convert a feature file of hloc to OUT_local.hdf5 and OUT_global.hdf5 (out None: its name without .h5),
    whichever it has; return the first file, and what it is.

    Rows are in the order of ``how.listed``, else of the sorted names. Descriptors are sorted by falling score
    and cut to ``how.desc_num``. Locations are (row, col) as shares of the image where the file has sizes,
    else in pixels, the middle of the first one at (0.5, 0.5). AmesError, and nothing is written, where images
    of the list are missing, where an image lacks what others have, or has NaN.
    """
    how.check(path, "feature files of hloc", ("listed", "desc_num", "dtype", "coordinates", "overwrite"))
    names = _names(path, how.listed)
    first, most = _survey(path, names)
    slots = max(most, 1)
    pixels = _in_pixels(path, first, how)
    rows: dict[str, Any] = {}
    if first.width:
        rows["local"] = LocalRows(min(how.desc_num or slots, slots), first.width, how.dtype or "float16")
    if first.vector:
        rows["global"] = VectorRows(first.vector)
    local = bool(first.width)
    made = Provenance(
        descriptors=rows["local"].slots if local else None,
        locations=("pixels" if pixels else "normalized") if local else None,
        list=list_digest(names),
        more={"converted_from": "hloc", "source": path.name, "source_bytes": path.stat().st_size},
    )
    missing = frozenset({"scale"} if first.scored else {"scale", "weight"}) if local else frozenset()
    stem = path.with_suffix("") if out is None else out
    plan = OutputPlan(out=stem, rows=rows, names=names, provenance=made, missing=missing)

    def images(row: int) -> Iterator[dict[str, Any]]:
        with open_hdf5(path) as file:
            for name in names[row:]:
                found = read_image(file, name)
                yield {"local": _local(found, pixels), "global": found.vector}

    return write_rows(plan, images, source=path, overwrite=how.overwrite)


def _names(path: Path, listed: Path | None) -> list[str]:
    """Names in the order of the list, or sorted; a line says how many a list leaves out."""
    there = image_names(path)
    if listed is None:
        return there
    names, known = [item.path for item in read_list(listed)], set(there)
    lacking = [name for name in names if name not in known]
    if lacking:
        shown = ", ".join(lacking[:_NAMED])
        raise AmesError(f"{path}: lacks {len(lacking)} of {len(names)} images of {listed} (first: {shown})")
    others = len(known.difference(names))
    if others:
        _log.warning("%s: %d images are not in %s and are left out", path, others, listed)
    return names


def _survey(path: Path, names: Sequence[str]) -> tuple[Shape, int]:
    """What all images have, and the most descriptors of one; AmesError names the first that differs."""
    most, first = 0, None
    with open_hdf5(path) as file:
        for name in names:
            found = read_shape(file, name)
            first = first or found
            most = max(most, found.count)
            for key, what in (
                ("width", "dimensions of descriptors"),
                ("vector", "dimensions of the global descriptor"),
                ("scored", "scores"),
                ("sized", "image_size"),
            ):
                here, there = getattr(found, key), getattr(first, key)
                if here != there:
                    others = f"{names[0]} has {_said(there)}{what}"
                    raise AmesError(f"{path}: images differ: {name} has {_said(here)}{what}, {others}")
    assert first is not None, "a list and a file have an image"
    return first, most


def _said(value: int) -> str:
    return ("" if value else "no ") if isinstance(value, bool) else f"{value} "


def _in_pixels(path: Path, first: Shape, how: Options) -> bool:
    """Whether locations stay in pixels; a line says what a file without sizes or scores means."""
    if not first.width:
        return False
    if not first.scored:
        _log.warning("%s: no scores: descriptors stay in their order, without weights", path)
    if how.coordinates == "normalized" and not first.sized:
        raise AmesError(f"{path}: no image_size: locations stay in pixels (--coordinates pixels)")
    pixels = how.coordinates == "pixels" or not first.sized
    if not first.sized:
        _log.warning("%s: no image_size: locations are (row, col) in pixels", path)
    if pixels and (how.dtype or "float16") == "float16":
        _log.warning(
            "%s: float16 rounds pixels beyond 2,048 to whole ones and more: --dtype float32 keeps them", path
        )
    return pixels


def _local(found: Features, pixels: bool) -> LocalFeatures | None:
    """Descriptors by falling score, with (row, col) as the library counts them."""
    if found.descriptors is None or found.keypoints is None:
        return None
    count = len(found.descriptors)
    order = np.arange(count) if found.scores is None else np.argsort(-found.scores, kind="stable")
    places = found.keypoints[order, ::-1] + 0.5
    if not pixels:
        assert found.size is not None, "the survey has seen it"
        places = places / np.array(found.size[::-1])
    return LocalFeatures.from_descriptors(
        torch.from_numpy(np.ascontiguousarray(found.descriptors[order].astype(np.float32))),
        positions=torch.from_numpy(places.astype(np.float32)),
        weight=None if found.scores is None else torch.from_numpy(found.scores[order]),
    )
