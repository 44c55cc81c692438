"""Test sets from a folder of photos with one sub-folder per object."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ames.datasets.finding import find_images
from ames.datasets.ground_truth import GroundTruth
from ames.datasets.images import UnreadableImage, read_image
from ames.errors import AmesError

DISTRACTORS = "distractors"


@dataclass(frozen=True)
class Collection:
    """Readable images of a folder, the object each shows, and what could not be read.

    objects: object name -> positions in ``images``, for objects of at least two images. notes: lines about
    files that are no images.
    """

    root: Path
    images: list[str]
    objects: dict[str, list[int]]
    unreadable: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def leave_one_out(self) -> GroundTruth:
        """Every image of an object is a query: the object's others are relevant, the image itself is junk."""
        queries, names = [], []
        for members in self.objects.values():
            for query in members:
                others = [i for i in members if i != query]
                queries.append({"ok": np.array(others), "junk": np.array([query])})
                names.append(self.images[query])
        return GroundTruth(queries=queries, imlist=self.images, qimlist=names, boxes=None)


def open_collection(root: Path | str, *, distractors: str = DISTRACTORS) -> Collection:
    """Read a folder with one sub-folder per object; ``distractors`` names that of images of none.

    Images directly in ``root`` are distractors, too. Every image is decoded once, so that unreadable ones are
    left out and reported. AmesError if no image can be read, or no object has two.
    """
    root = Path(root)
    images, unreadable = [], {}
    found = find_images(root)
    for name in tqdm(found.names, desc="read", unit="img", disable=None):
        try:
            read_image(root / name)
            images.append(name)
        except UnreadableImage as error:
            unreadable[name] = str(error)
    if not images:
        name, why = next(iter(unreadable.items()))
        raise AmesError(f"{root}: none of the {len(unreadable)} images can be read (first: {name}: {why})")
    members = defaultdict(list)
    for position, name in enumerate(images):
        folder = name.split("/")[0] if "/" in name else distractors
        if folder != distractors:
            members[folder].append(position)
    objects = {name: rows for name, rows in sorted(members.items()) if len(rows) > 1}
    if not objects:
        raise AmesError(
            f"{root}: no sub-folder with two or more readable images; expected one sub-folder per object, "
            f"and others in a sub-folder {distractors!r}"
        )
    return Collection(root, images, objects, unreadable, found.notes())
