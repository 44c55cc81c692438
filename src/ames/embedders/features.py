"""The stored features that a gallery embedder fuses: what it expects, and reading them from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ames.descriptors.local import DescriptorFile, GlobalFile, check_same_images, recorded
from ames.descriptors.vectors import Vectors
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.io.hdf5 import find_features, open_hdf5

LOCAL, GLOBAL = "local", "global"


@dataclass(frozen=True)
class FeatureSpec:
    """name: of the feature. kind: "global" (one vector of an image) or "local" (a set). width: D. count:
    local descriptors per image, at most (None: all; of a global feature 1). backbone: what made it, if known.
    """

    name: str
    kind: str
    width: int
    count: int | None = None
    backbone: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in (LOCAL, GLOBAL):
            raise AmesError(f"feature {self.name}: kind {self.kind!r} is none of {LOCAL}, {GLOBAL}")
        if not self.name or "." in self.name:  # torch names parameters by dots
            raise AmesError(f"feature {self.name!r}: its name is empty or has a dot: rename its files")
        if self.count is not None and self.count < 1:
            raise AmesError(f"feature {self.name}: count {self.count} must be at least 1")

    def to_dict(self) -> dict[str, Any]:
        """Return what ``specs`` reads, as JSON holds it."""
        return asdict(self)


def specs(given: Sequence[Mapping[str, Any] | FeatureSpec]) -> tuple[FeatureSpec, ...]:
    """Return the features of a list, as a checkpoint or a configuration holds it. AmesError: two of one name,
    none, or an entry that is none.
    """
    try:
        found = tuple(x if isinstance(x, FeatureSpec) else FeatureSpec(**x) for x in given)
    except TypeError as error:
        raise AmesError(f"features: {error}") from error
    names = [x.name for x in found]
    if not found or len(set(names)) < len(names):
        raise AmesError(f"features {', '.join(names) or 'none'}: give at least one, each of its own name")
    for spec in found:
        if type(spec.width) is not int or spec.width < 1:
            raise AmesError(f"feature {spec.name}: width {spec.width!r}: give a whole number of at least 1")
    return found


class StoredFeatures:
    """Features of the same images in several descriptor files, read by rows; files are memory-mapped.

    files: by the feature's name, in order; of global or local descriptors, which the content says. counts: of
    local descriptors per image, at most, by name. AmesError where two files are not of the same images: by
    number and, where files hold names, by name and order; and where a file holds packed bits.
    """

    def __init__(
        self, files: Mapping[str, Path | str], counts: Mapping[str, int | None] | None = None
    ) -> None:
        if not files:
            raise AmesError("no feature files given: give at least one")
        self.paths = {name: Path(path) for name, path in files.items()}
        self._files = {name: _open(path) for name, path in self.paths.items()}
        counts = counts or {}
        self.specs = tuple(_spec(name, file, counts.get(name)) for name, file in self._files.items())
        self._vectors = {
            name: Vectors.open(file.path)
            for name, file in self._files.items()
            if isinstance(file, GlobalFile)
        }
        self.names = _check_same(list(self._files.values()))

    def __len__(self) -> int:
        return len(next(iter(self._files.values())))

    def check(self, wanted: Sequence[FeatureSpec]) -> None:
        """AmesError names the first file that another backbone made than an embedder learned from."""
        found = {x.name: x for x in self.specs}
        for spec in wanted:
            made = found[spec.name].backbone if spec.name in found else None
            if made is not None and spec.backbone not in (None, made):
                raise AmesError(
                    f"{self.paths[spec.name]}: made by backbone {made!r}, but the embedder learned from "
                    f"{spec.backbone!r}"
                )

    def check_images(self, wanted: Sequence[str], listed: object) -> None:
        """AmesError unless the images are those of a list, ``listed`` in the message: by number and, where a
        file holds names, by name and order.
        """
        path, names = next(iter(self.paths.values())), self.names or wanted
        if len(self) != len(wanted):
            raise AmesError(
                f"{path}: {len(self)} images, but {len(wanted)} in {listed}; extract the list again"
            )
        for number, (name, other) in enumerate(zip(names, wanted, strict=True), 1):
            if name != other:
                raise AmesError(
                    f"{path}: not of the images of {listed}: image {number} is {name!r}, there {other!r}; "
                    "extract the list again"
                )

    def provenance(self) -> dict[str, dict[str, Any]]:
        """Return the record of each file, by the feature's name."""
        return {name: recorded(path).provenance for name, path in self.paths.items()}

    def read(self, rows: np.ndarray) -> dict[str, LocalFeatures]:
        """Return the features of images, in any order, repeated or not: each float32 [n, K, D].

        An image without a global vector (all zeros) has no valid one.
        """
        found: dict[str, LocalFeatures] = {}
        for spec in self.specs:
            file = self._files[spec.name]
            if isinstance(file, GlobalFile):
                vectors = torch.from_numpy(self._vectors[spec.name].gather(np.asarray(rows, np.int64)))
                found[spec.name] = LocalFeatures(vectors[:, None], vectors.any(1, keepdim=True))
            else:
                local = file.read(rows, min(spec.count or file.slots, file.slots), locations=False)
                found[spec.name] = replace(local, descriptors=local.descriptors.float(), vector=None)
        return found


def _open(path: Path) -> DescriptorFile | GlobalFile:
    with open_hdf5(path) as file:
        flat = find_features(file).ndim == 2 and find_features(file).dtype.kind == "f"
    if flat:
        return GlobalFile(path)
    local = DescriptorFile(path)
    if local.packed:
        raise AmesError(f"{path}: holds packed bits; an embedder reads descriptors")
    return local


def _spec(name: str, file: DescriptorFile | GlobalFile, count: int | None) -> FeatureSpec:
    backbone = recorded(file.path).provenance.get("backbone")
    if isinstance(file, GlobalFile):
        return FeatureSpec(name, GLOBAL, file.width, 1, backbone)
    return FeatureSpec(name, LOCAL, file.width, min(count or file.slots, file.slots), backbone)


def _check_same(files: Sequence[DescriptorFile | GlobalFile]) -> list[str] | None:
    """Return the images' names, None where no file has them."""
    for file in files:
        check_same_images(file, files[0])
    named = next((x for x in files if x.names), None)
    if named is None:
        return None
    for file in files:
        check_same_images(file, named)
    return list(named.names or [])


def check_features(features: Mapping[str, LocalFeatures], wanted: Sequence[FeatureSpec]) -> None:
    """AmesError names the first feature that is missing or of another width."""
    for spec in wanted:
        if spec.name not in features:
            have = ", ".join(features) or "none"
            raise AmesError(f"the embedder reads the feature {spec.name!r}, which is missing (given: {have})")
        width = features[spec.name].width
        if width != spec.width:
            raise AmesError(f"feature {spec.name!r} is {width}-d, the embedder takes {spec.width}-d")
