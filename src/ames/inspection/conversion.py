"""What conversions of descriptor files have in common: their options, and rows that are written in blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ames.descriptors.encoding import LocalRows
from ames.descriptors.plan import OutputPlan
from ames.descriptors.resumable import ResumableFiles
from ames.errors import AmesError
from ames.extraction.pipeline import complete
from ames.features import LocalFeatures
from ames.io.progress import progress

BLOCK = 64  # images that are written at a time
Images = Callable[[int], Iterator[dict[str, Any]]]  # from a row on: what each file of the plan gets


@dataclass(frozen=True)
class Options:
    """Options of ``ames convert``; None: not given.

    columns: entries per query of a shortlist. listed: a list of images, in whose order rows are written.
    images: the folder of the images, which have the sizes that a list lacks. desc_num: descriptors per image
    at most. dtype: of local descriptors, "float16" or "float32". coordinates: of locations, "normalized"
    (shares of height and width) or "pixels". overwrite: files of other settings.
    """

    columns: int | None = None
    listed: Path | None = None
    images: Path | None = None
    desc_num: int | None = None
    dtype: str | None = None
    coordinates: str | None = None
    overwrite: bool = False

    def check(self, path: Path, what: str, taken: Collection[str]) -> None:
        """AmesError for an option that was given and that ``what`` does not take."""
        words = {"listed": "list", "desc_num": "desc-num"}
        for field in fields(self):
            if getattr(self, field.name) != field.default and field.name not in taken:
                option = words.get(field.name, field.name)
                raise AmesError(f"{path}: --{option} is not for {what}: leave it out")
        if self.coordinates not in (None, "normalized", "pixels"):
            raise AmesError(f"--coordinates {self.coordinates}: give normalized or pixels")
        if self.dtype not in (None, "float16", "float32"):
            raise AmesError(f"--dtype {self.dtype}: give float16 or float32")


def write_rows(
    plan: OutputPlan, images: Images, *, source: Path, overwrite: bool = False
) -> tuple[Path, str]:
    """Write the plan's files, go on with unfinished ones, or find that they exist; return the first, and what
    it is.

    images(row) yields what each file gets of the images from ``row`` on, by its key in ``plan.rows``:
    LocalFeatures [n, D] or a vector. AmesError of an image removes what is written.
    """

    def fill(files: ResumableFiles, errors: Path | None) -> None:
        files.check_space()
        total, coming = len(plan.names), images(files.state.done)
        with progress("convert", total, "images", done=files.state.done) as tick:
            while files.state.done < total:
                try:
                    found = list(islice(coming, BLOCK))
                    blocks = [_encoded(plan, kind, found, files.state.done) for kind in plan.rows]
                except AmesError as error:
                    files.remove()
                    where = "" if str(error).startswith(str(source)) else f"{source}: "
                    raise AmesError(f"{where}{error}") from error
                files.append(blocks, [], [])
                tick(len(found))

    done = complete(plan, fill, overwrite=overwrite)
    first, *others = done.files
    also = "".join(f", and in {path}" for path in others)
    already = "; exists already" if done.already else ""
    return first, f"{len(plan.names):,} images of {source.name}{also}{already}"


def _encoded(plan: OutputPlan, kind: str, found: Sequence[dict[str, Any]], first: int) -> np.ndarray:
    rows, values = plan.rows[kind], [one[kind] for one in found]
    if isinstance(rows, LocalRows):
        for row, local in enumerate(values, first):
            _check_held(rows, local, plan.names[row])
    return rows.encode(values)


def _check_held(rows: LocalRows, local: LocalFeatures, name: str) -> None:
    if not rows.holds(local):
        raise AmesError(f"{name}: descriptors beyond float16's 65,504: give --dtype float32")
