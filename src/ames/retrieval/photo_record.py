"""Which photos of a folder a collection holds: names, contents, and what could not be read."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ames import __version__
from ames.datasets.finding import find_images
from ames.errors import AmesError
from ames.io.atomic import atomic_file
from ames.io.claims import parsed
from ames.io.hashing import sha256
from ames.io.progress import progress
from ames.io.text import counted

NAME = "photos.json"  # beside a collection's files
_FORMAT, _VERSION = "ames photos", 1
_UNSETTLED = 2.0  # seconds in which a file system may give two contents one time
_HASHED_ALOUD = 500  # files from which on hashing shows its progress


@dataclass(frozen=True)
class PhotoFile:
    """A photo as it was indexed.

    size: in bytes. changed: its time of modification in nanoseconds, -1 where a later change might not show
    in it. sha256: of the file, empty where it could not be read, or has changed while it was extracted.
    problem: why it is no readable image.
    """

    size: int
    changed: int
    sha256: str
    problem: str | None = None

    def may_be(self, path: Path) -> bool:
        """Return whether there is a file of this size."""
        try:
            return path.stat().st_size == self.size
        except OSError:
            return False


@dataclass(frozen=True)
class PhotoRecord:
    """The photos of a collection by their paths below ``root``, those that cannot be read included.

    decoders: what tried to read these.
    """

    root: Path
    photos: dict[str, PhotoFile]
    decoders: str = ""

    @property
    def readable(self) -> list[str]:
        """Names of the photos that can be read, sorted."""
        return sorted(name for name, photo in self.photos.items() if photo.problem is None)

    def save(self, path: Path) -> None:
        """Write it; atomic."""
        photos = {name: list(vars(photo).values()) for name, photo in sorted(self.photos.items())}
        content = {"format": _FORMAT, "version": _VERSION, "root": str(self.root), "photos": photos}
        content["decoders"] = self.decoders
        with atomic_file(path) as file:
            file.write(json.dumps(content, indent=0).encode())

    @classmethod
    def load(cls, path: Path) -> PhotoRecord | None:
        """Read a record; None where there is no such file. AmesError for one that is damaged or refused."""
        try:
            content = parsed(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise AmesError(f"{path}: cannot be read ({error.strerror or error})") from error
        except ValueError as error:
            raise AmesError(f"{path}: damaged; index the photos to a new folder") from error
        try:
            if (content["format"], content["version"]) != (_FORMAT, _VERSION):
                raise AmesError(f"{path}: of another version of the library; give a new folder")
            photos = {name: PhotoFile(*fields) for name, fields in content["photos"].items()}
            return cls(Path(content["root"]), photos, content.get("decoders", ""))
        except (KeyError, TypeError, AttributeError) as error:
            raise AmesError(f"{path}: damaged; index the photos to a new folder") from error


def decoders() -> str:
    """Return what a photo that cannot be read may depend on: versions of what reads photos."""
    found = [f"ames {__version__}"]
    for package in ("opencv-python-headless", "opencv-python", "pillow-heif"):
        with suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    return ", ".join(found)


@dataclass(frozen=True)
class Scan:
    """The images below a folder now. notes: lines about other files. seen: size and time of modification of
    each file before it was read.
    """

    photos: dict[str, PhotoFile]
    notes: list[str]
    seen: dict[str, tuple[int, int]]

    def unknown(self, record: PhotoRecord) -> dict[str, PhotoFile]:
        """Return the photos that a record does not name; of those that were read, no problem is known yet."""
        found = {name: photo for name, photo in self.photos.items() if name not in record.photos}
        return {name: replace(x, problem=None) if x.sha256 else x for name, x in found.items()}


def scan(
    root: Path, known: Mapping[str, PhotoFile], *, rehash: bool = False, apart: Collection[Path] = ()
) -> Scan:
    """Read names and contents of all images below ``root``.

    known: earlier contents; a file of the same size and time of modification is not read again, unless
    ``rehash``. In a sub-folder that cannot be read now, all that was known is still there. apart: as of
    ``find_images``. AmesError where the folder has no image.
    """
    found = find_images(root, apart=apart)
    photos = _behind_closed_doors(root, found.left_out, known)
    notes = found.notes()
    if photos:
        said = counted(len(photos), "photo is", "photos are")
        notes.append(f"{said} kept without a look, for a folder cannot be read now")
    now = time.time_ns()
    waiting: list[tuple[str, os.stat_result]] = []
    for name in found.names:
        try:
            status = os.stat(root / name)
        except FileNotFoundError:  # gone since the folder was read
            continue
        except OSError as error:
            photos[name] = PhotoFile(0, -1, "", error.strerror or "cannot be read")
            continue
        before = known.get(name)
        if before is None or rehash or (before.size, before.changed) != (status.st_size, status.st_mtime_ns):
            waiting.append((name, status))
        else:
            photos[name] = before
    shown = len(waiting) if len(waiting) >= _HASHED_ALOUD else 0
    with progress("read", shown, "photos") as tick:
        for name, status in waiting:
            photos[name] = _read(root / name, status, known.get(name), now)
            tick(1 if shown else 0)
    return Scan(photos, notes, {name: (status.st_size, status.st_mtime_ns) for name, status in waiting})


def _behind_closed_doors(
    root: Path, left_out: Collection[str], known: Mapping[str, PhotoFile]
) -> dict[str, PhotoFile]:
    """The known photos in folders that were not looked into, but for links, which never are."""
    closed = tuple(x for x in left_out if x.endswith("/") and not os.path.islink(root / x.rstrip("/")))
    return {name: photo for name, photo in known.items() if name.startswith(closed)}


def _read(path: Path, status: os.stat_result, before: PhotoFile | None, now: int) -> PhotoFile:
    settled = now - status.st_mtime_ns > _UNSETTLED * 1e9
    changed = status.st_mtime_ns if settled else -1
    try:
        digest = sha256(path)
    except OSError as error:
        return PhotoFile(status.st_size, -1, "", error.strerror or "cannot be read")
    if before is not None and before.sha256 == digest:
        return replace(before, size=status.st_size, changed=changed)
    return PhotoFile(status.st_size, changed, digest)
