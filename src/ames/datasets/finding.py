"""Find the images of a folder; list other files."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ames.datasets.image_headers import HEAD, is_image, is_preview
from ames.errors import AmesError
from ames.io.text import counted, printable

# Suffixes of image files: such a file that is no image is reported as unreadable.
_USUAL = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"}
_SELDOM = {".avif", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".pbm", ".pgm", ".ppm", ".pnm", ".pam"}
SUFFIXES = frozenset(_USUAL | _SELDOM)
_IGNORED = {"thumbs.db", "desktop.ini"}  # what systems leave in folders, beside hidden files
_NAMED = 5


class FoundImages(NamedTuple):
    """names: images, relative to the folder. left_out: all else but hidden files; names of folders that were
    not searched end in a slash. Both are sorted.
    """

    names: list[str]
    left_out: list[str]

    def notes(self) -> list[str]:
        """Lines about what was left out: at most one of files and one of folders."""
        folders = [name for name in self.left_out if name.endswith("/")]
        files = [name for name in self.left_out if not name.endswith("/")]
        notes = []
        if files:
            said = counted(
                len(files), "file is not a readable image and was", "files are not readable images and were"
            )
            kinds = f"{_kinds(files)}; first: " if len(files) > _NAMED else ""
            notes.append(f"{said} left out: {kinds}{_first(files)}")
        if folders:
            said = counted(len(folders), "folder was", "folders were")
            notes.append(f"{said} not looked into, a link or not readable: {_first(folders)}")
        return notes


def find_images(folder: Path | str, *, apart: Collection[Path] = ()) -> FoundImages:
    """All images below ``folder``; hidden files and folders are skipped, links to folders left out.

    apart: resolved paths of files and folders that are skipped too, such as those of a collection.

    The first bytes of a file whose suffix is none of ``SUFFIXES`` decide whether it is an image. AmesError if
    there is no image, or a name that a list cannot hold.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise AmesError(f"{folder}: no such folder")
    names: list[str] = []
    left_out: list[str] = []
    whole = folder.resolve()
    skipped = {path.relative_to(whole).as_posix() for path in apart if path.is_relative_to(whole)}
    for name, taken in _entries(str(folder), "", skipped):
        (names if taken else left_out).append(name)
    found = FoundImages(sorted(names), sorted(left_out))
    for name in found.names:
        # Lists, ground truth and descriptor files hold names as UTF-8, one per line. Python keeps bytes of
        # another encoding as lone surrogates.
        if re.search("[\n\r\ud800-\udfff]", name):
            raise AmesError(f"{folder}: {name!a} is not a name that a list can hold; rename it")
    if not found.names:
        raise AmesError("; ".join([f"{folder}: no images in it or below", *found.notes()]))
    return found


def is_image_file(path: Path | str) -> bool:
    """Return whether a file is an image by its suffix or its first bytes; cameras' raw files are not."""
    path = Path(path)
    return path.suffix.lower() in SUFFIXES or _begins_as_image(path)


def _entries(folder: str, prefix: str, skipped: Collection[str]) -> Iterator[tuple[str, bool]]:
    """(name, whether it is an image) of everything below a folder."""
    waiting = [(folder, prefix)]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            if not prefix:
                raise AmesError(f"{folder}: cannot be read ({error.strerror})") from error
            yield prefix, False
            continue
        for entry in entries:
            if entry.name.startswith(".") or prefix + entry.name in skipped:
                continue
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, f"{name}/"))
            elif entry.is_dir():  # a link, which can lead to a parent folder
                yield f"{name}/", False
            elif entry.name.lower() not in _IGNORED:
                yield name, entry.is_file() and is_image_file(entry.path)


def _begins_as_image(path: Path) -> bool:
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(HEAD)
            if not is_image(head):
                return False
            if head[:2] not in (b"II", b"MM"):
                return True
            with mmap(file.fileno(), 0, access=ACCESS_READ) as content:
                return not is_preview(content)
    except (OSError, ValueError):  # ValueError: a name with a zero byte
        return False


def _first(names: list[str]) -> str:
    return ", ".join([*map(printable, names[:_NAMED]), *["..."] * (len(names) > _NAMED)])


def _kinds(names: list[str]) -> str:
    """Count the files of the most frequent suffixes, as text."""
    endings = (PurePosixPath(name).suffix.lower() for name in names)
    kinds = Counter(x if x.isprintable() and x else "without an ending" for x in endings).most_common()
    others = sum(number for _, number in kinds[_NAMED:])
    most = [f"{number:,} {kind}" for kind, number in kinds[:_NAMED]]
    return ", ".join(most + ([f"{others:,} others"] if others else []))
