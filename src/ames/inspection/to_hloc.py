"""The library's descriptor files become feature files of hloc."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

from ames.datasets.images import UnreadableImage, read_image
from ames.datasets.lists import read_list, read_sizes
from ames.descriptors.local import DescriptorFile, GlobalFile
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.inspection.conversion import BLOCK, Options
from ames.inspection.hloc import GLOBAL
from ames.io.atomic import atomic_path
from ames.io.hdf5 import find_features, open_hdf5, reading
from ames.io.progress import progress

_log = logging.getLogger(__name__)
_RECORD = "converted"  # attribute of the file, which hloc does not read
_SAMPLE, _SHARE = 100, 1.01  # images that show what locations are; no share of a side is larger

Size = tuple[int, int]  # (width, height)


def to_hloc(path: Path, out: Path | None, how: Options) -> tuple[Path, str]:
    """Convert local or global descriptors to a feature file of hloc (out None: the name with .h5); return its
    path, and what it is.

    Keypoints are in pixels of the upright images, whose sizes are those of ``how.listed``
    (path,label,width,height), else of the images below ``how.images``, which are decoded for it. An image
    without descriptors that cannot be read has no group. The list also gives the names where the file has
    none. AmesError, and nothing is written, where names, sizes or locations are missing, or a value is NaN.
    """
    how.check(path, "a descriptor file", ("listed", "images", "desc_num", "overwrite"))
    with open_hdf5(path) as file:
        features = find_features(file)
        flat = features.ndim == 2 and not features.dtype.names
    target = path.with_suffix(".h5") if out is None else out
    if target.suffix not in (".h5", ".hdf5") or target == path:
        raise AmesError(f"{target}: {path.name} becomes another .h5 file: give its name with -o")
    source: DescriptorFile | GlobalFile = GlobalFile(path) if flat else DescriptorFile(path)
    names = _names(source, how.listed)
    record = json.dumps({"source": path.name, "source_bytes": path.stat().st_size, "desc_num": how.desc_num})
    what = f"{len(names):,} images of {path.name} for hloc"
    if target.exists() and not how.overwrite:
        _check_same(target, record)
        return target, f"{what}; exists already"
    left_out = 0
    with atomic_path(target) as temporary, h5py.File(temporary, "w") as file:
        file.attrs[_RECORD] = record
        if isinstance(source, GlobalFile):
            _write_globals(file, source, names)
        else:
            left_out = _write_local(file, source, names, _sizes(how), how.desc_num)
    return target, what + (f"; {left_out} that cannot be read are left out" if left_out else "")


def _names(source: DescriptorFile | GlobalFile, listed: Path | None) -> list[str]:
    names = source.names
    if names is None:
        if listed is None:
            raise AmesError(f"{source.path}: holds no names of images: give their list with --list")
        names = [item.path for item in read_list(listed)]
        if len(names) != len(source):
            raise AmesError(f"{listed}: {len(names)} images, but {len(source)} in {source.path}")
    wrong = next(
        (name for name in names if not all(part not in ("", ".", "..") for part in _parts(name))), None
    )
    if wrong is not None:
        raise AmesError(f"{source.path}: {wrong!r} cannot be the name of a group in HDF5: rename the image")
    return names


def _parts(name: str) -> list[str]:
    return name.removeprefix("/").split("/")


def _check_same(target: Path, record: str) -> None:
    with open_hdf5(target) as file:
        found = file.attrs.get(_RECORD)
    if found != record:
        raise AmesError(f"{target}: exists, and was made from something else; --overwrite replaces it")


def _sizes(how: Options) -> Callable[[str], Size]:
    """Return a function that gives an image's size by its name, or raises UnreadableImage."""
    known = read_sizes(how.listed) if how.listed is not None else {}

    def size(name: str) -> Size:
        if name in known:
            return known[name]
        if how.images is None:
            raise AmesError(
                f"{name}: its size is not known, and hloc's keypoints are in pixels: give --list with "
                "path,label,width,height, or --images FOLDER"
            )
        height, width = read_image(how.images / name).shape[:2]
        return width, height

    return size


def _write_local(
    file: h5py.File, source: DescriptorFile, names: list[str], size: Callable[[str], Size], count: int | None
) -> int:
    """Write a group for each image; return the number of those without."""
    if source.packed:
        raise AmesError(f"{source.path}: holds a binary model's codes; hloc's descriptors are numbers")
    left_out, pixels = 0, _in_pixels(source)
    with progress("convert", len(names), "images") as tick:
        for name, local in _images(source, names, count):
            tick(1)
            try:
                shape = size(name)
            except UnreadableImage as error:
                if len(local.descriptors):
                    raise AmesError(f"{name}: its size cannot be read ({error})") from error
                left_out += 1
                continue
            with reading(source.path):
                _write_image(file, name, local, shape, pixels)
    return left_out


def _images(
    source: DescriptorFile, names: list[str], count: int | None
) -> Iterator[tuple[str, LocalFeatures]]:
    """Each image once, its real descriptors alone."""
    seen: set[str] = set()
    for start in range(0, len(names), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(names)))
        block = source.read(rows, count)
        if block.positions is None:
            raise AmesError(f"{source.path}: has no locations, which hloc's keypoints are")
        for row, name in zip(range(len(rows)), names[start:], strict=False):
            if name in seen:
                continue
            seen.add(name)
            real = block[row].valid
            found = block[row].map(lambda x: x[real])  # noqa: B023 - called at once
            if not bool(found.descriptors.isfinite().all()):
                raise AmesError(f"{source.path}: {name}: descriptors hold NaN or infinity")
            yield name, found
    _say_repeated(source, len(names) - len(seen))


def _in_pixels(source: DescriptorFile) -> bool:
    """Whether locations are pixels: as the file says, else as its first images look, which a line says."""
    said = source.provenance.get("locations")
    if said is not None:
        return said == "pixels"
    first = source.read(np.arange(min(len(source), _SAMPLE)))
    pixels = first.positions is not None and bool((first.positions[first.valid] > _SHARE).any())
    kind = "pixels" if pixels else "shares of height and width"
    _log.warning("%s: does not say what its locations are; they are read as %s", source.path, kind)
    return pixels


def _write_image(file: h5py.File, name: str, local: LocalFeatures, size: Size, pixels: bool) -> None:
    assert local.positions is not None, "read with them"
    places = local.positions.double().numpy()
    places = (places if pixels else places * np.array(size[::-1]))[:, ::-1] - 0.5
    group = file.create_group(name)
    group["keypoints"] = places.astype(np.float32)
    group["keypoints"].attrs["uncertainty"] = 1.0  # pixels: what hloc takes where a detector does not say
    group["descriptors"] = np.ascontiguousarray(local.descriptors.numpy().T)
    if local.weight is not None:
        group["scores"] = local.weight.numpy()
    group["image_size"] = np.array(size, np.int64)


def _write_globals(file: h5py.File, source: GlobalFile, names: list[str]) -> None:
    seen: set[str] = set()
    with progress("convert", len(names), "images") as tick:
        for start in range(0, len(names), BLOCK):
            vectors = source.read(range(start, min(start + BLOCK, len(names))))
            for name, vector in zip(names[start:], vectors, strict=False):
                tick(1)
                if name in seen:
                    continue
                seen.add(name)
                if not np.isfinite(vector).all():
                    raise AmesError(f"{source.path}: {name}: its vector holds NaN or infinity")
                with reading(source.path):
                    file.create_group(name)[GLOBAL] = vector
    _say_repeated(source, len(names) - len(seen))


def _say_repeated(source: DescriptorFile | GlobalFile, count: int) -> None:
    if count:
        _log.warning("%s: %d rows are of a name that came before, and are left out", source.path, count)
