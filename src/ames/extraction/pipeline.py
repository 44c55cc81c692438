"""From images to descriptor files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ames.backbones.base import Backbone, MapBackbone
from ames.backbones.selection import Selection
from ames.datasets.jpegs import unheard
from ames.datasets.lists import check_all_exist, list_digest
from ames.descriptors.encoding import LocalRows, VectorRows
from ames.descriptors.local import DescriptorFile, recorded
from ames.descriptors.resumable import FilePlan, ResumableFiles, differing
from ames.errors import AmesError
from ames.extraction.batched import BatchedExtractor, NetworkOptions
from ames.extraction.preprocessing import Box
from ames.extraction.process_pool import ExtractionResult, ImageRegion, PoolExtractor
from ames.extraction.writer import fill, list_errors
from ames.io.atomic import remove_leftovers
from ames.io.locks import exclusively
from ames.models.base import Similarity

CHUNK = 256  # images that are written at a time: what an interruption costs at most


@dataclass(frozen=True)
class Extraction:
    """What came of a pass: the files, and the images without features, by name."""

    local: Path | None
    vectors: Path | None
    images: int
    extracted: int = 0  # of these; a name that is listed twice is two images
    unreadable: dict[str, str] = field(default_factory=dict)  # name -> why
    empty: list[str] = field(default_factory=list)  # readable, but no keypoint
    already: bool = False  # the files were there, and made as they would have been

    def summary(self) -> str:
        """One line, and one more for each kind of trouble."""
        target = self.local or self.vectors
        if self.already:
            return f"{target}: is there already, of the same images and settings"
        lines = [f"{self.extracted} of {self.images} images extracted to {target}"]
        if self.unreadable:
            named = ", ".join(f"{name} ({why})" for name, why in list(self.unreadable.items())[:5])
            lines.append(f"{len(self.unreadable)} unreadable, skipped: {named}{_more(self.unreadable)}")
        if self.empty:
            lines.append(
                f"{len(self.empty)} without keypoints: {', '.join(self.empty[:5])}{_more(self.empty)}"
            )
        if (deaf := unheard()) is not None:
            lines.append(deaf)
        return "\n".join(lines)


@dataclass(frozen=True)
class Images:
    """Images by their paths below ``root``; boxes: what is extracted of each, None: all of it."""

    root: Path
    names: Sequence[str]
    boxes: Sequence[Box] | None = None
    whole: bool = True  # not a part of a list

    def photos(self, first: int) -> list[ImageRegion]:
        """Those from ``first`` on."""
        boxes = self.boxes[first:] if self.boxes is not None else [None] * (len(self.names) - first)
        return [
            ImageRegion(self.root / name, box) for name, box in zip(self.names[first:], boxes, strict=True)
        ]

    def part(self, number: int, of: int) -> Images:
        """The ``number``-th (from 1) of ``of`` parts of nearly equal size, in order."""
        first, last = (len(self.names) * n // of for n in (number - 1, number))
        boxes = None if self.boxes is None else self.boxes[first:last]
        return Images(self.root, self.names[first:last], boxes, whole=of == 1)

    @property
    def digest(self) -> str:
        """Of names and boxes: what tells the parts of one list from those of another."""
        return list_digest(self.names, self.boxes or ())


@dataclass(frozen=True)
class Target:
    """What is written.

    local, vectors: files of local and of global descriptors, None: not made. dtype: of local descriptors,
    "float16" or "float32". packer: a binary model whose codes are written in their place. errors: a list of
    the unreadable images (CSV: path, reason). keep: what is done stays when the pass is broken off, and
    ``state`` says how much that is; the same call goes on with it. overwrite: files that are there may go.
    chunk: images written at a time. about: more that is recorded. copies: processes that write as much to the
    same disk.
    """

    local: Path | None
    vectors: Path | None = None
    dtype: str = "float16"
    packer: Similarity | None = None
    errors: Path | None = None
    keep: bool = False
    overwrite: bool = False
    chunk: int = CHUNK
    about: dict[str, Any] = field(default_factory=dict)
    copies: int = 1

    @property
    def files(self) -> list[Path]:
        return [path for path in (self.local, self.vectors) if path is not None]

    @property
    def state(self) -> Path:
        """Beside the files, named after what their names begin with: x_local.hdf5, x.unfinished.json. It is
        the same without global descriptors, for both grow in x_local.hdf5.unfinished.
        """
        stem = self.files[0].stem
        stem = stem.rsplit("_", 1)[0] if len(self.files) > 1 else stem.removesuffix("_local")
        return self.files[0].with_name(f"{stem}.unfinished.json")


class NothingReadable(AmesError):  # noqa: N818 - a finding about a folder
    """Not one of the images can be read."""


class Source(Protocol):
    """Where features come from: ``PoolExtractor``, ``BatchedExtractor``."""

    name: str
    slots: int
    local_dim: int
    global_dim: int | None

    def provenance(self) -> dict[str, Any]: ...

    def chunks(
        self, photos: Sequence[ImageRegion], size: int, tick: Callable[[], object]
    ) -> Iterator[list[ExtractionResult]]: ...


def extract(
    root: Path | str,
    names: Sequence[str],
    backbone: Backbone,
    *,
    local: Path | str | None,
    vectors: Path | str | None = None,
    count: int = 400,
    workers: int = 0,
) -> Extraction:
    """Writes local or global descriptors or both of ``names`` below ``root``, one row an image, in order.

    count: descriptors an image, at most. workers: processes beside this one, 0 = none; the files do not
    depend on it. An unreadable image keeps its row, empty, and is named in the result; if none at all
    can be read, AmesError, and nothing is written. Files that are there are replaced when all is well.
    """
    source: Source
    if isinstance(backbone, MapBackbone):
        source = BatchedExtractor(backbone, Selection(count), options=NetworkOptions(workers=workers))
    else:
        source = PoolExtractor(backbone, count, workers)
    first, second = (None if path is None else Path(path) for path in (local, vectors))
    return run(Images(Path(root), names), source, Target(first, second, overwrite=True))


def run(images: Images, source: Source, target: Target) -> Extraction:
    """Features of all images into the target's files; those of an interrupted call are continued.

    AmesError where files are there that were made otherwise (unless they may be overwritten), where the disk
    is too small, and where no image at all can be read.
    """
    # Files that are there and stay need no images.
    if images.whole and (target.overwrite or not all(os.path.exists(path) for path in target.files)):
        check_all_exist(images.root, images.names)
    for path in target.files:
        if os.path.isdir(path):  # no error for a name that is too long: that is said where it is written
            raise AmesError(f"{path}: is a folder, so no file of this name can be written")
    plan = plan_of(images, source, target)
    with exclusively(plan.state):
        there = [path for path in target.files if path.exists()]
        if there and not target.overwrite and not plan.state.exists():
            return _already(plan, target, there)
        remove_leftovers(plan.state)
        if target.errors is not None:
            remove_leftovers(target.errors)
        if not target.keep:
            plan.state.unlink(missing_ok=True)
        growing = ResumableFiles(plan, discard=target.overwrite)
        errors = None if there else target.errors  # where files are there, it is their list until these are
        try:
            growing.check_space(target.copies)
            first = growing.state.done
            if errors is not None and not growing.state.unreadable:
                errors.unlink(missing_ok=True)  # an earlier extraction's
            photos = images.photos(first)
            fill(
                growing,
                lambda tick: source.chunks(photos, target.chunk, tick),
                packer=target.packer,
                errors=errors,
            )
            _check_any(growing, images)
            if target.errors is not None:
                list_errors(growing, target.errors)
        except BaseException as error:
            if not target.keep or isinstance(error, NothingReadable):
                growing.remove()
                if errors is not None:
                    errors.unlink(missing_ok=True)
            raise
        growing.finish()
    return _result(growing, images, target)


def plan_of(images: Images, source: Source, target: Target) -> FilePlan:
    """The files and what they will hold, which says their size."""
    rows: dict[Path, LocalRows | VectorRows] = {}
    packer = target.packer
    if target.local is not None:
        dtype, width = (target.dtype, source.local_dim) if packer is None else ("uint8", packer.code_bytes)
        rows[target.local] = LocalRows(source.slots, width, dtype)
    if target.vectors is not None:
        if source.global_dim is None:
            raise AmesError(
                f"backbone {source.name} has no global descriptor here: its global model is not loaded"
            )
        rows[target.vectors] = VectorRows(source.global_dim)
    made = source.provenance() | target.about
    if "list" not in made:  # a part has the whole list's
        made["list"] = images.digest
    return FilePlan(target.state, rows, images.names, made)


def _already(plan: FilePlan, target: Target, there: list[Path]) -> Extraction:
    """What is there, if it is what is asked for."""
    if len(there) < len(target.files):
        raise AmesError(f"{there[0]}: is there already without the other file; --overwrite makes both")
    for path in there:
        names, made = recorded(path)
        made.pop("ames", None)
        other = differing(made, json.loads(json.dumps(plan.provenance)))
        if other is None and path == target.local and target.packer is None:
            dtype = str(DescriptorFile(path).dtype)  # the one setting that provenance leaves out
            other = None if dtype == target.dtype else f"dtype: there {dtype}, now {target.dtype}"
        if names != list(plan.names):
            other = "of other images"
        if other is not None:
            raise AmesError(f"{path}: is there already, made otherwise ({other}); --overwrite makes it anew")
    return Extraction(target.local, target.vectors, len(plan.names), already=True)


def _check_any(growing: ResumableFiles, images: Images) -> None:
    unreadable = growing.state.unreadable
    if images.whole and len(unreadable) == len(images.names):
        row, why = unreadable[0]
        raise NothingReadable(
            f"{images.root}: none of the {len(unreadable)} images can be read "
            f"(first: {images.names[row]}: {why})"
        )


def _result(growing: ResumableFiles, images: Images, target: Target) -> Extraction:
    state = growing.state
    unreadable = {images.names[row]: why for row, why in state.unreadable}
    return Extraction(
        target.local,
        target.vectors,
        len(images.names),
        len(images.names) - len(state.unreadable),
        unreadable,
        [images.names[row] for row in state.empty],
    )


def _more(items: Sequence[str] | dict[str, str]) -> str:
    return f" and {len(items) - 5} more" if len(items) > 5 else ""
