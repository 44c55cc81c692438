"""The photos of a collection as the pages name them: an immutable snapshot, replaced as a whole."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ames.database import manifest
from ames.errors import AmesError
from ames.retrieval import collection, photo_record
from ames.retrieval.retriever import Retriever
from ames.web.refusals import Refusal

_FILES = (manifest.NAME, photo_record.NAME, collection.NAME)


@dataclass(frozen=True)
class Shelf:
    """root: folder of the photos. names: of all, in the order of the database. ids: the id of each, and its
    place in that order. about: what the page says of the collection."""

    root: Path
    names: list[str]
    ids: dict[str, int]
    about: dict[str, Any]

    @classmethod
    def of(cls, retriever: Retriever) -> Shelf:
        """AmesError where nobody knows where the photos are."""
        database = retriever.database
        if retriever.root is None:
            raise AmesError(f"{database.path}: not made by ames index, so its photos may be anywhere")
        about = {
            "model": Path(retriever.reranker.name).name,
            "photos": len(database),
            "bytes_per_photo": round(database.bytes_per_image),
            "generation": database.manifest.generation,
        }
        ids = {photo_id(name): place for place, name in enumerate(database.names)}
        return cls(retriever.root, database.names, ids, about)

    def name(self, photo: str) -> str:
        """Return the name of an id; Refusal (404) where there is no such photo."""
        place = self.ids.get(photo)
        if place is None:
            raise Refusal(404, "the collection has no such photo")
        return self.names[place]

    def path(self, photo: str) -> Path:
        """Return the file of an id; Refusal (404) where there is no such photo."""
        return self.root / self.name(photo)

    def page(self, number: int, size: int) -> dict[str, Any]:
        """Return page ``number``, from 1 on, of ``size`` photos; Refusal (404) where there is none."""
        pages = max(1, -(-len(self.names) // size))
        if number > pages:
            raise Refusal(404, f"there is no page {number}: the collection has {pages}")
        names = self.names[(number - 1) * size : number * size]
        photos = [{"id": photo_id(name), "name": name} for name in names]
        return {"page": number, "pages": pages, "total": len(self.names), "photos": photos}


def photo_id(name: str) -> str:
    """Return 16 hexadecimal digits: they stay a photo's own when the collection changes."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def stamp(folder: Path) -> tuple[Any, ...] | None:
    """Return what changes with the files of a collection; None while one of them is missing."""
    try:
        found = [(folder / name).stat() for name in _FILES]
    except OSError:
        return None
    return tuple((status.st_mtime_ns, status.st_size, status.st_ino) for status in found)
