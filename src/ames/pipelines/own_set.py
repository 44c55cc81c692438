"""A collection and a person's truth as a test set: the queries' features, and the global search for them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ames.database.index import search_database
from ames.datasets.ground_truth import GroundTruth
from ames.datasets.layout import DatasetFolder
from ames.datasets.photo_truth import read_truth
from ames.descriptors.local import DescriptorFile
from ames.descriptors.vectors import Vectors
from ames.errors import AmesError
from ames.evaluation.evaluate import Scoring
from ames.evaluation.protocols import LEAVE_ONE_OUT
from ames.evaluation.sweep import junk_ids
from ames.evaluation.test_set import TestSet
from ames.extraction.factory import build_extractor
from ames.extraction.pipeline import Images
from ames.global_search.shortlist import Shortlist
from ames.reranking.fusion import Fusion, junk_behind, rerank
from ames.reranking.list_scores import ListScores
from ames.reranking.scorer import ComputeConfig
from ames.retrieval.photo_record import NAME, PhotoRecord
from ames.retrieval.photos import STEM, extract_source
from ames.retrieval.retriever import Retriever
from ames.retrieval.truth import Finder, Questions, find_questions

_ENTRIES = 20_000_000  # of all global rankings together: 240 MB
Scores = np.ndarray | ListScores

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class OwnSet:
    """An opened test set of a person's photos; made by ``open_own_set``.

    unreadable: path of a query -> why it cannot be read. notes: lines for the reader of figures.
    """

    index: Retriever
    questions: Questions
    test: TestSet
    unreadable: dict[str, str]
    notes: list[str]

    @property
    def truth(self) -> GroundTruth:
        return self.test.ground_truth

    @property
    def shortlist(self) -> Shortlist:
        return self.test.shortlist

    def without_answers(self) -> list[str]:
        """Return the names of readable queries that nothing in the collection answers."""
        return [q.name for q in self.questions.asked if not q.answers and str(q.path) not in self.unreadable]

    def scores(self, num_rerank: int, *, device: str = "cpu", stored: int | None = None) -> Scores:
        """Return the model's scores of the first ``num_rerank``. stored: descriptors used of a photo of the
        collection (None: all that it holds).
        """
        query_count, held = self.index.reranker.desc_num or (600, self.index.database.slots)
        scoring = Scoring(
            query_count=query_count,
            database_count=held if stored is None else stored,
            compute=ComputeConfig(devices=(device,)),
        )
        return scoring(self.index.reranker.model, self.test, [LEAVE_ONE_OUT], [num_rerank]).scores

    def reranked(self, scores: Scores, num_rerank: int, fusion: Fusion) -> np.ndarray:
        """Return the ranking int64 [Q, M] after re-ranking, the query itself at the end."""
        found, junk = self.shortlist, junk_ids(self.truth, LEAVE_ONE_OUT)
        if isinstance(scores, np.ndarray):
            return rerank(found, scores, junk, num_rerank=num_rerank, fusion=fusion)
        columns = junk_behind(found.ids, junk)
        ids, similarities = (np.take_along_axis(x, columns, 1) for x in (found.ids, found.similarities))
        head = slice(None), slice(num_rerank)
        order = scores.order(np.arange(len(ids)), ids[head], similarities[head], fusion)
        ids[head] = np.take_along_axis(ids[head], order, 1)
        return ids


@contextmanager
def open_own_set(
    folder: Path | str, truth: Path | str, *, num_rerank: int = 1, device: str = "cpu", workers: int = 0
) -> Iterator[OwnSet]:
    """Open a collection of ``ames index`` with a truth (``ames.datasets.photo_truth``): queries are extracted
    as a search extracts them, and searched for.

    AmesError for a collection that does not record its photos, and as reading the truth raises it.
    """
    index = Retriever.open(folder, device=device)
    record = PhotoRecord.load(Path(folder) / NAME)
    if record is None or index.query_config is None:
        raise AmesError(f"{folder}: not made by ames index, so its photos may be anywhere")
    read = read_truth(truth)
    questions = find_questions(read, Finder(index.database.names, record))
    extractor = build_extractor(replace(index.query_config, pack=None, workers=workers))
    index.database.check_space(extractor.provenance.space, "the queries")
    with TemporaryDirectory() as work:
        images = Images(Path(), [str(q.path) for q in questions.asked])
        source, done = extract_source(images, extractor, Path(work) / STEM)
        assert source.vectors is not None, "a collection's backbone gives global vectors"
        vectors = Vectors.open(source.vectors.path).all()
        depth = max(num_rerank + 1, _ENTRIES // len(vectors))
        found = search_database(index.database, vectors, min(depth, len(index.database)))
        test = _test_set(
            index, source.local, source.vectors.path, questions, found, frozenset(done.unreadable)
        )
        yield OwnSet(
            index, questions, test, done.unreadable, _notes(read.notes, questions, done.unreadable, found)
        )


def _test_set(
    index: Retriever,
    queries: DescriptorFile,
    vectors: Path,
    questions: Questions,
    found: Shortlist,
    unreadable: frozenset[str],
) -> TestSet:
    model, path = index.reranker.model, index.database.path
    if model.reads_vector:
        queries.with_vectors(vectors, width=model.global_dim)
    truth = questions.ground_truth(unreadable)
    return TestSet(DatasetFolder(path.parent, path.name), path, path, truth, found, queries, index.database)


def _notes(
    read: Sequence[str], questions: Questions, unreadable: dict[str, str], found: Shortlist
) -> list[str]:
    notes = [*read, *questions.notes]
    if unreadable:
        named = "; ".join(f"{name}: {why}" for name, why in list(unreadable.items())[:3])
        notes.append(f"{len(unreadable)} of {len(questions.asked)} queries cannot be read: {named}")
    if found.ids.shape[1] < len(questions.names):
        notes.append(f"global rankings are cut at {found.ids.shape[1]:,}; answers beyond count as not found")
    return notes
