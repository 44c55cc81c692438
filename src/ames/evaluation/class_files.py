"""A test set of images with classes on disk: its lists and its files of global descriptors, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ames.datasets.classes.class_lists import read_class_list
from ames.datasets.classes.class_set import ClassSplit
from ames.datasets.layout import DatasetFolder
from ames.descriptors.local import recorded
from ames.descriptors.vectors import Vectors
from ames.errors import AmesError
from ames.evaluation.class_metrics import ClassResult, evaluate_classes
from ames.evaluation.class_protocol import ClassProtocol
from ames.io.text import counted


@dataclass(frozen=True, eq=False)
class ClassTestSet:
    """query, gallery: the lists. queries, gallery_vectors: their global descriptors, row by row."""

    query: ClassSplit
    gallery: ClassSplit
    queries: Vectors
    gallery_vectors: Vectors

    def evaluate(self, protocol: ClassProtocol) -> ClassResult:
        """Return the metrics; AmesError as ``ames.evaluation.class_metrics.evaluate_classes``."""
        return evaluate_classes(
            self.queries, self.gallery_vectors, self.query.labels, self.gallery.labels, protocol
        )


def open_class_test_set(
    folder: Path | str, name: str, protocol: ClassProtocol, *, query_name: str | None = None
) -> ClassTestSet:
    """Open the lists of ``folder`` and the files ``<query_name>_query_global.hdf5`` (None: ``name``) and
    ``<name>_gallery_global.hdf5``.

    AmesError where a file is missing, where a file is not of the images of its list (by number and, where it
    records names, by name), where the lists are not those that the protocol needs (the same images in one
    order with ``skip_self``, else no image in both), and where the widths differ.
    """
    lists = DatasetFolder(Path(folder), name)
    paths = [lists.image_list(split) for split in ("query", "gallery")]
    query, gallery = (read_class_list(path) for path in paths)
    _check_lists(paths, query, gallery, protocol)
    asked = DatasetFolder(lists.path, query_name or name).vectors("query")
    searched = lists.vectors("gallery")
    for file, split, listed in ((asked, query, paths[0]), (searched, gallery, paths[1])):
        _check_images(file, split, listed)
    queries, vectors = Vectors.open(asked), Vectors.open(searched)
    if queries.width != vectors.width:
        raise AmesError(
            f"{asked}: {queries.width}-d vectors, those of {searched} are {vectors.width}-d: they are of "
            "different spaces"
        )
    queries.check_searchable(vectors)
    return ClassTestSet(query, gallery, queries, vectors)


def _check_lists(paths: list[Path], query: ClassSplit, gallery: ClassSplit, protocol: ClassProtocol) -> None:
    if protocol.skip_self:
        if (query.paths, query.labels) != (gallery.paths, gallery.labels):
            raise AmesError(
                f"{paths[0]}: not the images of {paths[1].name}: protocol {protocol.name!r} searches for "
                "each image among the others; choose one for a gallery apart, such as inshop"
            )
        return
    both = set(query.paths).intersection(gallery.paths)
    if both:
        raise AmesError(
            f"{paths[0]}: {counted(len(both), 'image')} of {paths[1].name}, too (first: {min(both)}), which "
            f"would find themselves: protocol {protocol.name!r} removes none; choose another"
        )


def _check_images(file: Path, split: ClassSplit, listed: Path) -> None:
    """AmesError unless a file of vectors is of the images of a list, where it says which."""
    names, images = recorded(file).names, len(Vectors.open(file))
    if images != len(split):
        raise AmesError(
            f"{file}: {counted(images, 'vector')}, but {counted(len(split), 'image')} in {listed}; "
            "extract the list again"
        )
    for number, (name, path) in enumerate(zip(names or split.paths, split.paths, strict=True), 1):
        if name != path:
            raise AmesError(
                f"{file}: not of the images of {listed}: image {number} is {name}, there {path}; extract "
                "the list again"
            )
