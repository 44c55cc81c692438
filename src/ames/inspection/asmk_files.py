"""Pickles of the asmk package (Tolias et al.) become plain files; nothing in them is executed.

Features: ``{vecs, imids[, qvecs, qimids]}``, vectors [n, D] and the image of each, a whole number; vectors of
one image lie together. For training: ``{vecs}``. A codebook: ``{type, params, state}``, with ``centroids``
[W, D] in the state.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ames.descriptors.encoding import LocalRows
from ames.descriptors.plan import OutputPlan
from ames.descriptors.provenance import Provenance
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.inspection.conversion import Options, write_rows
from ames.local_search.codebook import Codebook

_log = logging.getLogger(__name__)
_UNKNOWN = 1000  # vectors in a row where nothing says of which image they are
_SPARSE = 2  # ids up to so many times the number of images: more are no numbers of images


@dataclass(frozen=True)
class Vectors:
    """Vectors float [n, D] of images: those of image i are ``starts[i]`` to ``starts[i + 1]``."""

    values: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1


def is_asmk(content: Mapping[Any, Any]) -> bool:
    """Return whether the content of a pickle is of the asmk package."""
    return "vecs" in content or "qvecs" in content or set(content) == {"type", "params", "state"}


def is_codebook(content: Mapping[Any, Any]) -> bool:
    return "state" in content


def read_features(content: Mapping[str, Any], source: Path) -> dict[str, Vectors]:
    """Return vectors by split: "gallery" and "query", or "" for training vectors, whose images are not known
    and which are in rows of 1,000.

    AmesError for other shapes, NaN, and ids that are no numbers of images, or whose vectors lie apart.
    """
    found = {}
    for split, vectors, ids in (("gallery", "vecs", "imids"), ("query", "qvecs", "qimids")):
        if vectors not in content:
            continue
        values = _array(content[vectors], f"{source}: {vectors}", "f", 2)
        if not np.isfinite(values).all():
            raise AmesError(f"{source}: {vectors} hold NaN or infinity")
        if ids in content:
            found[split] = Vectors(values, _starts(content[ids], len(values), f"{source}: {ids}"))
        elif split == "gallery" and "qvecs" not in content:
            starts = np.append(np.arange(0, len(values), _UNKNOWN), len(values))
            found[""] = Vectors(values, starts)
        else:
            raise AmesError(f"{source}: {vectors} without {ids}: nothing says of which image they are")
    widths = {x.values.shape[1] for x in found.values()}
    if len(widths) > 1:
        raise AmesError(f"{source}: vectors are {' and '.join(map(str, sorted(widths)))}-d, of one network")
    return found


def read_codebook(content: Mapping[str, Any], source: Path) -> np.ndarray:
    """Return the centroids float32 [W, D] of a codebook; AmesError for an inverted file and for others."""
    kind = str(content["type"])
    if kind == "IVF":
        raise AmesError(f"{source}: an inverted file of the asmk package: convert the features instead")
    state = content["state"]
    if kind != "Codebook" or not isinstance(state, dict) or state.get("centroids") is None:
        raise AmesError(f"{source}: not a trained codebook of the asmk package (type {kind[:40]!r})")
    centroids = _array(state["centroids"], f"{source}: centroids", "f", 2)
    if not np.isfinite(centroids).all():
        raise AmesError(f"{source}: centroids hold NaN or infinity")
    return centroids.astype(np.float32)


def save_codebook(target: Path, centroids: np.ndarray, source: Path) -> None:
    """Write ``centroids`` float32 [W, D] as a ``Codebook`` does."""
    meta = {"words": len(centroids), "dim": centroids.shape[1], "converted_from": f"asmk, {source.name}"}
    Codebook(centroids, meta).save(target)


def convert_features(
    content: Mapping[str, Any], path: Path, out: Path | None, how: Options
) -> tuple[Path, str]:
    """Write OUT_gallery_local.hdf5 and OUT_query_local.hdf5, or OUT_local.hdf5 of training vectors; return
    the first, and what was written. Row i is image i; positions, scales and weights are recorded as missing.
    """
    how.check(path, "features of the asmk package", ("desc_num", "dtype", "overwrite"))
    stem = path.with_suffix("") if out is None else out
    made = []
    for split, vectors in read_features(content, path).items():
        target = stem.with_name(f"{stem.name}_{split}") if split else stem
        made.append(_write(vectors, target, path, how))
        if not split:
            _log.warning("%s: says of no image: %d vectors become one row", path, _UNKNOWN)
    (first, what), *others = made
    return first, "; ".join([what, *(f"{place}: {text}" for place, text in others)])


def _write(vectors: Vectors, target: Path, path: Path, how: Options) -> tuple[Path, str]:
    counts = np.diff(vectors.starts)
    most = int(counts.max(initial=1))
    if how.desc_num and how.desc_num < most:
        _log.warning("%s: no weights: the first %d vectors of an image are kept", path, how.desc_num)
    rows = LocalRows(min(how.desc_num or most, most), vectors.values.shape[1], how.dtype or "float16")
    more = {"converted_from": "asmk", "source": path.name, "source_bytes": path.stat().st_size}
    plan = OutputPlan(
        out=target,
        rows={"local": rows},
        names=[f"image {i}" for i in range(len(vectors))],
        named=False,
        provenance=Provenance(descriptors=rows.slots, more=more),
        missing=frozenset({"positions", "scale", "weight"}),
    )

    def images(row: int) -> Iterator[dict[str, Any]]:
        for i in range(row, len(vectors)):
            values = vectors.values[vectors.starts[i] : vectors.starts[i + 1]]
            yield {"local": LocalFeatures.from_descriptors(torch.from_numpy(values.astype(np.float32)))}

    return write_rows(plan, images, source=path, overwrite=how.overwrite)


def _array(found: Any, where: str, kind: str, axes: int) -> np.ndarray:
    if isinstance(found, torch.Tensor):
        found = found.numpy()
    if not isinstance(found, np.ndarray) or found.dtype.kind not in kind or found.ndim != axes:
        is_array = isinstance(found, np.ndarray)
        what = f"{found.dtype} {found.shape}" if is_array else f"a {type(found).__name__}"
        raise AmesError(f"{where} is {what}: expected {axes} {'axis' if axes == 1 else 'axes'} of numbers")
    if not found.size:
        raise AmesError(f"{where} is empty")
    return found


def _starts(found: Any, count: int, where: str) -> np.ndarray:
    """Where the vectors of each image begin, int64 [images + 1]; an id without vectors is an empty image."""
    ids = _array(found, where, "iu", 1).astype(np.int64)
    if len(ids) != count:
        raise AmesError(f"{where}: {len(ids)} numbers of {count} vectors")
    steps = np.diff(ids)
    if ids.min() < 0 or (steps < 0).any():
        raise AmesError(f"{where}: the images of vectors must be numbers from 0 in rising order")
    images = 1 + int((steps > 0).sum())
    if int(ids[-1]) + 1 > _SPARSE * images:
        raise AmesError(f"{where}: numbers up to {ids[-1]} of {images} images: most rows would be empty")
    return np.searchsorted(ids, np.arange(int(ids[-1]) + 2))
