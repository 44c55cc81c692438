"""A collection of photos: what it was made of and how, and the descriptor files that lead to its database."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ames.database.build import Source
from ames.datasets.finding import find_images
from ames.datasets.lists import list_digest
from ames.descriptors.local import DescriptorFile, GlobalFile
from ames.errors import AmesError
from ames.extraction.config import ExtractionConfig
from ames.extraction.factory import build_extractor
from ames.extraction.pipeline import Extraction, Images, plan_output, run
from ames.io.atomic import atomic_file
from ames.io.claims import parsed

NAME = "retriever.json"  # beside the database's files
_MACHINE = ("device", "workers", "batch_size", "overwrite")  # options that leave the features as they are

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What a collection was built of. model: a name, or a checkpoint's path. extraction: how photos are read.
    desc_num: local descriptors stored per image; query_desc_num: used of a query. images: digest of the
    names that it was built with.
    """

    model: str
    extraction: ExtractionConfig
    desc_num: int
    query_desc_num: int
    images: str

    def save(self, folder: Path) -> None:
        """Write it into the database's folder; atomic."""
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
            options["scales"] = tuple(options["scales"]) if options["scales"] else None
            return cls(**content | {"extraction": ExtractionConfig(**options, workers=0)})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AmesError(f"{path}: damaged, or not of this library; build the collection again") from error

    def check_same(self, folder: Path, wanted: Collection) -> None:
        """AmesError unless a folder's collection, this one, is what ``wanted`` would make."""
        there, now = self._plain(), wanted._plain()
        for key, what in _DIFFERENCES.items():
            if there[key] != now[key]:
                raise AmesError(f"{folder}: holds a collection that was built with {what}; give a new folder")

    def _plain(self) -> dict[str, Any]:
        content = asdict(self)
        for key in _MACHINE:
            del content["extraction"][key]
        return json.loads(json.dumps(content, default=str))


_DIFFERENCES = {
    "model": "another model",
    "extraction": "other extraction options",
    "desc_num": "another desc_num",
    "query_desc_num": "another query_desc_num",
    "images": "other photos (open it and add some)",
}


def list_photos(photos: Path | str | Sequence[Path | str]) -> Images:
    """Return the photos in a folder by their paths below it, or those that are named, as they are named."""
    if not isinstance(photos, (str, Path)):
        if not photos:
            raise AmesError("no photos: give at least one")
        return Images(Path(), [str(path) for path in photos])
    root = Path(photos)
    if not root.is_dir():
        return Images(Path(), [str(photos)])
    found = find_images(root)
    for note in found.notes():
        log.warning("%s", note)
    return Images(root, found.names)


def digest(images: Images) -> str:
    """Return what tells a list of photos from another."""
    return list_digest(images.names)


def extract_source(images: Images, config: ExtractionConfig, stem: Path) -> tuple[Source, Extraction]:
    """Extract photos to the files STEM_*.hdf5, and return what a database is made of; resumes.

    AmesError for a backbone without a global vector.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    extractor = build_extractor(config)
    if extractor.global_dim is None:
        raise AmesError(f"backbone {extractor.name} gives no global vector: a collection needs one")
    done = run(images, extractor, plan_output(stem, images, extractor))
    local, vectors = done.files
    return Source(DescriptorFile(local), GlobalFile(vectors)), done
