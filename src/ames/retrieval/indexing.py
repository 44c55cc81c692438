"""A folder of photos and its collection: made, and brought up to date by the contents of the files.

The record beside the database names what the database holds, and of which contents. Photos that are being
added are noted before, in the folder that ends in ``BUILDING``. Whatever a crash interrupts, a photo of the
database that the record does not name is stale: the next call finishes what was noted, and drops the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

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
from ames.io.locks import locked
from ames.io.text import printable
from ames.models.load import Loaded, load
from ames.reranking.fusion import Fusion
from ames.retrieval.collection import BUILDING, LOCK, Collection, beside, check_folder
from ames.retrieval.collection import NAME as COLLECTION
from ames.retrieval.photo_record import NAME, PhotoFile, PhotoRecord, Scan, scan
from ames.retrieval.photos import (
    STEM,
    check_made_by,
    checked_extractor,
    default_factory,
    extract_source,
    make_database,
    work_folder,
)
from ames.retrieval.planning import default_model, plan_collection

PENDING = f"{STEM}-pending.json"  # the record of photos that are being added
_SEGMENTS = 64  # of a database at most: each change adds one

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Changes:
    """What a call of ``index_photos`` did: numbers of photos, and which photos need a look.

    unreadable: name -> why. without_features: readable, but no search finds them. notes: on other files.
    """

    added: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    without_features: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """Return one line."""
        counts = {"added": self.added, "updated": self.updated, "deleted": self.deleted}
        counts |= {"unchanged": self.unchanged, "unreadable": len(self.unreadable)}
        return ", ".join(f"{n:,} {what}" for what, n in counts.items() if n) or "nothing to do"

    def trouble(self) -> list[str]:
        """Return lines about files that no search finds: all that are unreadable, and why."""
        lines = [f"{printable(name)}: {why}" for name, why in self.unreadable.items()]
        empty = map(printable, self.without_features)
        lines += [f"{name}: has no features that a search could find" for name in empty]
        return lines + self.notes


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
        made_by = load(given)
        if there is None:
            wanted = plan_collection(made_by, given, "", fusion, options)
        else:
            wanted = _same(folder, there, made_by, model, fusion, options)
            check_made_by(folder, made_by, factory)
        return _Indexing(folder, root.resolve(), wanted, made_by).run(there is None, factory, rehash)


def _same(
    folder: Path,
    there: Collection,
    made_by: Loaded,
    model: str | Path | None,
    fusion: Fusion | None,
    options: dict[str, Any],
) -> Collection:
    """A folder's collection, for this machine. AmesError where options name another one."""
    machine = {key: options[key] for key in ("device", "workers", "batch_size") if key in options}
    told = {**options}
    if made_by.entry is None or made_by.entry.backbone is None:  # the collection knows what it was given
        told = {"backbone": there.extraction.backbone} | told
    wanted = plan_collection(made_by, model or there.model, there.images, fusion or there.fusion, told)
    same = ["model"] if model is not None else []
    same += [key for key in ("fusion", "desc_num") if key in options or (key == "fusion" and fusion)]
    asked = {key: getattr(wanted, key) for key in same}
    extraction = {key: getattr(wanted.extraction, key) for key in options if hasattr(wanted.extraction, key)}
    asked["extraction"] = replace(there.extraction, **extraction | {"desc_num": there.extraction.desc_num})
    there.check_same(folder, replace(there, **asked))
    return replace(there, extraction=replace(there.extraction, **machine))


class _Indexing:
    """The steps of one call; after each, the files are a state that the next call understands."""

    def __init__(self, folder: Path, root: Path, wanted: Collection, made_by: Loaded) -> None:
        self.folder, self.root, self.wanted, self.made_by = folder, root, wanted, made_by
        self.work = folder.with_name(folder.name + BUILDING)
        self.apart = beside(folder)
        self.added: set[str] = set()

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
                record = record or PhotoRecord(self.root, {})
                record = self._add(record, pending.photos if pending else {})
            scanned = scan(self.root, record.photos, rehash=rehash and not new, apart=self.apart)
            record, deleted = self._drop(record, scanned)
            record = self._add(record, {n: x for n, x in scanned.photos.items() if n not in record.photos})
            self._tidy()
        return self._changes(record, scanned, before, deleted)

    def _record(self, path: Path) -> PhotoRecord | None:
        """A record of this folder of photos. One whose folder no longer exists moves with it."""
        found = PhotoRecord.load(path)
        if found is None or found.root == self.root:
            return found
        if found.root.is_dir():
            raise AmesError(f"{self.folder}: holds the photos of {found.root}; give a new folder")
        if found.photos and not any(_is_there(self.root / name, x) for name, x in found.photos.items()):
            raise AmesError(
                f"{self.folder}: holds the photos of {found.root}, which is not there now, and none of them "
                f"is in {self.root}; give a new folder"
            )
        log.warning("%s: the photos were in %s", self.folder, found.root)
        return replace(found, root=self.root)

    # ---- steps ------------------------------------------------------------------------------------

    def _begin(self, pending: PhotoRecord | None, factory: str | None) -> PhotoRecord:
        """A new database of what an interrupted call noted; if that is gone, of what is there now."""
        if pending is not None:
            try:
                return self._build(pending, factory)
            except NothingReadable:
                log.debug("%s: none of %d photos can be read", self.folder, len(pending.photos))
        return self._build(PhotoRecord(self.root, scan(self.root, {}, apart=self.apart).photos), factory)

    def _build(self, pending: PhotoRecord, factory: str | None) -> PhotoRecord:
        """A new database of all photos that were noted."""
        names = sorted(pending.photos)
        factory = factory or default_factory(len(names))
        wanted = replace(self.wanted, images=_digest(pending.photos))
        extractor = checked_extractor(wanted, self.made_by, factory)
        pending.save(self.work / PENDING)
        try:
            images = Images(self.root, names)
            make_database(self.folder, images, wanted, self.made_by, factory, self.work, extractor)
        except NothingReadable:
            (self.work / PENDING).unlink()
            raise
        wanted.save(self.folder)
        return self._settled(PhotoRecord(self.root, {}), pending.photos)

    def _drop(self, record: PhotoRecord, scanned: Scan) -> tuple[PhotoRecord, int]:
        """Delete what is gone or has other contents, and what no record names; return the number gone."""
        kept = {
            name: scanned.photos[name]
            for name, photo in record.photos.items()
            if name in scanned.photos and scanned.photos[name].sha256 == photo.sha256
        }
        held = set(Database(self.folder).names)
        # A photo that was readable must be held: someone else may have deleted it.
        kept = {name: photo for name, photo in kept.items() if photo.problem is not None or name in held}
        stale = sorted(held - kept.keys())
        left = PhotoRecord(self.root, kept)
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
        held = set(Database(self.folder).names)
        names = sorted(name for name, photo in photos.items() if photo.sha256 and name not in held)
        if names:
            config = self._config()
            stem = self.work / f"{STEM}-{_digest({name: photos[name] for name in names})[:8]}"
            try:
                source, _ = extract_source(Images(self.root, names), build_extractor(config), stem)
                append(source, self.made_by.model, self.folder, device=config.device)
            except NothingReadable:
                log.debug("%s: none of %d photos can be read", self.folder, len(names))
        return self._settled(record, photos)

    def _settled(self, record: PhotoRecord, photos: Mapping[str, PhotoFile]) -> PhotoRecord:
        """Look at the photos without features, take unreadable ones out, and record all."""
        database = Database(self.folder)
        held, empty = set(database.names), {database.names[row] for row in database.empty_rows()}
        entries, bad = dict(photos), []
        found = held - empty
        for name, photo in photos.items():
            if name in found:
                continue
            problem = photo.problem or _problem(self.root / name, self._config().max_pixels)
            if problem is not None:
                entries[name] = replace(photo, problem=problem)
                if name in held:
                    bad.append(name)
        record = PhotoRecord(self.root, record.photos | entries)
        record.save(self.folder / NAME)
        if bad:
            with writing(self.folder) as writer:
                writer.delete(bad)
        (self.work / PENDING).unlink(missing_ok=True)
        self.added |= photos.keys()
        return record

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


def _is_there(path: Path, photo: PhotoFile) -> bool:
    """Whether a file may be this photo: of its name and size."""
    try:
        return path.stat().st_size == photo.size
    except OSError:
        return False


def _problem(path: Path, max_pixels: int) -> str | None:
    """Why a photo cannot be read; None: it can be, and has no keypoints."""
    try:
        read_image(path, max_pixels=max_pixels)
    except UnreadableImage as error:
        return str(error)
    return None
