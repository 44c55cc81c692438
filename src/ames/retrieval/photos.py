"""From photos to what a database is made of: the files that are extracted on the way."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ames.database.build import Source, check_storable, compress
from ames.database.manifest import NAME as MANIFEST
from ames.database.store import Database
from ames.database.writer import check_free
from ames.datasets.finding import find_images
from ames.datasets.lists import list_digest
from ames.descriptors.local import DescriptorFile, GlobalFile
from ames.errors import AmesError
from ames.extraction.base import BaseExtractor
from ames.extraction.factory import build_extractor
from ames.extraction.pipeline import Extraction, Images, plan_output, run
from ames.global_search.codes import check_factory
from ames.models.load import Loaded
from ames.retrieval.collection import BUILDING, Collection

log = logging.getLogger(__name__)
STEM = "photos"  # what the names of the files begin with
_MANY = 10_000


def list_photos(photos: Path | str | Sequence[Path | str], *, apart: Sequence[Path] = ()) -> Images:
    """Return the photos in a folder by their paths below it, or those that are named, as they are named.

    apart: as of ``find_images``, for a folder.
    """
    if not isinstance(photos, (str, Path)):
        listed = list(photos) if isinstance(photos, Iterable) else [photos]
        if not listed:
            raise AmesError("no photos: give at least one")
        for path in listed:
            if not isinstance(path, (str, Path)):
                raise AmesError(f"a photo of a collection is a file: give paths, not a {type(path).__name__}")
        names = [str(path) for path in listed]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise AmesError(f"{twice}: listed twice; each photo has one name")
        return Images(Path(), names)
    root = Path(photos)
    if not root.is_dir():
        return Images(Path(), [str(photos)])
    found = find_images(root, apart=apart)
    for note in found.notes():
        log.warning("%s", note)
    return Images(root, found.names)


def digest(images: Images) -> str:
    """Return what tells a list of photos from another."""
    return list_digest(images.names)


def extract_source(images: Images, extractor: BaseExtractor, stem: Path) -> tuple[Source, Extraction]:
    """Extract photos to files whose names begin with STEM, and return what a database is made of; resumes.

    What an earlier call made otherwise, such as by another version of the library, has other names.
    """
    plan = plan_output(stem, images, extractor)
    made = json.dumps(plan.provenance.to_dict(), sort_keys=True).encode()
    plan = replace(plan, out=stem.with_name(f"{stem.name}-{hashlib.sha256(made).hexdigest()[:8]}"))
    done = run(images, extractor, plan)
    local, vectors = done.files
    return Source(DescriptorFile(local), GlobalFile(vectors)), done


def stem_in(work: Path, digest: str, extractor: BaseExtractor) -> Path:
    """Return what the names of an extraction's files begin with. digest: of the photos.

    Files that an interrupted call has left of other photos, or of another version's features, have others.
    """
    made = json.dumps([digest, extractor.provenance.to_dict()], sort_keys=True)
    return work / f"{STEM}-{hashlib.sha256(made.encode()).hexdigest()[:8]}"


def default_factory(count: int) -> str:
    """The FAISS code of global vectors for so many photos.

    The range of a code that few vectors were fitted on does not hold those that are added later.
    """
    return "SQ4" if count >= _MANY else "SQfp16"


def checked_extractor(wanted: Collection, made_by: Loaded, factory: str) -> BaseExtractor:
    """Return what extracts photos for a collection. Nothing is written.

    AmesError for a backbone without a global vector, or with fewer descriptors than are to be stored, a FAISS
    factory that cannot code the vector, and a model whose codes a database cannot hold.
    """
    extractor = build_extractor(wanted.extraction)
    if extractor.global_dim is None:
        raise AmesError(f"backbone {extractor.name} gives no global vector: a collection needs one")
    if wanted.desc_num > extractor.rows.slots:
        raise AmesError(
            f"desc_num {wanted.desc_num}: {extractor.name} gives {extractor.rows.slots} descriptors per "
            "photo at most; store no more of them"
        )
    check_factory(factory, extractor.global_dim)
    check_storable(made_by.model, extractor.local_dim)
    return extractor


def check_made_by(folder: Path, made_by: Loaded, factory: str | None) -> None:
    """AmesError where a whole collection was made with other weights, or another factory (None: any)."""
    database = Database(folder)
    database.check_model(made_by.model)
    made = database.manifest.factory
    if factory is not None and factory != made:
        raise AmesError(f"{folder}: holds a collection that was built with factory {made}; give a new folder")


def make_database(
    folder: Path,
    photos: Images,
    wanted: Collection,
    made_by: Loaded,
    factory: str,
    work: Path,
    extractor: BaseExtractor,
) -> Extraction:
    """Extract photos to files in ``work``, and make a database of them; resumes."""
    source, done = extract_source(photos, extractor, stem_in(work, wanted.digest, extractor))
    compress(
        source,
        made_by.model,
        folder,
        desc_num=wanted.desc_num,
        factory=factory,
        model_name=made_by.name,
        device=wanted.extraction.device,
    )
    return done


@contextmanager
def work_folder(folder: Path, *, finished: bool) -> Iterator[Path]:
    """The folder beside a collection that holds its extraction; it goes when all is done, and stays after an
    interruption. finished: only what an interrupted call has left is removed.

    AmesError where the collection's folder, or this one, holds other files, before anything is written.
    """
    work = folder.with_name(folder.name + BUILDING)
    if not finished and folder.is_dir() and not (folder / MANIFEST).exists():
        check_free(folder)
    there = [path.name for path in work.iterdir()] if work.is_dir() else []
    # A dot begins the name of a file that was not finished (ames.io.atomic).
    strangers = [name for name in there if not name.removeprefix(".").startswith(STEM)]
    if strangers:
        raise AmesError(f"{work}: holds other files ({strangers[0]}): move them, or give another folder")
    try:
        if not finished:
            work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AmesError(f"{work}: cannot be made a folder ({error.strerror or error})") from error
    try:
        yield work
    except AmesError:
        if work.is_dir() and not any(work.iterdir()):
            work.rmdir()
        raise
    if work.is_dir():
        for path in work.iterdir():
            path.unlink()
        work.rmdir()
