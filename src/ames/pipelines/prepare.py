"""From a folder of images and lists to descriptors and a shortlist: stages that skip what is done."""

from __future__ import annotations

from pathlib import Path

from ames.datasets.boxes import read_boxes
from ames.datasets.layout import DatasetFolder
from ames.datasets.lists import read_list
from ames.extraction.pipeline import Extraction, Images, Source, Target, run
from ames.search import build as shortlists


def extract_split(
    folder: DatasetFolder,
    split: str,
    source: Source,
    *,
    images: Path | str | None = None,
    boxes: str | None = None,
    dtype: str = "float16",
    overwrite: bool = False,
) -> Extraction:
    """Local and global descriptors of one split's list; what an earlier call began is continued.

    images: the folder that the list's paths start from (the data set's own if None). boxes: as
    ``ames.datasets.boxes.read_boxes`` takes them; files are looked for in the folder first. Files that are
    there stay; if they are of other images or another extraction, AmesError, unless ``overwrite``.
    Unreadable images are listed in ``<descriptors>[_<split>].errors.csv``.
    """
    listed = folder.image_list(split)
    names = [item.path for item in read_list(listed)]
    cut = None if boxes is None else read_boxes(str(folder.file(boxes)), names, listed)
    local = folder.local(split)
    target = Target(
        local,
        folder.vectors(split),
        dtype=dtype,
        errors=local.with_name(f"{local.stem.removesuffix('_local')}.errors.csv"),
        keep=True,
        overwrite=overwrite,
        about={"boxes": boxes is not None},
    )
    return run(Images(Path(images or folder.path), names, cut), source, target)


def make_shortlist(
    folder: DatasetFolder,
    *,
    training: bool = False,
    size: int | None = None,
    overwrite: bool = False,
    device: str = "cpu",
) -> Path:
    """Writes the shortlist of the queries (of every image, for a training set) and returns its path.

    size: entries a query; None is the whole gallery for a test set, 300 for a training set (what the
    sampler reads). An image of a training set may be its own neighbour; the sampler leaves it out. A
    shortlist that is there already is kept, unless ``overwrite``; one that was made here from other
    descriptors is an AmesError. ``ames.search.build.make`` has more ways.
    """
    source = shortlists.Source(folder=folder, training=training)
    return shortlists.make(source, size=size, overwrite=overwrite, device=device)
