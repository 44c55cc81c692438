"""Feature files of hloc (Sarlin et al., CVPR 2019): HDF5, a group per image, whose name is the image's path.

Local: ``keypoints`` [N, 2] (x, y) in pixels of the original image, the middle of the first pixel at (0, 0);
``descriptors`` [D, N]; ``scores`` [N]; ``image_size`` (width, height), also as an attribute of the group.
Global: ``global_descriptor`` [G].
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ames.errors import AmesError
from ames.io.hdf5 import LARGEST, open_hdf5

LOCAL, GLOBAL = "descriptors", "global_descriptor"


@dataclass(frozen=True)
class Shape:
    """What an image of an hloc file has: N descriptors of D dimensions (D 0: no local ones), width of the
    global descriptor (0: none), and whether there are scores and the image's size.
    """

    count: int
    width: int
    vector: int
    scored: bool
    sized: bool


@dataclass(frozen=True)
class Features:
    """descriptors float [N, D], keypoints float64 [N, 2] (x, y), scores float32 [N] or None; size (width,
    height) or None; vector float32 [G] or None.
    """

    descriptors: np.ndarray | None
    keypoints: np.ndarray | None
    scores: np.ndarray | None
    size: tuple[int, int] | None
    vector: np.ndarray | None


def is_hloc(path: Path) -> bool:
    """Return whether an HDF5 file is one of hloc's: without ``features``, and with features of an image."""
    with open_hdf5(path) as file:
        if "features" in file:
            return False
        return file.visit(lambda name: _image_of(file, name) is not None or None) is not None


def image_names(path: Path) -> list[str]:
    """Return the names of all images, sorted. AmesError where there is none."""
    names: set[str] = set()

    def note(name: str) -> None:
        found = _image_of(file, name)
        if found is not None:
            names.add(found)

    with open_hdf5(path) as file:
        file.visit(note)
    if not names:
        raise AmesError(f"{path}: no group with descriptors or global_descriptor: not a feature file of hloc")
    return sorted(names)


def read_shape(file: h5py.File, name: str) -> Shape:
    """Return what an image has, without reading it; AmesError names the image and what is wrong with it."""
    group = file[name]
    counts = {}
    for key in ("keypoints", LOCAL, "scores", "image_size", GLOBAL):
        found = group.get(key)
        if found is not None:
            counts[key] = _checked(found, file.filename, name, key)
    if LOCAL not in counts and GLOBAL not in counts:
        raise AmesError(f"{file.filename}: {name}: neither descriptors nor a global_descriptor in its group")
    width, count = counts.get(LOCAL, (0, 0))
    if LOCAL in counts:
        if "keypoints" not in counts:
            raise AmesError(f"{file.filename}: {name}: descriptors without keypoints")
        _check_counts(file.filename, name, count, counts)
    vector = counts[GLOBAL][0] if GLOBAL in counts else 0
    sized = "image_size" in counts or _size_attribute(group) is not None
    return Shape(count, width, vector, "scores" in counts, sized)


def read_image(file: h5py.File, name: str) -> Features:
    """Return the features of an image; AmesError for NaN and infinity, and for a size of no pixels."""
    group, where = file[name], f"{file.filename}: {name}"
    found: dict[str, Any] = {}
    for key in ("keypoints", LOCAL, "scores", GLOBAL):
        if key in group:
            found[key] = np.asarray(group[key][()])
            if not np.isfinite(found[key]).all():
                raise AmesError(f"{where}: {key} hold NaN or infinity")
    size = group["image_size"][()] if "image_size" in group else _size_attribute(group)
    if size is not None and not (np.isfinite(size).all() and min(size) >= 1):
        raise AmesError(f"{where}: its image_size is {size[0]} x {size[1]}")
    return Features(
        descriptors=found[LOCAL].T if LOCAL in found else None,
        keypoints=found["keypoints"].astype(np.float64) if "keypoints" in found else None,
        scores=found["scores"].astype(np.float32) if "scores" in found else None,
        size=None if size is None else (int(size[0]), int(size[1])),
        vector=found[GLOBAL].astype(np.float32) if GLOBAL in found else None,
    )


def _size_attribute(group: h5py.Group) -> np.ndarray | None:
    if "image_size" not in group.attrs:
        return None
    found = group.attrs.get_id("image_size")
    return group.attrs["image_size"] if found.dtype.kind in "iuf" and found.shape == (2,) else None


_AXES = {"keypoints": 2, LOCAL: 2, "scores": 1, "image_size": 1, GLOBAL: 1}


def _checked(found: Any, path: str, name: str, key: str) -> tuple[int, ...]:
    """The shape of a dataset of numbers that can be read whole."""
    kinds = "iuf" if key in ("image_size", "keypoints") else "f"
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in kinds or found.ndim != _AXES[key]:
        what = f"{found.dtype} {found.shape}" if isinstance(found, h5py.Dataset) else "no dataset"
        raise AmesError(f"{path}: {name}: {key} is {what}: expected {_AXES[key]} axes of numbers")
    if found.nbytes > LARGEST:
        raise AmesError(f"{path}: {name}: {key} is {found.shape}: no image has so much")
    if found.size and found.chunks is None and not found.id.get_storage_size():
        raise AmesError(f"{path}: {name}: {key} was never written; extract the image again")
    return tuple(found.shape)


def _check_counts(path: str, name: str, count: int, shapes: dict[str, tuple[int, ...]]) -> None:
    wanted = {"keypoints": (count, 2), "scores": (count,), "image_size": (2,)}
    for key, shape in wanted.items():
        if shapes.get(key, shape) != shape:
            raise AmesError(
                f"{path}: {name}: descriptors are {shapes[LOCAL]}, [D, N], and {key} {shapes[key]}: "
                f"expected {shape}"
            )


def _image_of(file: h5py.File, name: str) -> str | None:
    """The image whose features the object is, or None."""
    image, _, key = name.rpartition("/")
    if not image or key not in (LOCAL, GLOBAL, "keypoints") or file.get(name, getclass=True) is h5py.Group:
        return None
    return image
