"""From photos to what a database is made of: the files that are extracted on the way."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ames.database.build import Source
from ames.datasets.finding import find_images
from ames.datasets.lists import list_digest
from ames.descriptors.local import DescriptorFile, GlobalFile
from ames.errors import AmesError
from ames.extraction.config import ExtractionConfig
from ames.extraction.factory import build_extractor
from ames.extraction.pipeline import Extraction, Images, plan_output, run

log = logging.getLogger(__name__)


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
