"""Paths of a data set's files: ``<data_root>/<dataset>/``, as in the published folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ames.errors import AmesError


@dataclass(frozen=True)
class DatasetFolder:
    """Paths of one data set under one kind of descriptors.

    Splits are "gallery" and "query" for test sets, "" for training sets.
    """

    path: Path
    descriptors: str

    @property
    def name(self) -> str:
        return self.path.name

    def stem(self, split: str = "") -> Path:
        """The beginning of the names of a split's descriptor files."""
        return self.path / (f"{self.descriptors}_{split}" if split else self.descriptors)

    def local(self, split: str = "") -> Path:
        return descriptor_path(self.stem(split), "local")

    def vectors(self, split: str = "") -> Path:
        return descriptor_path(self.stem(split), self.vector_kind(split))

    def vector_kind(self, split: str = "") -> str:
        """The ending of the name of a split's file of global descriptors: "cls" or "global"."""
        usual = vector_kind(self.descriptors)
        other = "global" if usual == "cls" else "cls"
        # The backbone determines the ending, and files of any backbone may have been renamed.
        kinds = (x for x in (usual, other) if descriptor_path(self.stem(split), x).is_file())
        return next(kinds, usual)

    def image_list(self, split: str = "") -> Path:
        return self.path / (f"test_{split}.txt" if split else "train.txt")

    def file(self, name: str) -> Path:
        """A file by its name in this folder, or by its path."""
        return self.path / name if (self.path / name).is_file() else Path(name)

    @property
    def shortlist(self) -> Path:
        return self.path / f"nn_{self.descriptors}.npz"

    @property
    def ground_truth(self) -> Path:
        return self.path / f"gnd_{self.name}.json"

    def find_shortlist(self, name: str | None = None) -> Path:
        """Return the shortlist that exists: nn_<descriptors>.npz, or the published .pkl.

        name: of another one in this folder, or its path; the suffix is optional, and a file of the other
        suffix will do. AmesError lists the paths tried.
        """
        return _find(self.path, name, self.shortlist, "shortlist")

    def find_ground_truth(self, name: str | None = None) -> Path:
        """As ``find_shortlist``: gnd_<folder>.json, else the published .pkl, or another one by ``name``."""
        return _find(self.path, name, self.ground_truth, "ground truth")


def descriptor_path(stem: Path, kind: str) -> Path:
    """DIR/NAME -> DIR/NAME_<kind>.hdf5; kind: "local", "global" or "cls"."""
    return stem.with_name(f"{stem.name}_{kind}.hdf5")


def vector_kind(descriptors: str) -> str:
    """The usual ending of the names of global descriptor files."""
    return "cls" if descriptors == "dinov2" else "global"


def _find(folder: Path, name: str | None, default: Path, what: str) -> Path:
    """Look for ``name`` in the folder, then as a path; a full name is tried before its other suffix."""
    endings = (default.suffix, ".pkl")
    given = Path(name or default.stem)
    full = [given] if given.suffix in endings else []
    stem = given.with_suffix("") if full else given
    names = full + [stem.with_name(stem.name + ending) for ending in endings]
    places = list(dict.fromkeys([folder / n for n in names] + (names if name else [])))
    for place in places:
        if place.is_file():
            return place
    raise AmesError(f"no {what} exists; looked for {', '.join(str(place) for place in places)}")
