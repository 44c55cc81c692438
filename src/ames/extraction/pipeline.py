"""From images to descriptor files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ames.backbones.base import Backbone, ImageNetwork
from ames.backbones.composed import Composed
from ames.datasets.jpegs import unheard
from ames.datasets.layout import vector_kind
from ames.datasets.lists import check_all_exist, list_digest
from ames.descriptors.encoding import LocalRows, VectorRows
from ames.descriptors.local import DescriptorFile, recorded
from ames.descriptors.plan import OutputPlan, Shard
from ames.descriptors.provenance import Provenance
from ames.descriptors.resumable import ResumableFiles
from ames.errors import AmesError
from ames.extraction.base import BaseExtractor, ImageRegion
from ames.extraction.batched import BatchedExtractor
from ames.extraction.config import ExtractionConfig
from ames.extraction.preprocessing import Box
from ames.extraction.process_pool import PoolExtractor
from ames.extraction.writer import list_errors, write_features
from ames.io.atomic import remove_leftovers
from ames.io.locks import exclusively
from ames.io.text import printable

CHUNK = 256  # images that are written at a time: what an interruption costs at most


@dataclass(frozen=True)
class Extraction:
    """The result of an extraction: the files, and the images without features, by name."""

    files: list[Path]
    images: int
    extracted: int = 0  # of these; a name that is listed twice is two images
    unreadable: dict[str, str] = field(default_factory=dict)  # name -> why
    empty: list[str] = field(default_factory=list)  # readable, but no keypoint
    already: bool = False  # the files were there, and made as they would have been

    def summary(self) -> str:
        """One line, and one more for each kind of trouble."""
        target = self.files[0]
        if self.already:
            return f"{target}: exists already, with the same images and settings"
        lines = [f"{self.extracted} of {self.images} images extracted to {target}"]
        if self.unreadable:
            first = list(self.unreadable.items())[:5]
            named = ", ".join(f"{printable(name)} ({why})" for name, why in first)
            lines.append(f"{len(self.unreadable)} unreadable, skipped: {named}{_more(self.unreadable)}")
        if self.empty:
            named = ", ".join(map(printable, self.empty[:5]))
            lines.append(f"{len(self.empty)} without keypoints: {named}{_more(self.empty)}")
        if (deaf := unheard()) is not None:
            lines.append(deaf)
        return "\n".join(lines)


@dataclass(frozen=True)
class Images:
    """Images by their paths below ``root``; boxes: what is extracted of each, None: all of it."""

    root: Path
    names: Sequence[str]
    boxes: Sequence[Box] | None = None

    def photos(self, first: int) -> list[ImageRegion]:
        """The regions from image ``first`` on."""
        boxes = [None] * len(self.names) if self.boxes is None else self.boxes
        regions = zip(self.names[first:], boxes[first:], strict=True)
        return [ImageRegion(self.root / name, box) for name, box in regions]

    def part(self, shard: Shard) -> Images:
        """The images of a shard."""
        rows = shard.rows(len(self.names))
        return Images(self.root, self.names[rows], None if self.boxes is None else self.boxes[rows])

    @property
    def digest(self) -> str:
        """Of names and boxes: what tells the parts of one list from those of another."""
        return list_digest(self.names, self.boxes or ())


class OtherSettings(AmesError):  # noqa: N818 - a finding about files
    """Files are there, of other settings or of another version of the library."""


class NothingReadable(AmesError):  # noqa: N818 - a finding about a folder
    """Not one of the images can be read, or none is there."""


def extract(
    root: Path | str,
    names: Sequence[str],
    backbone: Backbone,
    out: Path | str,
    *,
    kinds: Sequence[str] | None = None,
    desc_num: int = 400,
    workers: int = 0,
) -> Extraction:
    """Write descriptors of ``names`` below ``root`` to OUT_local.hdf5 and OUT_global.hdf5: one row per image.

    kinds: of the files ("local", "global" or "cls"), None: all that the backbone gives. desc_num: local
    descriptors per image, at most. workers: processes beside this one, 0: none; files are the same.
    An unreadable image keeps its row, empty, and is named in the result. AmesError, and nothing is written,
    if no image can be read. Existing files are replaced on success.
    """
    config = ExtractionConfig(backbone=backbone.name, desc_num=desc_num, workers=workers, overwrite=True)
    if isinstance(backbone, (ImageNetwork, Composed)):
        extractor: BaseExtractor = BatchedExtractor(backbone, config)
    else:
        extractor = PoolExtractor(backbone, config)
    images = Images(Path(root), names)
    return run(images, extractor, plan_output(Path(out), images, extractor, kinds=kinds), keep=False)


def plan_output(
    out: Path,
    images: Images,
    extractor: BaseExtractor,
    *,
    shard: Shard = Shard(),  # noqa: B008 - frozen
    kinds: Sequence[str] | None = None,
) -> OutputPlan:
    """Plan the files of a shard of ``images``; kinds: as ``extract``.

    AmesError for a global descriptor that the extractor does not give.
    """
    if kinds is None:
        kinds = ["local"] if extractor.global_dim is None else ["local", vector_kind(extractor.name)]
    rows: dict[str, LocalRows | VectorRows] = {}
    for kind in kinds:
        if kind == "local":
            rows[kind] = extractor.rows
        elif extractor.global_dim is None:
            raise AmesError(f"backbone {extractor.name} has no global descriptor: no global model is loaded")
        else:
            rows[kind] = VectorRows(extractor.global_dim)
    made = replace(extractor.provenance, boxes=images.boxes is not None, list=images.digest)
    return OutputPlan(out=out, rows=rows, names=images.part(shard).names, provenance=made, shard=shard)


def run(
    images: Images, extractor: BaseExtractor, plan: OutputPlan, *, keep: bool = True, chunk: int = CHUNK
) -> Extraction:
    """Write features of the plan's shard of ``images``, or resume an interrupted call.

    keep: an interrupted call leaves what is done, for the same call to resume. chunk: images written at
    a time. AmesError where files of other settings exist (unless the configuration may overwrite them), where
    the disk is too small, and where no image can be read.
    """
    overwrite = extractor.config.overwrite
    # Existing files that stay need no images.
    if overwrite or not all(os.path.exists(path) for path in plan.files):
        _check_there(images)

    def fill(files: ResumableFiles, errors: Path | None) -> None:
        _extract(files, images.part(plan.shard), extractor, errors, chunk)

    return complete(plan, fill, overwrite=overwrite, keep=keep)


def complete(
    plan: OutputPlan,
    fill: Callable[[ResumableFiles, Path | None], None],
    *,
    overwrite: bool = False,
    keep: bool = True,
) -> Extraction:
    """Make the plan's files by ``fill``, which appends the rows that they lack, unless they are there.

    fill: of the unfinished files, and where to list unreadable images as they are found (None: not yet).
    keep, overwrite, errors: as of ``run``.
    """
    for path in plan.files:
        if os.path.isdir(path):  # no error for a name that is too long: that is said where it is written
            raise AmesError(f"{path}: is a folder, so no file of this name can be written")
    with exclusively(plan.state):
        there = [path for path in plan.files if path.exists()]
        if there and not overwrite and not plan.state.exists():
            return _already(plan, there)
        remove_leftovers(plan.state)
        remove_leftovers(plan.errors)
        if not keep:
            plan.state.unlink(missing_ok=True)
        files = ResumableFiles(plan, discard=overwrite)
        errors = None if there else plan.errors  # the list of existing files stays until these replace them
        try:
            fill(files, errors)
        except BaseException as error:
            if not keep or isinstance(error, NothingReadable):
                files.remove()
                if errors is not None:
                    errors.unlink(missing_ok=True)
            raise
        files.finish()
    return _result(files)


def _check_there(images: Images) -> None:
    try:
        check_all_exist(images.root, images.names)
    except AmesError as error:
        raise NothingReadable(str(error)) from error


def _extract(
    files: ResumableFiles, images: Images, extractor: BaseExtractor, errors: Path | None, chunk: int
) -> None:
    """Write what ``files`` lack, their list of errors last; AmesError if no image can be read."""
    files.check_space()
    if errors is not None and not files.state.unreadable:
        errors.unlink(missing_ok=True)  # an earlier extraction's
    photos = images.photos(files.state.done)
    write_features(files, lambda tick: extractor.chunks(photos, chunk, tick), extractor, errors=errors)
    unreadable = files.state.unreadable
    if files.plan.shard.count == 1 and len(unreadable) == len(images.names):
        row, why = unreadable[0]
        raise NothingReadable(
            f"{images.root}: none of the {len(unreadable)} images can be read "
            f"(first: {images.names[row]}: {why})"
        )
    list_errors(files, files.plan.errors)


def _already(plan: OutputPlan, there: list[Path]) -> Extraction:
    """The result of an earlier call; AmesError where its files are not what is asked for."""
    if len(there) < len(plan.files):
        raise AmesError(f"{there[0]}: exists without the other file; use --overwrite to make both")
    for path, rows in plan.files.items():
        other = difference(path, plan.written_names, plan.provenance)
        if other is None and isinstance(rows, LocalRows) and rows.dtype != "uint8":
            dtype = str(DescriptorFile(path).dtype)  # the one setting that provenance leaves out
            other = None if dtype == rows.dtype else f"dtype: there {dtype}, now {rows.dtype}"
        if other is not None:
            made = f"was made with different settings ({other})"
            raise OtherSettings(f"{path}: exists but {made}; use --overwrite to replace it")
    return Extraction(list(plan.files), len(plan.names), already=True)


def difference(path: Path, names: Sequence[str] | None, provenance: Provenance) -> str | None:
    """In what a descriptor file differs from one of these images, made so; None: in nothing."""
    found, made = recorded(path)
    if found != (None if names is None else list(names)):
        return "of other images"
    return Provenance.from_dict(made).difference(provenance)


def _result(files: ResumableFiles) -> Extraction:
    names, state = files.plan.names, files.state
    return Extraction(
        list(files.plan.files),
        len(names),
        len(names) - len(state.unreadable),
        {names[row]: why for row, why in state.unreadable},
        [names[row] for row in state.empty],
    )


def _more(items: Sequence[str] | dict[str, str]) -> str:
    return f" and {len(items) - 5} more" if len(items) > 5 else ""
