"""Open HDF5 files for reading; every damage is an error of one line.

h5py raises any of half a dozen exceptions, when a file is opened, looked into, or read much later.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import h5py

from ames.errors import AmesError, first_line

LARGEST = 2**30  # bytes of one image's row: more is a damaged size, and would be allocated
_DEPTH = 8  # merged files of merged files
_NAMED = 5  # of what a file holds, in a message


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn what HDF5 raises in the block into an AmesError that names the file."""
    try:
        yield
    except AmesError:
        raise
    except MemoryError as error:
        raise AmesError(f"{path}: damaged, or too large for the memory ({first_line(error)})") from error
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise AmesError(f"{path}: not a readable HDF5 file ({first_line(error)})") from error


@contextmanager
def open_hdf5(path: Path | str) -> Iterator[h5py.File]:
    """The file, for reading; the block holds calls of h5py and little else (see ``reading``)."""
    if not Path(path).is_file():
        raise AmesError(f"{path}: no such file; extract descriptors first (ames extract)")
    with reading(path), h5py.File(path, "r") as file:
        yield file


def find_features(file: h5py.File) -> h5py.Dataset:
    """The dataset ``features``, whole: AmesError where it or a part of it is missing."""
    path = Path(file.filename)
    features = file.get("features")
    if not isinstance(features, h5py.Dataset):
        link = file.get("features", getlink=True) if "features" in list(file) else None
        if isinstance(link, h5py.ExternalLink):
            raise AmesError(
                f"{path}: 'features' is a link to {link.path} in {link.filename}, which cannot be opened; "
                "put that file beside this one"
            )
        if isinstance(link, h5py.SoftLink):
            raise AmesError(f"{path}: 'features' is a link to {link.path}, which is not in the file")
        if link is not None:
            raise AmesError(f"{path}: no dataset 'features': that name is of something else, or damaged")
        raise AmesError(f"{path}: no dataset 'features' (it holds {_first(file)})")
    _check_written(features, path)
    return features


def _first(file: h5py.File) -> str:
    """A few names of a file, which may have a million."""
    names = list(islice(file, _NAMED))
    return ", ".join(names + ["..."] * (len(file) > _NAMED)) or "nothing"


class Place(NamedTuple):
    """The place of a dataset's bytes: one run from ``offset``."""

    path: Path
    offset: int


def find_place(features: h5py.Dataset) -> Place | None:
    """Return where the dataset can be mapped, in this file or one that a link leads to.

    None if HDF5 must read it: chunked, virtual, in raw files, or in another number format than numpy's.
    """
    offset = features.id.get_offset()
    as_numpy = features.id.get_type().equal(h5py.h5t.py_create(features.dtype, logical=True))
    if offset is None or features.external or not as_numpy:
        return None
    place = Path(features.file.filename)
    if offset + features.nbytes > place.stat().st_size:
        raise AmesError(f"{place}: cut off: 'features' goes beyond the end of the file; extract it again")
    return Place(place, offset)


# ---- whether a dataset is complete --------------------------------------------------------------------


def _check_written(features: h5py.Dataset, path: Path, depth: int = 0) -> None:
    """AmesError where HDF5 would read zeros: of a part that is missing, or was never written."""
    rows = features.shape[0] if features.shape else 0
    if not rows or not features.size:
        return
    if math.prod(features.shape[1:]) * features.dtype.itemsize > LARGEST:
        raise AmesError(f"{path}: 'features' is {features.dtype} {features.shape}: no image has so much")
    if features.is_virtual:
        _check_sources(features, depth)
        return
    if features.chunks is None:
        if not features.id.get_storage_size():
            raise AmesError(f"{path}: 'features' was never written; extract it again")
        _check_external(features, path)
        return
    needed = math.prod(-(-n // step) for n, step in zip(features.shape, features.chunks, strict=True))
    found = features.id.get_num_chunks()
    if found < needed:
        raise AmesError(f"{path}: {needed - found} of {needed} chunks of 'features' were never written")


def _check_external(features: h5py.Dataset, path: Path) -> None:
    """Raw files must hold what is taken from them: HDF5 reads zeros after their end."""
    for name, offset, size in features.external or ():
        if size == h5py.h5f.UNLIMITED:
            size = features.nbytes
        if Path(name).is_file() and Path(name).stat().st_size < offset + size:
            raise AmesError(f"{path}: 'features' is in {name}, which is too short for it")


def _check_sources(features: h5py.Dataset, depth: int) -> None:
    path = Path(features.file.filename)
    if depth > _DEPTH:
        raise AmesError(f"{path}: merged from itself, or from too many files of files")
    for source in features.virtual_sources():
        if "%b" in source.file_name:  # a numbered series
            continue
        if source.file_name == ".":
            _check_source(path, source, path, depth)
            continue
        found = next((p for p in _candidates(source.file_name, path) if p.is_file()), None)
        if found is None:
            name = source.file_name
            raise AmesError(f"{path}: merged from {name}, which does not exist; put it beside this file")
        _check_source(found, source, path, depth)


def _check_source(found: Path, source: Any, path: Path, depth: int) -> None:
    """The part must hold all that the file takes from it."""
    try:
        with h5py.File(found, "r") as file:
            part = file.get(source.dset_name)
            shape = part.shape if isinstance(part, h5py.Dataset) else None
            if shape is not None:
                _check_written(part, found, depth + 1)
    except AmesError:
        raise
    except (OSError, RuntimeError, LookupError) as error:
        raise AmesError(f"{path}: merged from {found}, which is not a readable HDF5 file") from error
    if shape is None:
        raise AmesError(f"{path}: merged from {found}, which has no dataset {source.dset_name!r}")
    if source.src_space.shape:
        whole = len(source.src_space.shape) == len(shape) and all(
            last < n for last, n in zip(source.src_space.get_select_bounds()[1], shape, strict=True)
        )
    else:  # all of the part, whatever its shape
        whole = source.vspace.get_select_npoints() == math.prod(shape)
    if not whole:
        raise AmesError(f"{path}: merged from {found}, which is now of shape {shape}: merge the parts again")


def _candidates(name: str, path: Path) -> list[Path]:
    """Return the paths where HDF5 looks for a part: at an absolute name, beside the merged file, in the
    working folder. Of an absolute name that leads nowhere it keeps the last part.
    """
    given = Path(name)
    tail = given.name if given.is_absolute() else name
    first = [given] if given.is_absolute() else []
    return [*first, path.parent / tail, Path(tail), path.resolve().parent / tail]
