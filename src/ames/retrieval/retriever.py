"""Ask a collection with a photo: global search in a database's codes, then re-ranking by its local codes.

What changes a collection is imported when it is called: a search does not load h5py.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ames.backbones.base import ImageFeatures
from ames.database.index import open_index
from ames.database.store import Database
from ames.errors import AmesError, naming
from ames.extraction.config import ExtractionConfig
from ames.extraction.extractor import Photo, extract_photos
from ames.extraction.factory import build_extractor
from ames.extraction.preprocessing import Box
from ames.features import LocalFeatures
from ames.global_search.shortlist import Shortlist
from ames.io.console import check_device
from ames.models.base import Similarity
from ames.models.load import FILES, load
from ames.models.registry import MODELS
from ames.reranking.fusion import Fusion, rerank_by
from ames.reranking.list_scorer import ListScorer
from ames.reranking.reranker import Hits, Reranker
from ames.reranking.scorer import PairScorer
from ames.retrieval.collection import BUILDING, Collection, beside, check_features, check_folder
from ames.retrieval.photo_record import NAME as RECORD
from ames.retrieval.photo_record import PhotoRecord
from ames.retrieval.planning import default_model, plan_collection, query_count

if TYPE_CHECKING:  # h5py is not loaded for a search
    from ames.descriptors.vectors import Vectors
    from ames.retrieval.stages import Stages

NUM_RERANK = 100

log = logging.getLogger(__name__)


class Retriever:
    """A collection of photos that is searched with a photo.

    ``build`` makes one of a folder of photos, ``open`` opens it again. Nothing but the global index is held
    in memory. database: what is searched. reranker: whose model made the database, with a fusion. config: how
    photos are read (None: ``search`` takes features, not photos); query_config: how queries are (None: too).
    stages: of a cascade, which re-rank in place of the reranker.
    """

    def __init__(
        self,
        database: Database,
        reranker: Reranker,
        *,
        config: ExtractionConfig | None = None,
        query_config: ExtractionConfig | None = None,
        stages: Stages | None = None,
    ) -> None:
        database.check_model(reranker.model)
        if reranker.fusion is None:
            raise AmesError(f"{reranker.name} brings no lambda and gamma: give a fusion")
        self.database, self.reranker = database, reranker
        self.config, self.query_config = config, query_config or config
        self.stages = stages
        self._index = open_index(database)
        self._extractor: Any = None

    # ---- a collection of photos -------------------------------------------------------------------

    @classmethod
    def build(
        cls,
        folder: Path | str,
        images: Path | str | Sequence[Path | str],
        model: str | Path | None = None,
        *,
        fusion: Fusion | None = None,
        factory: str | None = None,
        device: str = "cpu",
        **options: Any,
    ) -> Retriever:
        """Make a collection in ``folder`` of the photos in a folder, or of a list of files, and open it.

        model: a name of ``list_models``, or a checkpoint, then with ``backbone=``; None: the shipped binary
        model of ``ames.backbones.choice.default_backbone``, and the log says which. fusion: None: that of the
        model. factory: FAISS code of the global vectors (None: SQ4 from 10,000 photos on, SQfp16 below: the
        range of a code that few vectors were fitted on does not hold those that are added). Other options:
        ``desc_num``, local descriptors stored per image; ``query_embedder``, the file of the query side where
        ``embedder`` does not hold both; and those of ``ames.extraction.config.ExtractionConfig``.

        Unreadable photos are named in the log; they keep their names, and nothing finds them. A call that was
        interrupted resumes when it is called again; one that is finished opens the collection. AmesError
        where the folder holds anything else.
        """
        from ames.retrieval.photos import (
            check_made_by,
            checked_extractor,
            default_factory,
            digest,
            list_photos,
            make_database,
            work_folder,
        )

        check_device(device, option="device")
        folder = check_folder(folder)
        there = Collection.load(folder)
        if (folder / RECORD).exists():
            raise AmesError(f"{folder}: made by ames index, which updates it too; Retriever.open opens it")
        if model is None:  # what is installed may have changed since
            model = default_model() if there is None else there.model
        found, photos = load(model), list_photos(images, apart=beside(folder))
        wanted = plan_collection(found, model, digest(photos), fusion, {**options, "device": device})
        if there is not None:
            there.check_same(folder, wanted)
            check_made_by(folder, found, factory)
        factory = factory or default_factory(len(photos.names))
        with work_folder(folder, finished=there is not None) as work:
            if there is None:
                extractor = checked_extractor(wanted, found, factory)
                done = make_database(folder, photos, wanted, found, factory, work, extractor)
                for line in done.summary().splitlines()[1:]:
                    log.warning("%s", line)
                wanted.save(folder)
        return cls.open(folder, device=device)

    @classmethod
    def open(
        cls,
        folder: Path | str,
        model: str | Path | Similarity | None = None,
        *,
        fusion: Fusion | None = None,
        device: str = "cpu",
        precision: str = "fp32",
        lanes: int | None = None,
        cascade: str | Path | None = None,
    ) -> Retriever:
        """Open a collection that ``build`` made, or any database (``ames compress``) with its model.

        fusion: None: what the collection was built with, or what the model brings. Of a query, as many local
        descriptors are used as its model is used with (``ames models``), else 600. precision, lanes: as in
        ``ames.reranking.scorer.ComputeConfig``. cascade: a name of conf/cascades, or a file, whose stages
        re-rank (docs/chains.md). AmesError where a model did not make the database.
        """
        folder = check_folder(folder)
        built = Collection.load(folder)
        if built is None and folder.with_name(folder.name + BUILDING).is_dir():
            raise AmesError(
                f"{folder}: its building goes on, or was interrupted: call the same ames index, or "
                "Retriever.build, again"
            )
        database = Database(folder)
        if model is None and built is None:
            raise AmesError(f"{folder}: not made by Retriever.build: give the model of the database")
        if built is not None:
            model = built.model if model is None else model
            fusion = fusion or built.fusion
            if model == built.model and Path(built.model).suffix in FILES and not Path(built.model).exists():
                raise AmesError(f"{folder}: its model is no longer at {built.model}: give model=PATH")
            built.check_embedders()
        entry = MODELS.get(str(model))
        query = built.query_desc_num if built is not None else query_count(entry)
        reranker = Reranker(
            model,  # type: ignore[arg-type]  # one of them is given
            fusion,
            device=device,
            precision=precision,
            desc_num=(query, max(database.slots, 1)),
            lanes=lanes,
        )
        stages = None
        if cascade is not None:
            from ames.retrieval.stages import Stages

            stages = Stages.open(cascade, database, device=device, precision=precision, lanes=lanes)
        if built is None:
            return cls(database, reranker, stages=stages)
        config, query_config = (replace(x, device=device) for x in (built.extraction, built.query_extraction))
        return cls(database, reranker, config=config, query_config=query_config, stages=stages)

    def add(self, photos: Path | str | Sequence[Path | str]) -> int:
        """Add a folder of photos, a photo, or several, all or none; return how many.

        Names are paths below the folder, or the paths as given. Photos whose names the collection has already
        are left as they are, so that a folder that has grown is added again as a whole. AmesError names a
        photo that cannot be read. Both this and ``delete`` raise it where ``ames index`` made the collection.
        """
        from ames.database.build import append
        from ames.extraction.pipeline import NothingReadable
        from ames.retrieval.photos import STEM, extract_source, list_photos

        self._check_changeable()
        config, found = self._photos_config(), list_photos(photos)
        known = set(self.database.names)
        new = [name for name in found.names if name not in known]
        if len(new) < len(found.names):
            log.info("%d photos are in the collection already, by name", len(found.names) - len(new))
        if not new:
            return 0
        extractor = build_extractor(config)
        check_features(self.database.path, self.database.provenance, extractor.provenance)
        with TemporaryDirectory() as work:
            try:
                source, done = extract_source(replace(found, names=new), extractor, Path(work) / STEM)
            except NothingReadable as error:
                raise AmesError(f"{error}; nothing was added") from error
            for name, why in done.unreadable.items():
                raise AmesError(f"{name}: {why}; nothing was added")
            added = append(source, self.reranker.model, self.database.path, device=config.device)
        self._reopen()
        return added

    def delete(self, names: str | Path | Iterable[str | Path]) -> int:
        """Delete photos by name; return how many. AmesError for a name that the collection does not have."""
        from ames.database.writer import writing

        wanted = [names] if isinstance(names, (str, Path)) else names
        if not isinstance(wanted, Iterable) or not all(isinstance(x, (str, Path)) for x in wanted):
            raise AmesError("names to delete are text: give a name, or a list of names")
        self._check_changeable()
        with writing(self.database.path) as writer:
            gone = writer.delete([str(name) for name in wanted])
        self._reopen()
        return gone

    def _check_changeable(self) -> None:
        if self.root is not None:  # the next ``ames index`` would take the change back
            raise AmesError(
                f"{self.database.path}: follows the photos in {self.root}: change them there, and index them "
                "again"
            )

    def __len__(self) -> int:
        return len(self.database)

    def refresh(self) -> None:
        """Read the collection again, as changes of other processes left it; model and extractor are kept.

        AmesError where the folder holds a database of another model; this collection stays as it was then.
        """
        database = Database(self.database.path)
        database.check_model(self.reranker.model)
        self._take(database)

    def _reopen(self) -> None:
        self._take(Database(self.database.path))

    def _take(self, database: Database) -> None:
        index = open_index(database)
        self.database, self._index = database, index
        for name in ("_known", "root"):
            self.__dict__.pop(name, None)

    @cached_property
    def root(self) -> Path | None:
        """The folder of the photos, which ``ames index`` records; None for other collections."""
        record = PhotoRecord.load(self.database.path / RECORD)
        return None if record is None else record.root

    def photo(self, name: str) -> Path:
        """Return the file of a photo of the collection. AmesError for another name, and without ``root``."""
        if self.root is None:
            raise AmesError(f"{self.database.path}: not made by ames index, so its photos may be anywhere")
        if name not in self._known:
            raise AmesError(f"{self.database.path}: holds no photo {name!r}")
        return self.root / name

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.database.names)

    # ---- search -----------------------------------------------------------------------------------

    def search(
        self,
        photo: Photo | ImageFeatures,
        k: int = 10,
        *,
        box: Box | None = None,
        num_rerank: int | None = None,
        budget_ms: float | None = None,
    ) -> Hits:
        """Return the best ``k`` photos for a query, best first, with names and fused scores.

        photo: a path, an array uint8 [H, W, 3] RGB, a PIL image, or an ``Extractor``'s features of one photo.
        box: x1, y1, x2, y2 in pixels of the upright photo: what is searched for. num_rerank: photos of the
        global search that are re-ranked (None: 100, or as many as the cascade takes); budget_ms: of the
        re-ranking, as ``Reranker.rank`` has it. A query without features finds nothing. A cascade takes
        neither of the two, and gives as many hits as its last stage takes at most.
        """
        num_rerank = self._candidates(k, num_rerank, budget_ms)
        if box is not None and isinstance(photo, ImageFeatures):
            raise AmesError("box: features have none; give the photo")
        features = photo if isinstance(photo, ImageFeatures) else self.extract(photo, box)
        if features.backbone is not None or features.space is not None:  # else nobody knows
            self.database.check_space(features.space, "the query")
        if features.vector is None or np.ndim(features.vector) != 1:
            raise AmesError("search takes the features of one photo, with its global vector")
        found = self._index.search(np.asarray(features.vector)[None], num_rerank)
        there = found.ids[0] >= 0
        if not there.any():
            return Hits([], 0)
        ids, similarities = found.ids[0][there], found.similarities[0][there]
        if self.stages is not None:
            hits = self.stages.rank(features, self.database, ids, similarities, k)
        else:
            hits = self.reranker.rank(features, self.database, similarities, k, ids=ids, budget_ms=budget_ms)
        named = (replace(hit, id=int(hit.id), name=self.database.names[hit.id]) for hit in hits)
        return Hits(named, hits.scored)

    def search_features(
        self,
        vectors: np.ndarray | Vectors,
        queries: LocalFeatures,
        *,
        k: int = 10,
        num_rerank: int | None = None,
    ) -> Shortlist:
        """Return the best ``k`` images of each query, with fused scores; ``database.names`` has the names of
        the ids. All descriptors are used.

        vectors: global, float32 [Q, G], or ``Vectors`` of a file, whose embedder's space is checked, too.
        queries: local descriptors [Q, N, D], or the model's codes of them (uint8, ``ames extract --pack``). A
        single image, [G] and [N, D], gives one row. A query without keypoints (a zero vector) finds nothing.
        AmesError if numbers of queries or widths differ, or a query is not finite.
        """
        num_rerank = self._candidates(k, num_rerank, None)
        if not isinstance(vectors, np.ndarray) and hasattr(vectors, "space"):
            self.database.check_space(vectors.space, vectors.sources[0])
            vectors = vectors.all()
        vectors, queries = _batch(np.asarray(vectors), queries)
        if self.reranker.model.reads_vector and queries.vector is None:
            queries = replace(queries, vector=torch.from_numpy(np.asarray(vectors, np.float32)))
        found: Shortlist = self._index.search(vectors, num_rerank)
        assert self.reranker.fusion is not None
        if self.stages is not None or isinstance(self.reranker.scorer, ListScorer):
            return self._one_by_one(found, queries, k)
        return rerank_by(found, self._logits(self.reranker.scorer, found, queries), self.reranker.fusion, k)

    def _logits(self, scorer: PairScorer, found: Shortlist, queries: LocalFeatures) -> np.ndarray:
        """Logits float32 [Q, M] of a shortlist; -inf where there is no entry. An image is read once."""
        rows, columns = np.nonzero(found.ids >= 0)
        images, places = np.unique(found.ids[rows, columns], return_inverse=True)
        logits = np.full(found.ids.shape, -np.inf, np.float32)
        with naming(lambda query: f"the local descriptors of query {query}"):
            encoded = scorer.queries(queries)
        if len(images):
            scores = scorer.score(encoded, self.database.read(images), rows, places)
            if not np.isfinite(scores).all():
                raise AmesError(f"{self.database.path}: a score is not finite: the model's weights are not")
            logits[rows, columns] = scores
        return logits

    def _candidates(self, k: int, num_rerank: int | None, budget_ms: float | None) -> int:
        """Return how many candidates the first search is asked for."""
        if self.stages is None:
            wanted = NUM_RERANK if num_rerank is None else num_rerank
            _check_counts(k, wanted)
            return wanted
        if num_rerank is not None or budget_ms is not None:
            raise AmesError("a cascade says how many candidates it takes: leave num_rerank and budget_ms out")
        _check_counts(k, max(self.stages.last, k))  # there are as many hits as the last stage takes
        return self.stages.first

    def _one_by_one(self, found: Shortlist, queries: LocalFeatures, k: int) -> Shortlist:
        ids = np.full((len(found.ids), k), -1, np.int64)
        scores = np.full((len(found.ids), k), -np.inf, np.float32)
        for row in range(len(ids)):
            there = found.ids[row] >= 0
            if there.any():
                entries = found.ids[row][there]
                similarities = found.similarities[row][there]
                if self.stages is not None:
                    hits = self.stages.rank(queries[row], self.database, entries, similarities, k)
                else:
                    hits = self.reranker.rank(queries[row], self.database, similarities, k, ids=entries)
                ids[row, : len(hits)] = [hit.id for hit in hits]
                scores[row, : len(hits)] = [hit.score for hit in hits]
        return Shortlist(ids, scores)

    def extract(self, photo: Photo, box: Box | None = None) -> ImageFeatures:
        """Return the features of a photo as a query of this collection; box: as of ``search``."""
        if self._extractor is None:
            config = replace(self._photos_config(query=True), pack=None, workers=0)  # a query is not packed
            extractor = build_extractor(config)
            check_features(self.database.path, self.database.provenance, extractor.provenance)
            self._extractor = extractor
        return extract_photos(self._extractor, [photo], [box])[0]

    def _photos_config(self, *, query: bool = False) -> ExtractionConfig:
        config = self.query_config if query else self.config
        if config is None:
            raise AmesError(
                f"{self.database.path}: not made by Retriever.build, and nothing says how photos are read: "
                "search with the features of an Extractor"
            )
        return config


def _check_counts(k: int, num_rerank: int) -> None:
    for name, value in (("k", k), ("num_rerank", num_rerank)):
        if not isinstance(value, Integral):
            raise AmesError(f"{name} {value!r} is not a whole number")
    if not 1 <= k <= num_rerank:
        raise AmesError(f"k {k} is outside 1 ... {num_rerank}, the number that is re-ranked")


def _batch(vectors: np.ndarray, queries: LocalFeatures) -> tuple[np.ndarray, LocalFeatures]:
    """[Q, G] and [Q, N, D]; a single image becomes a batch of one. Bytes are codes."""
    vectors = np.asarray(vectors)
    if not isinstance(queries, LocalFeatures):
        raise AmesError(f"local descriptors are a {type(queries).__name__}: give LocalFeatures")
    vectors = vectors[None] if vectors.ndim == 1 else vectors
    queries = queries.map(lambda x: x[None]) if queries.valid.ndim == 1 else queries
    if vectors.ndim != 2 or queries.valid.ndim != 2:
        raise AmesError(
            f"global vectors are {list(vectors.shape)}, local descriptors {list(queries.descriptors.shape)}; "
            "expected [Q, G] and [Q, N, D]"
        )
    if len(vectors) != len(queries.valid):
        raise AmesError(
            f"{len(vectors)} global vectors, but local descriptors of {len(queries.valid)} images: give both "
            "of the same queries"
        )
    return vectors, replace(queries, coded=queries.coded or queries.descriptors.dtype == torch.uint8)
