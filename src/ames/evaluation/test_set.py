"""Open a prepared test set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ames.database.index import search_database
from ames.database.manifest import NAME
from ames.database.store import Database
from ames.datasets.ground_truth import GroundTruth, check_names, load_ground_truth
from ames.datasets.layout import DatasetFolder
from ames.descriptors.local import DescriptorFile, check_backbone
from ames.descriptors.vectors import Vectors
from ames.errors import AmesError
from ames.evaluation.runs import padded
from ames.global_search.shortlist import Shortlist
from ames.global_search.superglobal import say_earlier_formula
from ames.models.base import Similarity
from ames.reranking.model_inputs import provide_inputs


@dataclass(frozen=True, eq=False)
class TestSet:
    """The files of a prepared test set, opened and checked against each other and a model."""

    __test__ = False  # not a class of tests, in spite of its name
    folder: DatasetFolder
    ground_truth_file: Path
    shortlist_file: Path
    ground_truth: GroundTruth
    shortlist: Shortlist
    queries: DescriptorFile
    gallery: DescriptorFile | Database

    def prepared_for(self, model: Similarity) -> TestSet:
        """Return this set, whose files give what a model reads besides descriptors (``provide_inputs``)."""
        names = {"query": self.ground_truth.qimlist, "gallery": self.ground_truth.imlist}
        provide_inputs(model, self.folder, self.queries, self.gallery, names)
        return self


def open_test_set(
    folder: DatasetFolder,
    model: Similarity,
    *,
    shortlist: str | None = None,
    ground_truth: str | None = None,
    distractors: bool = False,
    database: Path | None = None,
) -> TestSet:
    """Open a prepared test set. shortlist, ground_truth: names of files other than the defaults.

    distractors: the gallery has images after those that the ground truth names. database: replaces the
    gallery's descriptor file; with the shortlist "database" its global codes are searched too. AmesError if
    files are missing, not of the same images, or not made for the model.
    """
    truth_file = folder.find_ground_truth(ground_truth)
    held = None if database is None else Database(database)
    searched = held if shortlist == "database" else None
    shortlist_file = folder.find_shortlist(shortlist) if searched is None else searched.path / NAME
    queries = DescriptorFile(folder.local("query"))
    gallery = DescriptorFile(folder.local("gallery")) if held is None else held
    truth = load_ground_truth(truth_file)
    if not truth.imlist:  # GLDv2's file names no images
        truth = load_ground_truth(truth_file, gallery_size=len(gallery), query_size=len(queries))
    listed = len(truth.imlist)
    if distractors:
        truth = padded(truth, len(gallery))
    for file, images, split in (
        (queries, truth.qimlist, "queries"),
        (gallery, truth.imlist, "gallery images"),
    ):
        check_backbone(file, width=model.local_dim, backbone=folder.descriptors)
        if len(file) != len(images):
            raise AmesError(f"{file.path}: {len(file)} images, but {len(images)} {split} in the ground truth")
        names = file.names if not isinstance(file, Database) or file.is_named else None
        if names is not None:  # distractors have no names in it
            known = images[:listed] if file is gallery else images
            check_names(names[: len(known)], known, source=str(file.path), truth=str(truth_file))
    if isinstance(gallery, Database):
        gallery.check_model(model)
    if searched is not None:
        entries = _search(searched, folder.vectors("query"))
    else:
        entries = Shortlist.load(shortlist_file, gallery_size=len(truth.imlist))
    say_earlier_formula(shortlist_file, entries.meta)
    if len(entries.ids) != len(truth.queries):
        raise AmesError(
            f"{shortlist_file}: {len(entries.ids)} queries, but {len(truth.queries)} in the ground truth"
        )
    test = TestSet(folder, truth_file, shortlist_file, truth, entries, queries, gallery)
    return test.prepared_for(model)


def _search(database: Database, queries: Path) -> Shortlist:
    asked = Vectors.open(queries)
    database.check_space(asked.space, queries)
    return search_database(database, asked.all())
