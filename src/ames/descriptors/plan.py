"""The output of one process: the files of a shard, the layout of their rows, and their provenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ames.datasets.layout import descriptor_path
from ames.descriptors.encoding import LocalRows, VectorRows, row_bytes
from ames.descriptors.provenance import Provenance
from ames.errors import AmesError


@dataclass(frozen=True)
class Shard:
    """Part ``index`` (from 1) of ``count``, by process ``local_rank`` of this machine's ``local_count``."""

    index: int = 1
    count: int = 1
    local_count: int = 1
    local_rank: int | None = None

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From "I/N"."""
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise AmesError(f"shard {text!r} is none of 1/N ... N/N")
        return cls(int(index), int(count))

    def device(self, name: str) -> str:
        """Return the device of this process: with several GPUs, each has its own."""
        return f"cuda:{self.local_rank}" if name == "cuda" and self.local_rank is not None else name

    def rows(self, images: int) -> slice:
        """The shard's rows of a list of ``images``: parts of nearly equal size, in order."""
        return slice(images * (self.index - 1) // self.count, images * self.index // self.count)


@dataclass(frozen=True, kw_only=True)
class OutputPlan:
    """Files that are filled together, one row per image in each.

    out: the beginning of the names of all shards' files, DIR/NAME. rows: content of a row, by the ending of
    the file's name ("local", "global" or "cls"). names: of the shard's images; named: files hold them.
    provenance: of the files; its ``list`` is the digest of the whole list. Files of another provenance are
    never continued. missing: of "positions", "scale" and "weight", what no image has.
    """

    out: Path
    rows: dict[str, LocalRows | VectorRows]
    names: Sequence[str]
    provenance: Provenance
    shard: Shard = Shard()
    named: bool = True
    missing: frozenset[str] = frozenset()

    @property
    def written_names(self) -> list[str] | None:
        """What files hold of the names."""
        return list(self.names) if self.named else None

    def stem(self, index: int) -> Path:
        """The beginning of the names of a shard's files."""
        return self.out if self.shard.count == 1 else self.out.with_name(f"{self.out.name}_{index}")

    @property
    def files(self) -> dict[Path, LocalRows | VectorRows]:
        stem = self.stem(self.shard.index)
        return {descriptor_path(stem, kind): rows for kind, rows in self.rows.items()}

    @property
    def state(self) -> Path:
        """The JSON file that exists while the files are written."""
        return self._beside("partial.json")

    @property
    def errors(self) -> Path:
        """The list of unreadable images, CSV: path, reason."""
        return self._beside("errors.csv")

    @property
    def image_bytes(self) -> int:
        return sum(map(row_bytes, self.rows.values()))

    def _beside(self, ending: str) -> Path:
        stem = self.stem(self.shard.index)
        return stem.with_name(f"{stem.name}.{ending}")
