"""From a folder of images and lists to descriptors and a shortlist: stages that skip what is done."""

from __future__ import annotations

from pathlib import Path

from ames import shortlists
from ames.backbones.base import Backbone
from ames.data.descriptors import DescriptorFile
from ames.data.folder import DatasetFolder
from ames.data.images import read_list
from ames.errors import AmesError
from ames.extraction import Extraction, extract


def extract_split(
    folder: DatasetFolder,
    split: str,
    backbone: Backbone,
    *,
    images: Path | str | None = None,
    count: int = 400,
    workers: int = 0,
) -> Extraction | None:
    """Local and global descriptors of one split's list; None if both files are there already.

    images: the folder that the list's paths start from (the data set's own if None). Files of other
    images or another extraction are an AmesError, never silently reused or overwritten.
    """
    names = [item.path for item in read_list(folder.image_list(split))]
    local, vectors = folder.local(split), folder.vectors(split)
    if local.exists() and vectors.exists():
        file = DescriptorFile(local)
        wanted = backbone.provenance() | {"descriptors": count}
        if file.names != names or any(file.provenance.get(k) != v for k, v in wanted.items()):
            raise AmesError(f"{local}: of other images or settings; move it away or use another folder")
        return None
    return extract(
        images or folder.path, names, backbone, local=local, vectors=vectors, count=count, workers=workers
    )


def make_shortlist(folder: DatasetFolder, *, training: bool = False, size: int | None = None) -> Path:
    """Writes the shortlist of the queries (of every image, for a training set) and returns its path.

    size: entries a query; None is the whole gallery for a test set, 300 for a training set (what the
    sampler reads). An image of a training set may be its own neighbour; the sampler leaves it out. A
    shortlist that is there already is kept; one that was made here from other descriptors is an AmesError.
    ``ames.shortlists.make`` has more ways.
    """
    return shortlists.make(shortlists.Source(folder=folder, training=training), size=size)
