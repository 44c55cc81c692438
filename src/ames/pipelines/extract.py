"""From images to descriptor files: ``ames extract`` and its jobs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ames.datasets.boxes import read_boxes
from ames.datasets.finding import find_images, is_image_file
from ames.datasets.lists import read_list
from ames.descriptors.plan import Shard
from ames.errors import AmesError
from ames.extraction.config import ExtractionConfig
from ames.extraction.factory import build_extractor, build_vector_extractor
from ames.extraction.pipeline import Images, plan_output, run
from ames.extraction.shards import check_merge, merge_when_complete, shard_of_this_process
from ames.io.console import check_device
from ames.io.text import size_text


def extract_images(
    config: ExtractionConfig,
    *,
    images: Path,
    out: str,
    listed: Path | None = None,
    boxes: str | None = None,
    shard: str = "1/1",
    vectors_alone: bool = False,
) -> None:
    """Extract a shard of the images to OUT_*.hdf5, merge all shards after the last one, and print both.

    images: a folder, an image, or a list of paths relative to its own folder. listed: a list of paths
    relative to the folder ``images``. out: DIR/NAME. boxes: see ``ames.datasets.boxes.read_boxes``. shard:
    "I/N". vectors_alone: of the configuration's embedder; nothing else is extracted.
    """
    stem = check_out(out)
    part = shard_of_this_process(Shard.parse(shard))
    config = replace(config, device=part.device(config.device))
    found, notes = _find(images, listed, boxes)
    for note in notes if part.index == 1 else ():
        print(note, flush=True)
    check_device(config.device)
    extractor = build_vector_extractor(config) if vectors_alone else build_extractor(config)
    plan = plan_output(stem, found, extractor, shard=part, kinds=["global"] if vectors_alone else None)
    check_merge(plan)
    each, number = plan.image_bytes, len(plan.names)
    size = size_text(each * number)
    print(f"{plan.stem(part.index)}: {number:,} images of {each:,} bytes, {size} in all", flush=True)
    print(run(found, extractor, plan).summary(), flush=True)
    for line in merge_when_complete(plan, found):
        print(line)


def _find(root: Path, listed: Path | None, boxes: str | None) -> tuple[Images, Sequence[str]]:
    """The images, and notes about files that are left out."""
    notes: Sequence[str] = ()
    if root.is_file() and listed is not None:
        raise AmesError(f"--images {root}: is a file; with --list, --images is the folder of the images")
    if root.is_file():
        listed = None if is_image_file(root) else root
        root, names = root.parent, [root.name]
    elif listed is None:
        found = find_images(root)
        names, notes = found.names, found.notes()
    if listed is not None:
        names = [item.path for item in read_list(listed)]
    return Images(root, names, None if boxes is None else read_boxes(boxes, names, listed)), notes


def check_out(text: str) -> Path:
    """The beginning of the files' names, DIR/NAME."""
    path = Path(text)
    if not path.name or path.name == ".." or text.endswith(os.sep):  # of which Path keeps nothing
        raise AmesError(f"--out {text} is a folder; give the beginning of the files' names, DIR/NAME")
    if path.parent.exists() and not path.parent.is_dir():
        raise AmesError(f"--out {text}: {path.parent} is a file, no folder to write to")
    return path
