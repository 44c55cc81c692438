"""Parts of an extraction, by processes and machines, and their files made into one."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ames.data.descriptors import recorded
from ames.errors import AmesError
from ames.filling import write_errors
from ames.merging import is_merged, merge_parts

_log = logging.getLogger(__name__)


class Part(NamedTuple):
    """The ``number``-th (from 1) of ``of`` parts; ``here``: processes of this machine."""

    number: int = 1
    of: int = 1
    here: int = 1
    local_rank: int | None = None

    @classmethod
    def of_this_process(cls, shard: int = 1, shards: int = 1) -> Part:
        """A machine's shard is divided among the processes that torchrun started there, if it did."""
        world = int(os.environ.get("WORLD_SIZE", 1))
        if world == 1:
            return cls(shard, shards)
        rank, local = int(os.environ.get("RANK", 0)), int(os.environ.get("LOCAL_RANK", 0))
        here = int(os.environ.get("LOCAL_WORLD_SIZE", world))
        return cls((shard - 1) * world + rank + 1, shards * world, here, local)

    def device(self, name: str) -> str:
        """Of several GPUs each process takes its own."""
        return f"cuda:{self.local_rank}" if name == "cuda" and self.local_rank is not None else name

    def named(self, out: Path) -> Path:
        """What the names of its files begin with."""
        return out if self.of == 1 else _numbered(out, self.number)


def check_merge(out: Path, part: Part, kinds: Sequence[str]) -> None:
    """AmesError where the merged file could not take its name in the end."""
    for kind in kinds if part.of > 1 else ():
        path = out.with_name(f"{out.name}_{kind}.hdf5")
        if path.exists() and not is_merged(path):
            raise AmesError(f"{path}: is there already and holds descriptors itself; give another name")


def merge_when_complete(out: Path, part: Part, kinds: Sequence[str], names: Sequence[str]) -> list[Path]:
    """Virtual files of all parts, if all are there and of one extraction: the last process to end makes them.

    names: the images of all parts; of parts that together have others, none is merged, and that is said.

    Parts of several machines that share no disk are merged by extract/merge_hdf5.py once they lie together.
    """
    if part.of == 1:
        return []
    stems = [_numbered(out, number) for number in range(1, part.of + 1)]
    files = {kind: [stem.with_name(f"{stem.name}_{kind}.hdf5") for stem in stems] for kind in kinds}
    everything = [path for paths in files.values() for path in paths]
    if not all(path.is_file() for path in everything):
        return []
    made = [recorded(path)[1] for path in everything]
    if any(one != made[0] for one in made):  # of an earlier extraction, which another process will replace
        return []
    for paths in files.values():  # equal settings, but cut into another number of parts
        if [name for path in paths for name in recorded(path)[0] or []] != list(names):
            _log.warning(
                "%s: not merged: its %d parts are not the list's, some are of another --shard I/N; "
                "make those anew with --overwrite",
                out,
                part.of,
            )
            return []
    merged = []
    for kind, paths in files.items():
        merged.append(out.with_name(f"{out.name}_{kind}.hdf5"))
        merge_parts(merged[-1], paths)
    _merge_errors(out, stems)
    return merged


def _merge_errors(out: Path, stems: Sequence[Path]) -> None:
    errors: list[tuple[str, str]] = []
    for stem in stems:
        path = stem.with_name(f"{stem.name}.errors.csv")
        if path.is_file():
            with open(path, encoding="utf-8", newline="") as file:
                errors += [(row[0], row[1]) for row in list(csv.reader(file))[1:] if len(row) == 2]
    target = out.with_name(f"{out.name}.errors.csv")
    if errors:
        write_errors(target, errors)
    else:
        target.unlink(missing_ok=True)


def _numbered(out: Path, number: int) -> Path:
    return out.with_name(f"{out.name}_{number}")
