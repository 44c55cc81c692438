"""Search and explain: everything that needs the model, called by one thread."""

from __future__ import annotations

import logging
import math
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ames.backbones.base import ImageFeatures
from ames.datasets.images import UnreadableImage
from ames.errors import AmesError, first_line
from ames.extraction.preprocessing import Box, whole_pixels
from ames.reranking.reranker import Hit
from ames.retrieval.collection import NAME as COLLECTION
from ames.retrieval.retriever import NUM_RERANK, Retriever
from ames.web.decoding import Task
from ames.web.refusals import Refusal
from ames.web.shelf import Shelf, photo_id, stamp
from ames.web.worker import Worker

MAX_PIXELS = 64_000_000  # of an upload; photos of the collection may have as many as ames index takes
LINKS = 50  # of an explanation
_QUERIES = 64  # whose features are kept for explanations, about 300 kB each

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Query:
    """What is searched for: the bytes of an upload, or the id of a photo of the collection; and its part."""

    data: bytes | None
    photo: str | None
    box: Box | None = None


class _Kept(NamedTuple):
    features: ImageFeatures
    photo: str | None


class Engine:
    """A collection and its one model. All methods but ``shelf`` belong to one thread.

    AmesError where the folder holds no collection that ``ames index`` made.
    """

    def __init__(self, folder: Path | str, *, device: str = "cpu", worker: Worker | None = None) -> None:
        self.folder, self._device = Path(folder), device
        self.worker = worker or Worker()
        self._queries: OrderedDict[str, _Kept] = OrderedDict()
        self._open()

    def _open(self) -> None:
        self._stamp = stamp(self.folder)
        self._made = _content(self.folder)
        self.retriever = Retriever.open(self.folder, device=self._device)
        self.shelf = Shelf.of(self.retriever)

    def warm(self) -> None:
        """Load what the first search needs."""
        self.worker.start()
        self.retriever.extract(np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8))

    def refresh(self) -> bool:
        """Open the collection again if it changed on disk; return whether it did.

        While its files cannot be read, what was open stays open.
        """
        now = stamp(self.folder)
        if now is None or now == self._stamp:
            return False
        try:
            if _content(self.folder) == self._made:
                self.retriever.refresh()
                self._stamp, self.shelf = now, Shelf.of(self.retriever)
            else:
                self._queries.clear()
                self._open()
        except (AmesError, OSError) as error:
            log.warning("%s: changed, and cannot be read: %s", self.folder, first_line(error))
            self._stamp = now  # said once
            return False
        log.info("%s: changed; %d photos now", self.folder, len(self.shelf.names))
        return True

    def search(self, query: Query, top: int) -> dict[str, Any]:
        """Return the best ``top`` photos with their scores, and a handle of the query for ``explain``."""
        self.refresh()
        features, size = self._features(query)
        hits = self.retriever.search(features, top, num_rerank=max(top, NUM_RERANK))
        handle = secrets.token_urlsafe(12)
        self._queries[handle] = _Kept(features, query.photo)
        while len(self._queries) > _QUERIES:
            self._queries.popitem(last=False)
        return {
            "query": handle,
            "height": size[0],
            "width": size[1],
            "scored": hits.scored,
            "total": len(self.shelf.names),
            "hits": [_row(rank, hit) for rank, hit in enumerate(hits, 1)],
        }

    def explain(self, handle: str, photo: str) -> Mapping[str, Any]:
        """Return what ties a query and a photo. Refusal: 410 where the query is no longer known."""
        from ames.retrieval.explanation import explain

        self.refresh()
        kept = self._queries.get(handle)
        if kept is None:
            raise Refusal(410, "this search is no longer known; search again")
        self._queries.move_to_end(handle)
        found, _ = self._features(Query(None, photo))
        counts = self.retriever.reranker.desc_num
        assert counts is not None  # Retriever.open gives them
        made = explain(kept.features, found, self.retriever.reranker.model, desc_num=counts, top=LINKS)
        return {"photo": photo, "name": self.shelf.name(photo)} | made.as_dict()

    def _features(self, query: Query) -> tuple[ImageFeatures, tuple[int, int]]:
        """Features of a query, and the height and width of its upright photo."""
        path = None if query.photo is None else str(self.shelf.path(query.photo))
        config = self.retriever.config
        limit = MAX_PIXELS if path is None or config is None else config.max_pixels
        image = self.worker.pixels(Task(query.data, path, None, limit))
        height, width = image.shape[:2]
        if query.box is not None:
            try:
                whole_pixels(query.box, height, width)
            except UnreadableImage as error:
                raise Refusal(400, f"box: {str(error).removeprefix('its box ')}") from error
        return self.retriever.extract(image[..., ::-1], query.box), (height, width)


def _row(rank: int, hit: Hit) -> dict[str, Any]:
    """A result as JSON; scores that a model does not give are null."""
    name = str(hit.name)
    scores = {"score": hit.score, "global": hit.global_, "local": hit.local}
    finite = {key: x if x is not None and math.isfinite(x) else None for key, x in scores.items()}
    return {"rank": rank, "id": photo_id(name), "name": name} | finite


def _content(folder: Path) -> bytes:
    """What the collection was made of and how, as its file says."""
    try:
        return (folder / COLLECTION).read_bytes()
    except OSError:
        return b""
