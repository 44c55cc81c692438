"""What models read of an image besides its descriptors: a global descriptor, its size in pixels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from ames.database.store import Database
from ames.datasets.ground_truth import check_names
from ames.datasets.image_sizes import file_sizes, listed_sizes
from ames.datasets.layout import DatasetFolder
from ames.datasets.lists import read_list
from ames.descriptors.local import DescriptorFile
from ames.models.base import Similarity

log = logging.getLogger(__name__)
_IMAGES = (".", "images", "jpg")  # folders of a data set in which its images may lie


def provide_inputs(
    model: Similarity,
    folder: DatasetFolder,
    queries: DescriptorFile | Database,
    gallery: DescriptorFile | Database,
    names: Mapping[str, Sequence[str]],
) -> None:
    """Let a data set's files give what the model reads; a database has it in its codes.

    Global descriptors are those of the folder. Sizes are those of its lists (``path,label,width,height``),
    else of the images, where they lie in the folder; a line says which side has none, and a model that needs
    them says what to give. names: of the images of "query" and "gallery", where there are no lists. AmesError
    where the global descriptors are of other images, or of another width than the model's.
    """
    for side, split, file in (("query", "query", queries), ("database", "gallery", gallery)):
        if not isinstance(file, DescriptorFile):
            continue
        if model.reads_vector:
            file.with_vectors(folder.vectors(split), width=model.global_dim)
        if side in model.reads_size and file.sizes is None:
            sizes = _sizes(folder, split, names[split])
            if sizes is not None and len(sizes) == len(file):
                file.with_sizes(sizes)
            else:
                log.info("%s: sizes of %s images are not known", folder.path, split)


def _sizes(folder: DatasetFolder, split: str, names: Sequence[str]) -> np.ndarray | None:
    """float32 [n, 2] of a split's images; None where neither its list nor its images tell them.

    names: of the images, where there is no list of their paths.
    """
    listed = folder.image_list(split)
    if listed.is_file():
        images = [image.path for image in read_list(listed)]
        if len(images) == len(names):
            check_names(images, names, source=str(listed), truth=f"the descriptors of {folder.path}")
        sizes = listed_sizes(listed)
        if sizes is not None:
            return sizes
        names = images
    found = (file_sizes(folder.path / place, names) for place in _IMAGES) if names else ()
    return next((sizes for sizes in found if sizes is not None), None)
