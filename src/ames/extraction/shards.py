"""Shards of an extraction, by processes and machines, and their files made into one."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from ames.datasets.layout import descriptor_path
from ames.descriptors.merge import is_merged, merge_parts
from ames.descriptors.plan import OutputPlan, Shard
from ames.errors import AmesError
from ames.extraction.pipeline import Images, difference
from ames.extraction.writer import write_errors
from ames.io.locks import exclusively


def shard_of_this_process(shard: Shard) -> Shard:
    """A machine's shard is divided among the processes that torchrun started there, if it did.

    AmesError where the environment says what torchrun would not.
    """
    names = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    given = [os.environ.get(name) for name in names]
    try:
        world, rank, local = (int(text or least) for text, least in zip(given[:3], (1, 0, 0), strict=True))
        local_count = int(given[3] or world)
    except ValueError:
        rank = world = -1
    if not 0 <= rank < world:
        said = ", ".join(f"{name}={text}" for name, text in zip(names, given, strict=True) if text)
        raise AmesError(f"{said}: not ranks of a launcher; start with torchrun, or unset them")
    if world == 1:
        return shard
    return Shard((shard.index - 1) * world + rank + 1, shard.count * world, local_count, local)


def check_merge(plan: OutputPlan) -> None:
    """AmesError where the merged file could not take its name in the end, or not name its parts."""
    if plan.shard.count == 1:
        return
    if "%b" in plan.out.name:
        raise AmesError(f"{plan.out}: HDF5 takes %b in a part's name for a number; give another name")
    for kind in plan.rows:
        path = descriptor_path(plan.out, kind)
        if path.exists() and not is_merged(path):
            raise AmesError(f"{path}: is there already and holds descriptors itself; give another name")


def merge_when_complete(plan: OutputPlan, images: Images) -> list[str]:
    """Make virtual files of all shards of ``images``, if all exist and are of one extraction; a line on each.

    The last process to end makes them. A shard of an earlier extraction will be replaced by another process:
    until then, files that were merged earlier are removed, for they would show rows of both. Merge shards of
    machines that share no disk by extract/merge_hdf5.py, once they are in one folder.
    """
    count, out = plan.shard.count, plan.out
    if count == 1:
        return []
    stems = [plan.stem(index) for index in range(1, count + 1)]
    merged = {descriptor_path(out, kind): [descriptor_path(x, kind) for x in stems] for kind in plan.rows}
    with exclusively(out.with_name(f"{out.name}.merged"), wait=True):
        if not all(path.is_file() for paths in merged.values() for path in paths):
            return []
        other = _other_than(plan, images, list(merged.values()))
        if other is not None:
            for path in filter(is_merged, merged):
                path.unlink(missing_ok=True)
            return [f"{out}: not merged yet, {other}"]
        for path, paths in merged.items():
            merge_parts(path, paths)
        _merge_errors(out, stems)
    return [f"{path}: merged from {count} parts" for path in merged]


def _other_than(plan: OutputPlan, images: Images, files: list[list[Path]]) -> str | None:
    """The first file that is not of the extraction of this process' shard; None if all are."""
    for paths in files:
        for index, path in enumerate(paths, 1):
            other = difference(path, images.part(Shard(index, len(paths))).names, plan.provenance)
            if other is not None:
                return f"{path.name} was made with different settings ({other})"
    return None


def _merge_errors(out: Path, stems: list[Path]) -> None:
    errors: list[tuple[str, str]] = []
    for stem in stems:
        path = stem.with_name(f"{stem.name}.errors.csv")
        if path.is_file():
            with open(path, encoding="utf-8", newline="") as file:
                errors += [(row[0], row[1]) for row in list(csv.reader(file))[1:] if len(row) == 2]
    write_errors(out.with_name(f"{out.name}.errors.csv"), errors)
