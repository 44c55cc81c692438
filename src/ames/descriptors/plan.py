"""What one process writes: the files of a shard, what their rows are, and how they are made."""

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
    """Part ``index`` (from 1) of ``count`` parts of a list; ``local_count``: processes of this machine, of
    which this is number ``local_rank``.
    """

    index: int = 1
    count: int = 1
    local_count: int = 1
    local_rank: int | None = None

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Of "I/N"."""
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise AmesError(f"shard {text!r} is none of 1/N ... N/N")
        return cls(int(index), int(count))

    def device(self, name: str) -> str:
        """Of several GPUs each process takes its own."""
        return f"cuda:{self.local_rank}" if name == "cuda" and self.local_rank is not None else name

    def rows(self, images: int) -> slice:
        """Those of a list of ``images``: parts of nearly equal size, in order."""
        first, last = (images * n // self.count for n in (self.index - 1, self.index))
        return slice(first, last)


@dataclass(frozen=True, kw_only=True)
class OutputPlan:
    """Files that are filled together, one row per image in each.

    out: what the names of the files of all shards begin with, DIR/NAME. rows: what a row is, by the ending of
    the file's name ("local", "global" or "cls"). names: of the shard's images. provenance: how the files are
    made; its ``list`` is the digest of the whole list. Files of another provenance are never continued.
    """

    out: Path
    rows: dict[str, LocalRows | VectorRows]
    names: Sequence[str]
    provenance: Provenance
    shard: Shard = Shard()

    def stem(self, index: int) -> Path:
        """What the names of a shard's files begin with."""
        return self.out if self.shard.count == 1 else self.out.with_name(f"{self.out.name}_{index}")

    @property
    def files(self) -> dict[Path, LocalRows | VectorRows]:
        stem = self.stem(self.shard.index)
        return {descriptor_path(stem, kind): rows for kind, rows in self.rows.items()}

    @property
    def state(self) -> Path:
        """The JSON file that is there while the files are written."""
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
