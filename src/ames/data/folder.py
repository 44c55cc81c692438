"""Where the files of a data set lie: ``<data_root>/<dataset>/``, as in the published folders."""

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

    def local(self, split: str = "") -> Path:
        return self.path / f"{self.descriptors}{_suffix(split)}_local.hdf5"

    def vectors(self, split: str = "") -> Path:
        kind = "cls" if self.descriptors == "dinov2" else "global"
        return self.path / f"{self.descriptors}{_suffix(split)}_{kind}.hdf5"

    def image_list(self, split: str = "") -> Path:
        return self.path / (f"test_{split}.txt" if split else "train.txt")

    @property
    def shortlist(self) -> Path:
        return self.path / f"nn_{self.descriptors}.npz"

    @property
    def ground_truth(self) -> Path:
        return self.path / f"gnd_{self.name}.json"

    # STAND-IN until the readers of published files are merged: theirs replaces these three methods.
    def find_shortlist(self, name: str | None = None) -> Path:
        """The shortlist that is there, or the file ``name``."""
        return self._found(name, self.shortlist, f"nn_{self.descriptors}.pkl")

    def find_ground_truth(self, name: str | None = None) -> Path:
        """The ground truth that is there, or the file ``name``."""
        return self._found(name, self.ground_truth, f"gnd_{self.name}.pkl")

    def _found(self, name: str | None, own: Path, published: str) -> Path:
        if name is None:
            return self.path / published if not own.exists() and (self.path / published).exists() else own
        for path in (self.path / name, Path(name)):
            if path.is_file():
                return path
        raise AmesError(f"{self.path / name}: no such file")


def _suffix(split: str) -> str:
    return f"_{split}" if split else ""
