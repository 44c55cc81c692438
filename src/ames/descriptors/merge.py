"""Merge parts of a descriptor file into one virtual HDF5 file without copying."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from ames.datasets.lists import list_digest
from ames.descriptors.metadata import describe, read_description, read_missing, write_missing
from ames.descriptors.provenance import Provenance
from ames.errors import AmesError
from ames.io.atomic import atomic_path
from ames.io.hdf5 import find_features, open_hdf5
from ames.io.text import counted

_BLOCK = 1 << 26  # bytes copied at a time


class _Part(NamedTuple):
    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    names: list[str] | None
    provenance: Provenance
    missing: frozenset[str]


def find_parts(target: Path, *, expected: int | None = None) -> list[Path]:
    """The parts of ``target`` in order: for x_local.hdf5, files x_local_<i>.hdf5 or x_<i>_local.hdf5.

    Empty if there is none. AmesError if a number (from 0 or 1) is missing or double, a part is still being
    extracted, or there are not ``expected`` of them.
    """
    stem, kind = target.stem.rsplit("_", 1)
    pattern = re.compile(rf"{re.escape(stem)}(?:_{kind}_(\d+)|_(\d+)_{kind}){re.escape(target.suffix)}")
    found: dict[int, Path] = {}
    for path in sorted(target.parent.iterdir()):
        if path.suffix == ".partial" and pattern.fullmatch(path.stem):
            raise AmesError(f"{path}: a part that is not whole; resume its extraction, or remove it")
        match = pattern.fullmatch(path.name)
        if match is None:
            continue
        number = int(match[1] or match[2])
        if number in found:
            raise AmesError(f"{path}: the same part as {found[number].name}; remove one of them")
        found[number] = path
    if not found:
        return []
    first = min(found)
    missing = sorted(set(range(min(first, 1), max(found) + 1)) - set(found))
    if missing:
        raise AmesError(f"{target}: part {missing[0]} is missing, the last one is {found[max(found)].name}")
    if expected is not None and len(found) != expected:
        raise AmesError(f"{target}: {len(found)} parts are there, not {expected}")
    return [found[number] for number in sorted(found)]


def merge_parts(target: Path, parts: Sequence[Path], *, copy: bool = False) -> int:
    """Write ``target``, a virtual file of ``parts`` beside it; return the number of images.

    copy: write a copy that does not need the parts; an existing file stays if it is such a copy. AmesError if
    ``target`` exists and is no merged file, if layouts differ, or if the parts are not their whole list.
    """
    own = target.exists() and not is_merged(target)
    if own and not copy:
        raise AmesError(f"{target}: is there already and holds descriptors itself; move it away to merge")
    read = [_inspect(path) for path in parts]
    for part in read[1:]:
        if part.shape[1:] != read[0].shape[1:] or part.dtype != read[0].dtype:
            raise AmesError(
                f"{part.path}: {part.dtype} {list(part.shape[1:])} per image, but {read[0].path.name} has "
                f"{read[0].dtype} {list(read[0].shape[1:])}"
            )
    if not copy and any("%b" in part.path.name for part in read):
        raise AmesError(f"{target}: HDF5 takes %b in a part's name for a number; rename them, or copy")
    images = sum(part.shape[0] for part in read)
    names = [name for part in read for name in part.names or []]
    about = _common(read)
    if about.list and not about.boxes and list_digest(names) != about.list:
        hold = counted(len(read), "part holds", "parts hold")
        raise AmesError(
            f"{target}: its {hold} {images} images, which are not those of their list: one "
            "is missing, or left from an extraction in another number of parts"
        )
    if own:
        _check_copy(target, read, names)
        return images
    version = None if copy else "latest"
    with atomic_path(target) as temporary, h5py.File(temporary, "w", libver=version) as file:
        shape = (images, *read[0].shape[1:])
        if copy:
            features = file.create_dataset("features", shape, read[0].dtype)
            for start, block in _blocks(read):
                features[start : start + len(block)] = block
        else:
            file.create_virtual_dataset("features", _virtual(read, shape))
        describe(file, names if len(names) == images else None, about.to_dict())
        write_missing(file, frozenset[str]().union(*(part.missing for part in read)))
    return images


def _virtual(parts: Sequence[_Part], shape: tuple[int, ...]) -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout(shape, parts[0].dtype)
    start = 0
    for part in parts:
        # Without a folder: HDF5 looks beside the merged file.
        source = h5py.VirtualSource(part.path.name, "features", part.shape, part.dtype)
        layout[start : start + part.shape[0]] = source
        start += part.shape[0]
    return layout


def _blocks(parts: Sequence[_Part]) -> Iterator[tuple[int, np.ndarray]]:
    """(row of the merged file, rows from there on), piece by piece."""
    row = parts[0].dtype.itemsize * math.prod(parts[0].shape[1:])
    step, start = max(1, _BLOCK // max(row, 1)), 0
    for part in parts:
        with open_hdf5(part.path) as source:
            for first in range(0, part.shape[0], step):
                block = source["features"][first : first + step]
                yield start, block
                start += len(block)


def _check_copy(target: Path, parts: Sequence[_Part], names: list[str]) -> None:
    """AmesError where an existing file does not hold the parts' rows and names."""
    found, images = _inspect(target), sum(part.shape[0] for part in parts)
    same = found.shape == (images, *parts[0].shape[1:]) and found.dtype == parts[0].dtype
    with open_hdf5(target) as file:
        features = file["features"]
        # As bytes: NaN in padding is equal to itself.
        if not (same and (found.names or []) == names) or any(
            features[start : start + len(block)].tobytes() != block.tobytes()
            for start, block in _blocks(parts)
        ):
            raise AmesError(
                f"{target}: is there already and holds something else than its parts; move it away"
            )


def _inspect(path: Path) -> _Part:
    with open_hdf5(path) as file:
        features = find_features(file)
        names, provenance = read_description(file, features)
        about = Provenance.from_dict(provenance)
        return _Part(path, features.shape, features.dtype, names, about, read_missing(file))


def _common(parts: Sequence[_Part]) -> Provenance:
    """The parts' provenance, without ``list`` if they were extracted as lists of their own.

    It is empty if they differ in anything else.
    """
    made = [part.provenance for part in parts]
    if any(replace(one, list=None).difference(replace(made[0], list=None)) for one in made):
        return Provenance()
    return made[0] if len({one.list for one in made}) == 1 else replace(made[0], list=None)


def is_merged(path: Path) -> bool:
    """Return whether it is a virtual file, whose rows are in other files."""
    try:
        with open_hdf5(path) as file:
            features = file.get("features")
            return isinstance(features, h5py.Dataset) and bool(features.is_virtual)
    except AmesError:
        return False
