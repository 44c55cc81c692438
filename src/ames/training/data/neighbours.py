"""Neighbours of every training image, read row by row from a shortlist of the training set against itself."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np

from ames.errors import AmesError
from ames.global_search.shortlist import published_array, whole_ids
from ames.io.archives import reading_npz
from ames.io.pickles import load_pickle

_LOCAL_HEADER = 30  # bytes of a zip member's own header before its name; at 26 the sizes of name and rest


class Neighbours:
    """The first ``columns`` neighbours of each of ``images`` images, as they are stored.

    An opened file is mapped, not read: rows that were read are in the operating system's page cache, once for
    all processes.
    """

    def __init__(self, ids: np.ndarray, similarities: np.ndarray, *, columns: int, source: str) -> None:
        if columns < 1:
            raise AmesError(f"{source}: {columns} neighbours of an image were asked for: give at least 1")
        if ids.ndim != 2 or ids.shape != similarities.shape:
            raise AmesError(
                f"{source} needs ids and similarities of one shape [images, entries], not "
                f"{list(ids.shape)} and {list(similarities.shape)}"
            )
        if ids.dtype.kind not in "fiu" or similarities.dtype.kind not in "fiu":
            raise AmesError(f"{source} holds {ids.dtype} and {similarities.dtype}: numbers are needed")
        # Views: the rest of a mapped file is never touched. memmap's own type makes each index slower.
        self._ids = ids.view(np.ndarray)[:, :columns]
        self._similarities = similarities.view(np.ndarray)[:, :columns]
        self.images, self.columns = self._ids.shape
        self.source = source

    @classmethod
    def from_arrays(cls, ids: np.ndarray, similarities: np.ndarray, *, columns: int = 300) -> Neighbours:
        """From arrays in memory, [n, M] each: ids, -1 where there is no entry, and similarities."""
        return cls(np.asarray(ids), np.asarray(similarities), columns=columns, source="shortlist")

    @classmethod
    def open(cls, path: Path | str, *, images: int, columns: int = 300) -> Neighbours:
        """From an ``.npz`` of ``Shortlist.save``, or a published ``.pkl`` [2, n, M]; both stay in the file,
        except a small pickle and a compressed ``.npz``, which are read.

        Raises AmesError naming the file when it is missing, broken, no shortlist, or not of ``images`` rows.
        Values are checked when they are read. Checksums of a mapped ``.npz`` are not.
        """
        path = Path(path)
        if path.suffix == ".pkl":
            content = load_pickle(path)
            try:
                similarities, ids = published_array(content)
            except AmesError as error:
                raise AmesError(f"{path}: {error}") from error
        else:
            ids, similarities = _members(path)
            if ids.dtype.kind not in "iu":
                raise AmesError(f"{path}: ids of a shortlist must be integers, not {ids.dtype}")
        if len(ids) != images:
            raise AmesError(
                f"{path}: shortlist of {len(ids)} images, but {images} are in the list: is it of another "
                "data set?"
            )
        if not isinstance(ids, np.memmap):  # in memory: not more of it than is used
            ids, similarities = ids[..., :columns].copy(), similarities[..., :columns].copy()
        return cls(ids, similarities, columns=columns, source=str(path))

    def rows(self, index: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        """(ids int64 [B, C], similarities float32 [B, C]) of B images; an id of -1 is no entry.

        Raises AmesError for ids that are not whole or out of range, and similarities that are not finite.
        """
        try:
            ids = whole_ids(self._ids[index])
        except AmesError as error:
            raise AmesError(f"{self.source}: {error}") from error
        with np.errstate(over="ignore"):
            similarities = self._similarities[index].astype(np.float32)
        if ids.size and ids.min() < -1:
            raise AmesError(f"{self.source} holds the id {ids.min()}: ids start at 0, and -1 is no entry")
        if ids.max(initial=-1) >= self.images:
            raise AmesError(
                f"{self.source} names image {ids.max()} of {self.images}: is it of another data set?"
            )
        finite = np.isfinite(similarities)
        if not finite.all() and (bad := ~finite & (ids >= 0)).any():
            row, column = np.argwhere(bad)[0]
            image = np.arange(self.images)[index][row]
            raise AmesError(
                f"{self.source}: similarity of image {image}, entry {column} is {similarities[row, column]}: "
                "it must be finite"
            )
        return ids, similarities


def _members(path: Path) -> list[np.ndarray]:
    """ids and similarities of an ``.npz``, mapped where the archive holds them as they are."""
    if not path.is_file():
        raise AmesError(f"{path}: there is no such shortlist file")
    names = ["ids.npy", "similarities.npy"]
    with reading_npz(path, "an .npz file of a shortlist"), zipfile.ZipFile(path) as archive:
        missing = [name[:-4] for name in names if name not in archive.namelist()]
        if missing:
            raise AmesError(f"{path}: not the file of a shortlist: it lacks {', '.join(missing)}")
        return [_member(path, archive, archive.getinfo(name)) for name in names]


def _member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with open(path, "rb") as file:
        file.seek(member.header_offset + _LOCAL_HEADER - 4)
        file.seek(sum(struct.unpack("<HH", file.read(4))), 1)
        begin = file.tell()
        version = np.lib.format.read_magic(file) if member.compress_type == zipfile.ZIP_STORED else None
        if version != (1, 0) or not member.file_size:
            with archive.open(member) as content:
                return np.lib.format.read_array(content, allow_pickle=False)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        start, size = file.tell(), dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if dtype.hasobject or start - begin + size != member.file_size:
        raise ValueError("not the bytes of an array")
    if not size:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")
