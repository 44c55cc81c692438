"""What a collection of photos was made of, and how: a small file beside its database."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ames.descriptors.provenance import Provenance
from ames.errors import AmesError
from ames.extraction.config import ExtractionConfig
from ames.io.atomic import atomic_file, atomic_path
from ames.io.claims import parsed
from ames.io.hashing import sha256
from ames.reranking.fusion import Fusion

NAME = "retriever.json"  # beside the database's files
# Endings of what is beside a collection: files of a building or an update, until it is whole; the lock of
# ames index; scores of ames duplicates, until all are known.
BUILDING, LOCK, SCORING = ".building", ".indexing", ".duplicates"
_MACHINE = ("device", "workers", "batch_size", "overwrite")  # options that leave the features as they are
QUERY, GALLERY = "query", "gallery"


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What a collection was built of. model: a name, or a checkpoint's path. extraction: how photos are read.
    desc_num: local descriptors stored per image; query_desc_num: used of a query. images: digest of the
    names that it was built with. fusion: None: what the model brings.

    extraction.embedder gives the photos' vectors; query_embedder those of queries (None: the same file). The
    folder holds copies, so that no training changes what a collection is asked with. embedders: SHA-256 of
    the files, by side; empty without any.
    """

    model: str
    extraction: ExtractionConfig
    desc_num: int
    query_desc_num: int
    images: str
    fusion: Fusion | None = None
    query_embedder: Path | None = None
    embedders: dict[str, str] = field(default_factory=dict)

    @property
    def query_extraction(self) -> ExtractionConfig:
        """How a query is read: as a photo, but for the side of the embedder."""
        if self.extraction.embedder is None:
            return self.extraction
        return replace(self.extraction, embedder=self.query_embedder or self.extraction.embedder, side=QUERY)

    def save(self, folder: Path) -> None:
        """Write it into the database's folder, after copies of its embedders; atomic."""
        for side, path in self._files().items():
            copy = folder / _copied(side, path)
            if path != copy:
                with atomic_path(copy) as temporary:
                    shutil.copyfile(path, temporary)
                _check_digest(copy, self.embedders[side], "has changed since the collection was begun")
        with atomic_file(folder / NAME) as file:
            file.write(json.dumps(self._plain(), indent=1).encode())

    @classmethod
    def load(cls, folder: Path) -> Collection | None:
        """Read a folder's; None where it has none. AmesError for a damaged one."""
        path = folder / NAME
        if not path.exists():
            return None
        try:
            content = parsed(path.read_bytes())
            options = content["extraction"]
            options |= {key: Path(options[key]) for key in ("pack", "detector") if options[key]}
            if options.get("embedder"):
                options["embedder"] = folder / Path(options["embedder"]).name
            if content.get("query_embedder"):
                content["query_embedder"] = folder / Path(content["query_embedder"]).name
            options["scales"] = tuple(options["scales"]) if options["scales"] else None
            fusion = None if content["fusion"] is None else Fusion(**content["fusion"])
            made = {"extraction": ExtractionConfig(**options, workers=0), "fusion": fusion}
            found = cls(**content | made)
            if not (isinstance(found.model, str) and isinstance(found.query_desc_num, int)):
                raise TypeError("model or query_desc_num")
            return found
        except OSError as error:
            raise AmesError(f"{path}: cannot be read ({error.strerror or error})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise AmesError(f"{path}: damaged, or not of this library; build the collection again") from error

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits of all of it."""
        return hashlib.sha256(json.dumps(self._plain(), sort_keys=True).encode()).hexdigest()[:8]

    def check_same(self, folder: Path, wanted: Collection) -> None:
        """AmesError unless a folder's collection, this one, is what ``wanted`` would make."""
        there, now = self._plain(), wanted._plain()
        for content in (there, now):  # where the files are is no difference
            content["extraction"].pop("embedder", None)
        for key, what in _DIFFERENCES.items():
            if there.get(key) != now.get(key):
                raise AmesError(f"{folder}: holds a collection that was built with {what}; give a new folder")

    def check_embedders(self) -> None:
        """AmesError where a file of an embedder is not there, or is another one."""
        for side, path in self._files().items():
            if not path.is_file():
                raise AmesError(
                    f"{path}: missing; the collection is not whole: put it back, or build it again"
                )
            _check_digest(
                path, self.embedders[side], "is not the embedder that the collection was built with"
            )

    def _files(self) -> dict[str, Path]:
        """The embedders' files by side; one with both sides is the gallery's."""
        found = {GALLERY: self.extraction.embedder, QUERY: self.query_embedder}
        return {side: path for side, path in found.items() if path is not None}

    def _plain(self) -> dict[str, Any]:
        content = asdict(self)
        extraction = content["extraction"]
        for key in _MACHINE:
            del extraction[key]
        if not self.embedders:  # as earlier versions wrote it, which read it, too
            for part, keys in (
                (extraction, ("embedder", "side")),
                (content, ("query_embedder", "embedders")),
            ):
                for key in keys:
                    del part[key]
            return json.loads(json.dumps(content, default=str))
        names = {side: _copied(side, path) for side, path in self._files().items()}
        extraction["embedder"], content["query_embedder"] = names[GALLERY], names.get(QUERY)
        return json.loads(json.dumps(content, default=str))


_DIFFERENCES = {
    "model": "another model",
    "embedders": "another embedder",
    "extraction": "other extraction options",
    "desc_num": "another desc_num",
    "query_desc_num": "another query_desc_num",
    "fusion": "another fusion",
    "images": "other photos (open it and add some)",
}


def _copied(side: str, path: Path) -> str:
    """The name of a copy, which tells the size of some networks' input (``ames.embedders.checkpoints``)."""
    return f"{side}-{path.name.removeprefix(f'{side}-')}"


def _check_digest(path: Path, wanted: str, otherwise: str) -> None:
    if sha256(path) != wanted:
        raise AmesError(f"{path}: {otherwise}; build it again in a new folder")


def check_features(folder: Path, made: Mapping[str, Any], now: Provenance) -> None:
    """AmesError where photos would be described otherwise than those of a collection, by the record ``made``:
    an earlier version of the library had other weights or settings.
    """
    other = Provenance.from_dict(made).other_features(now)
    if made and other is not None:
        raise AmesError(f"{folder}: its photos were described by other features ({other}); build it again")


def beside(folder: Path) -> list[Path]:
    """Return a collection's folder, and what the library may have put beside it, resolved."""
    place = folder.parent.resolve()
    return [place / f"{folder.name}{ending}" for ending in ("", BUILDING, LOCK, SCORING)]


def check_folder(folder: Path | str) -> Path:
    """Return a collection's folder; AmesError for what names none."""
    if not isinstance(folder, (str, Path)):
        raise AmesError(f"folder is a {type(folder).__name__}: give a path")
    path = Path(folder)
    if not path.name or path.name == "..":
        raise AmesError(f"folder {str(folder)!r}: give the name of a folder, such as index/")
    if path.exists() and not path.is_dir():
        raise AmesError(f"{path}: a file; a collection is a folder")
    return path
