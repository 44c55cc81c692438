"""A folder of photos and its collection: made, and brought up to date by the contents of the files.

The record beside the database names what the database holds, and of which contents. Photos that are being
added are noted before, in the folder that ends in ``BUILDING``. Whatever a crash interrupts, a photo of the
database that the record does not name is stale: the next call finishes what was noted, and drops the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ames.backbones.choice import check_installed
from ames.database.build import append
from ames.database.store import Database
from ames.database.writer import writing
from ames.datasets.images import UnreadableImage, read_image
from ames.datasets.lists import list_digest
from ames.errors import AmesError
from ames.extraction.config import ExtractionConfig
from ames.extraction.factory import build_extractor
from ames.extraction.pipeline import Images, NothingReadable
from ames.io.atomic import remove_leftovers
from ames.io.console import check_device
from ames.io.hashing import sha256
from ames.io.locks import locked
from ames.models.load import Loaded, load
from ames.models.registry import MODELS
from ames.reranking.fusion import Fusion
from ames.retrieval.changes import Changes
from ames.retrieval.collection import BUILDING, LOCK, Collection, beside, check_features, check_folder
from ames.retrieval.collection import NAME as COLLECTION
from ames.retrieval.photo_record import NAME, PhotoFile, PhotoRecord, Scan, decoders, scan
from ames.retrieval.photos import (
    STEM,
    check_made_by,
    checked_extractor,
    default_factory,
    extract_source,
    make_database,
    stem_in,
    work_folder,
)
from ames.retrieval.planning import default_model, plan_collection, plan_update

PENDING = f"{STEM}-pending.json"  # the record of photos that are being added
_SEGMENTS = 64  # of a database at most: each change adds one

log = logging.getLogger(__name__)


def index_photos(
    photos: Path | str,
    folder: Path | str,
    model: str | Path | None = None,
    *,
    fusion: Fusion | None = None,
    factory: str | None = None,
    device: str = "cpu",
    rehash: bool = False,
    **options: Any,
) -> Changes:
    """Make a collection in ``folder`` of the photos below ``photos``, or bring it up to date with them.

    New photos are added, deleted ones are dropped, and those whose contents changed are extracted again. A
    file of the same size and time of modification counts as unchanged, unless ``rehash``: then every file is
    read. model, fusion, factory and other options: as of ``Retriever.build``; of a collection that exists
    they are left out, or the same. A call that was interrupted resumes when it is called again.

    AmesError for a folder without images, and where ``folder`` holds anything but the collection of these
    photos; nothing is changed then.
    """
    root = Path(photos)
    if not root.is_dir():
        raise AmesError(f"{root}: no such folder of photos")
    check_device(device, option="device")
    folder = check_folder(folder)
    busy = "another process is indexing photos to it; wait for it to end"
    with locked(folder.with_name(folder.name + LOCK), folder, busy):
        for name in (NAME, COLLECTION):
            if folder.is_dir():
                remove_leftovers(folder / name)
        there = Collection.load(folder)
        options |= {"device": device}
        given = model or (default_model() if there is None else there.model)
        if there is None and str(given) in MODELS:
            check_installed(MODELS[str(given)].backbone)
        made_by = load(given)
        if there is None:
            wanted = plan_collection(made_by, given, "", fusion, options)
        else:
            there.check_embedders()
            wanted = plan_update(folder, there, made_by, model, fusion, options)
            check_made_by(folder, made_by, factory)
        return _Indexing(folder, root.resolve(), wanted, made_by).run(there is None, factory, rehash)


class _Indexing:
    """The steps of one call; after each, the files are a state that the next call understands."""

    def __init__(self, folder: Path, root: Path, wanted: Collection, made_by: Loaded) -> None:
        self.folder, self.root, self.wanted, self.made_by = folder, root, wanted, made_by
        self.work = folder.with_name(folder.name + BUILDING)
        self.apart = beside(folder)
        self.added: set[str] = set()
        self.decoders = decoders()
        self.seen: dict[str, tuple[int, int]] = {}  # size and time of files, before they were read

    def run(self, new: bool, factory: str | None, rehash: bool) -> Changes:
        """Finish what an earlier call began, then compare with the folder."""
        pending = self._record(self.work / PENDING)
        record = self._record(self.folder / NAME)
        if not new and record is None and pending is None:
            raise AmesError(
                f"{self.folder}: made by Retriever.build, which records no contents; give a new folder"
            )
        before = set(record.readable if record else ())
        with work_folder(self.folder, finished=not new):
            if new:
                record = self._begin(pending, factory)
            else:
                record = record or self._made({})
                record = self._add(record, pending.photos if pending else {})
            scanned = self._scan(record.photos, rehash=rehash and not new)
            record, deleted = self._drop(record, scanned)
            record = self._add(record, scanned.unknown(record))
            self._tidy()
        return self._changes(record, scanned, before, deleted)

    def _record(self, path: Path) -> PhotoRecord | None:
        """A record of this folder of photos. One whose folder no longer exists moves with it."""
        found = PhotoRecord.load(path)
        if found is None or found.root == self.root:
            return found
        if found.root.is_dir():
            raise AmesError(f"{self.folder}: holds the photos of {found.root}; give a new folder")
        if found.photos and not any(x.may_be(self.root / name) for name, x in found.photos.items()):
            raise AmesError(
                f"{self.folder}: holds the photos of {found.root}, which is not there now, and none of them "
                f"is in {self.root}; give a new folder"
            )
        log.warning("%s: the photos were in %s", self.folder, found.root)
        return replace(found, root=self.root)

    # ---- steps ------------------------------------------------------------------------------------

    def _scan(self, known: Mapping[str, PhotoFile], *, rehash: bool = False) -> Scan:
        found = scan(self.root, known, rehash=rehash, apart=self.apart)
        self.seen |= found.seen
        return found

    def _begin(self, pending: PhotoRecord | None, factory: str | None) -> PhotoRecord:
        """A new database of what an interrupted call noted; if that is gone, of what is there now."""
        if pending is not None:
            try:
                return self._build(pending, factory)
            except NothingReadable:
                log.debug("%s: none of %d photos can be read", self.folder, len(pending.photos))
        return self._build(PhotoRecord(self.root, self._scan({}).photos), factory)

    def _build(self, pending: PhotoRecord, factory: str | None) -> PhotoRecord:
        """A new database of all photos that were noted."""
        names = sorted(pending.photos)
        factory = factory or default_factory(len(names))
        wanted = replace(self.wanted, images=_digest(pending.photos))
        extractor = checked_extractor(wanted, self.made_by, factory)
        pending.save(self.work / PENDING)
        try:
            images = Images(self.root, names)
            done = make_database(self.folder, images, wanted, self.made_by, factory, self.work, extractor)
        except NothingReadable:
            (self.work / PENDING).unlink()
            raise
        wanted.save(self.folder)
        return self._settled(self._made({}), pending.photos, done.unreadable)

    def _drop(self, record: PhotoRecord, scanned: Scan) -> tuple[PhotoRecord, int]:
        """Delete what is gone or has other contents, and what no record names; return the number gone."""
        kept = {
            name: scanned.photos[name]
            for name, photo in record.photos.items()
            if name in scanned.photos and scanned.photos[name].sha256 == photo.sha256
        }
        held = set(Database(self.folder).names)
        again = record.decoders != self.decoders  # a library may have been installed since
        # A photo that was readable must be held: someone else may have deleted it.
        kept = {
            name: photo
            for name, photo in kept.items()
            if (name in held if photo.problem is None else not (again and self._problem(name) is None))
        }
        stale = sorted(held - {name for name, photo in kept.items() if photo.problem is None})
        left = self._made(kept)
        if PhotoRecord.load(self.folder / NAME) != left:
            left.save(self.folder / NAME)
        if stale:
            with writing(self.folder) as writer:
                writer.delete(stale)
        # Of a database whose record was made, and which was not changed yet, names are gone from the record.
        were = set(record.readable) | (held - record.photos.keys())
        return left, len(were - scanned.photos.keys())

    def _add(self, record: PhotoRecord, photos: Mapping[str, PhotoFile]) -> PhotoRecord:
        """Add photos, which are noted first; those that the database holds already were added before."""
        if not photos:
            return record
        PhotoRecord(self.root, dict(photos)).save(self.work / PENDING)
        database = Database(self.folder)
        held = set(database.names)
        names = sorted(name for name, photo in photos.items() if photo.sha256 and name not in held)
        failed: Mapping[str, str] = {}
        if names:
            config = self._config()
            extractor = build_extractor(config)
            stem = stem_in(self.work, _digest({name: photos[name] for name in names}), extractor)
            check_features(self.folder, database.provenance, extractor.provenance)
            try:
                source, done = extract_source(Images(self.root, names), extractor, stem)
                failed = done.unreadable
                append(source, self.made_by.model, self.folder, device=config.device)
            except NothingReadable:
                log.debug("%s: none of %d photos can be read", self.folder, len(names))
        return self._settled(record, photos, failed)

    def _settled(
        self, record: PhotoRecord, photos: Mapping[str, PhotoFile], failed: Mapping[str, str]
    ) -> PhotoRecord:
        """Look at the photos without features, take unreadable ones out, and record all.

        failed: name -> why a photo could not be read when it was extracted.
        """
        database = Database(self.folder)
        held, empty = set(database.names), {database.names[row] for row in database.empty_rows()}
        entries, bad = {}, []
        for name, photo in photos.items():
            problem, sure = photo.problem, self._is_as_noted(name, photo)
            if problem is None and (name in empty or name not in held):
                problem = self._problem(name)
                if problem is None and name in failed:  # it can be read by now
                    problem, sure = failed[name], False
            if problem is not None and name in held:
                bad.append(name)
            noted = replace(photo, problem=problem)
            entries[name] = noted if sure else replace(noted, changed=-1, sha256="")
        record = replace(record, photos=record.photos | entries)
        record.save(self.folder / NAME)
        if bad:
            with writing(self.folder) as writer:
                writer.delete(bad)
        (self.work / PENDING).unlink(missing_ok=True)
        self.added |= photos.keys()
        return record

    def _is_as_noted(self, name: str, photo: PhotoFile) -> bool:
        """Whether a file has, after its extraction, the contents that were noted before it."""
        seen = self.seen.get(name)
        if seen is None and photo.changed != -1:
            seen = photo.size, photo.changed
        try:
            if seen is None:  # an earlier call noted it too soon after a change for its time to tell
                return not photo.sha256 or sha256(self.root / name) == photo.sha256
            status = (self.root / name).stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == seen

    def _made(self, photos: dict[str, PhotoFile]) -> PhotoRecord:
        return PhotoRecord(self.root, photos, self.decoders)

    def _problem(self, name: str) -> str | None:
        """Why a photo cannot be read; None: it can be."""
        try:
            read_image(self.root / name, max_pixels=self._config().max_pixels)
        except UnreadableImage as error:
            return str(error)
        return None

    def _tidy(self) -> None:
        """Give back the space of deleted photos where it is much, and join many small segments."""
        database = Database(self.folder)
        if database.rows > 2 * len(database) or len(database.segments) > _SEGMENTS:
            with writing(self.folder) as writer:
                writer.compact()

    def _config(self) -> ExtractionConfig:
        return self.wanted.extraction

    def _changes(self, record: PhotoRecord, scanned: Scan, before: set[str], deleted: int) -> Changes:
        database = Database(self.folder)
        good = {name for name, photo in record.photos.items() if photo.problem is None}
        added = self.added & good
        return Changes(
            added=len(added - before),
            updated=len(added & before),
            deleted=deleted,
            unchanged=len(good - self.added),
            unreadable={n: x.problem for n, x in sorted(record.photos.items()) if x.problem is not None},
            without_features=[database.names[row] for row in database.empty_rows()],
            notes=scanned.notes,
        )


def _digest(photos: Mapping[str, PhotoFile]) -> str:
    """Of names and contents: what an interrupted extraction resumes by."""
    return list_digest([f"{name} {photo.sha256}" for name, photo in sorted(photos.items())])
