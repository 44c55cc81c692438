"""Parts of an extraction, by processes and machines, and their files made into one."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ames.descriptors.local import recorded
from ames.descriptors.merge import is_merged, merge_parts
from ames.descriptors.resumable import differing
from ames.errors import AmesError
from ames.extraction.pipeline import Images
from ames.extraction.writer import write_errors
from ames.io.locks import exclusively


class Part(NamedTuple):
    """The ``number``-th (from 1) of ``of`` parts; ``here``: processes of this machine."""

    number: int = 1
    of: int = 1
    here: int = 1
    local_rank: int | None = None

    @classmethod
    def of_this_process(cls, shard: int = 1, shards: int = 1) -> Part:
        """A machine's shard is divided among the processes that torchrun started there, if it did.

        AmesError where the environment says what torchrun would not.
        """
        names = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        given = [os.environ.get(name) for name in names]
        try:
            world, rank, local = (
                int(text or least) for text, least in zip(given[:3], (1, 0, 0), strict=True)
            )
            here = int(given[3] or world)
        except ValueError:
            rank = world = -1
        if not 0 <= rank < world:
            said = ", ".join(f"{name}={text}" for name, text in zip(names, given, strict=True) if text)
            raise AmesError(f"{said}: the environment's ranks are none; start with torchrun, or unset them")
        if world == 1:
            return cls(shard, shards)
        return cls((shard - 1) * world + rank + 1, shards * world, here, local)

    def device(self, name: str) -> str:
        """Of several GPUs each process takes its own."""
        return f"cuda:{self.local_rank}" if name == "cuda" and self.local_rank is not None else name

    def named(self, out: Path) -> Path:
        """What the names of its files begin with."""
        return out if self.of == 1 else _numbered(out, self.number)


def check_merge(out: Path, part: Part, kinds: Sequence[str]) -> None:
    """AmesError where the merged file could not take its name in the end, or not name its parts."""
    if part.of > 1 and "%b" in out.name:
        raise AmesError(f"{out}: HDF5 takes %b in a part's name for a number; give another name")
    for kind in kinds if part.of > 1 else ():
        path = out.with_name(f"{out.name}_{kind}.hdf5")
        if path.exists() and not is_merged(path):
            raise AmesError(f"{path}: is there already and holds descriptors itself; give another name")


def merge_when_complete(out: Path, part: Part, images: Images, kinds: Sequence[str]) -> list[str]:
    """Virtual files of all parts of ``images``, if all are there and of one extraction: the last process to
    end makes them. Returns what there is to say of each.

    A part of an earlier extraction will be replaced by another process: until then, files that were merged
    earlier go, for they would show rows of both. Parts of several machines that share no disk are merged by
    extract/merge_hdf5.py once they lie together.
    """
    if part.of == 1:
        return []
    stems = [_numbered(out, number) for number in range(1, part.of + 1)]
    files = {kind: [stem.with_name(f"{stem.name}_{kind}.hdf5") for stem in stems] for kind in kinds}
    merged = {kind: out.with_name(f"{out.name}_{kind}.hdf5") for kind in kinds}
    with exclusively(out.with_name(f"{out.name}.merged"), wait=True):
        if not all(path.is_file() for paths in files.values() for path in paths):
            return []
        other = _other_than(part, images, files)
        if other is not None:
            for path in filter(is_merged, merged.values()):
                path.unlink(missing_ok=True)
            return [f"{out}: not merged yet, {other}"]
        for kind, paths in files.items():
            merge_parts(merged[kind], paths)
        _merge_errors(out, stems)
    return [f"{path}: merged from {part.of} parts" for path in merged.values()]


def _other_than(part: Part, images: Images, files: dict[str, list[Path]]) -> str | None:
    """The first file that is not of the extraction of this process' part; None if all are."""
    mine = recorded(next(iter(files.values()))[part.number - 1])[1]
    for paths in files.values():
        for number, path in enumerate(paths, 1):
            names, made = recorded(path)
            other = differing(made | {"ames": None}, mine | {"ames": None})
            if names != list(images.part(number, part.of).names):
                other = "of other images"
            if other is not None:
                return f"{path.name} is made otherwise ({other})"
    return None


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
