"""Shortlists by ASMK: from files of local descriptors, by way of an inverted file."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ames.datasets.layout import DatasetFolder
from ames.descriptors.local import DescriptorFile
from ames.errors import AmesError, naming
from ames.features import LocalFeatures
from ames.global_search.shortlist import Shortlist, read_meta
from ames.io.locks import exclusively
from ames.io.progress import progress
from ames.local_search.codebook import Codebook
from ames.local_search.inverted_file import InvertedFile
from ames.local_search.kernel import Kernel

_log = logging.getLogger(__name__)
_BYTES = 1 << 26  # of descriptors in memory at a time
_STORED = ("binary", "db_assign", "half", "database_count", "codebook")  # settings of what an index holds


@dataclass(frozen=True, kw_only=True)
class AsmkSearch:
    """How a gallery is searched by ASMK.

    kernel: its settings. query_count, database_count: the strongest descriptors of an image that are used,
    None: all. k: entries of a shortlist, None: the whole gallery. half: real vectors are kept as float16.
    """

    kernel: Kernel = field(default_factory=Kernel)
    query_count: int | None = None
    database_count: int | None = None
    k: int | None = None
    half: bool = False

    def __post_init__(self) -> None:
        for name in ("query_count", "database_count", "k"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise AmesError(f"{name} is {value!r}: give a whole number of at least 1")


def index_file(gallery: DescriptorFile, codebook: Codebook, search: AsmkSearch | None = None) -> InvertedFile:
    """Return the inverted file of a gallery, whose images are numbered by their rows.

    The gallery is read in blocks. The result is in memory: about 20 bytes a word of an image at 128 bits.
    AmesError for packed files and another width; NotFiniteError names an image with NaN or infinity.
    """
    search = search or AsmkSearch()
    check_files(codebook, gallery)
    index = InvertedFile(codebook, search.kernel, half=search.half)
    with progress("index", len(gallery), "images") as tick:
        for start, local in _blocks(gallery, search.database_count):
            with _named(gallery, start):
                index.add(local)
            tick(len(local.valid))
    return index


def search_index(
    queries: DescriptorFile, index: InvertedFile, search: AsmkSearch | None = None, **meta: Any
) -> Shortlist:
    """Return the shortlist of each query of a file; see ``InvertedFile.search``. meta: its origin."""
    search = search or AsmkSearch()
    check_files(index.codebook, queries)
    if search.k is not None and search.k > len(index):
        said = "%d entries asked for, the gallery has %d images: all are taken"
        _log.warning(said, search.k, len(index))
    entries = min(search.k or len(index), len(index))
    ids, similarities = [np.empty((0, entries), np.int64)], [np.empty((0, entries), np.float32)]
    with progress("search", len(queries), "queries") as tick:
        for start, local in _blocks(queries, search.query_count):
            with _named(queries, start):
                found = index.search(local, entries or None)
            ids.append(found[0])
            similarities.append(found[1])
            tick(len(local.valid))
    return Shortlist(np.concatenate(ids), np.concatenate(similarities), meta)


def search_files(
    queries: DescriptorFile,
    gallery: DescriptorFile,
    codebook: Codebook,
    kernel: Kernel | None = None,
    *,
    query_count: int | None = None,
    database_count: int | None = None,
    k: int | None = None,
) -> Shortlist:
    """Return the ``k`` most similar gallery images (None: all) of each query by ASMK.

    query_count, database_count: the strongest descriptors of an image that are used, None: all.
    """
    search = AsmkSearch(
        kernel=kernel or Kernel(), k=k, query_count=query_count, database_count=database_count
    )
    index = index_file(gallery, codebook, search)
    return search_index(queries, index, search, gallery_size=len(gallery))


def make(
    folder: DatasetFolder,
    codebook: Path | str,
    search: AsmkSearch | None = None,
    *,
    index: Path | None = None,
    overwrite: bool = False,
) -> tuple[Path, InvertedFile | None]:
    """Write ``nn_asmk.npz`` of a test set's folder, and the inverted file to ``index`` if given.

    Returns the shortlist's path and the inverted file; None if all was there already. Existing files are
    kept. AmesError for one that says that it was made from other files or with other settings, unless
    ``overwrite``, which replaces it.
    """
    search = search or AsmkSearch()
    path, words = folder.path / "nn_asmk.npz", Codebook.load(codebook)
    queries, gallery = (DescriptorFile(folder.local(split)) for split in ("query", "gallery"))
    check_files(words, queries, gallery)
    about = _about(folder, words, search, (queries, gallery))
    kept = path.is_file() and not overwrite
    if kept:
        _check_same(path, read_meta(path), about)
        if index is None:
            return path, None
    _check_index(index)
    with exclusively(path):
        made, found = _open_index(gallery, words, search, about, None if overwrite else index)
        if kept and found:
            return path, None
        if index is not None and not found:
            made.save(index)
        if not kept:
            search_index(queries, made, search, **about).save(path)
    return path, made


def _check_index(index: Path | None) -> None:
    """AmesError where the inverted file would replace something else."""
    if index is None or not index.exists():
        return
    try:
        InvertedFile.load(index, check=False)
    except AmesError as error:
        raise AmesError(f"{index}: exists and is no inverted file: give another --index") from error


def _open_index(
    gallery: DescriptorFile, codebook: Codebook, search: AsmkSearch, about: dict[str, Any], path: Path | None
) -> tuple[InvertedFile, bool]:
    """Return the inverted file, and whether it was found at ``path``; its ``meta`` says what it is of."""
    wanted = {key: about[key] for key in ("descriptors", "asmk")} | {"files": about["files"]["gallery"]}
    wanted["asmk"] = {key: about["asmk"][key] for key in _STORED}
    if path is not None and path.is_file():
        found = InvertedFile.load(path)
        _check_same(path, found.meta, wanted)
        found.kernel = search.kernel  # the rest of it concerns queries
        return found, True
    made = index_file(gallery, codebook, search)
    made.meta = wanted
    return made, False


def _about(
    folder: DatasetFolder, codebook: Codebook, search: AsmkSearch, files: tuple[DescriptorFile, ...]
) -> dict[str, Any]:
    """What a shortlist says about its origin. ``asmk`` decides whether a file is the same."""
    sources = {}
    for split, file in zip(("query", "gallery"), files, strict=True):
        status = file.path.stat()
        sources[split] = {"images": len(file), "bytes": status.st_size, "changed": status.st_mtime_ns}
    settings = asdict(search.kernel) | {"query_count": search.query_count, "half": search.half}
    settings |= {"database_count": search.database_count, "codebook": codebook.digest}
    return {
        "dataset": folder.name,
        "descriptors": folder.descriptors,
        "gallery_size": len(files[1]),
        "entries": min(search.k or len(files[1]), len(files[1])),
        "asmk": settings,
        "files": sources,
    }


def _check_same(path: Path, held: Mapping[str, Any], wanted: dict[str, Any]) -> None:
    advice = "give --overwrite, or move it away"
    if "asmk" not in held:
        raise AmesError(f"{path}: not made by ames asmk; {advice}")
    if held.get("descriptors") != wanted["descriptors"]:
        raise AmesError(f"{path}: made from {held.get('descriptors')} descriptors; {advice}")
    if held.get("files") != wanted["files"]:
        raise AmesError(f"{path}: made from other descriptor files, or files that changed since; {advice}")
    for key, value in wanted["asmk"].items():
        if held["asmk"].get(key) != value:
            raise AmesError(f"{path}: made with {key} {held['asmk'].get(key)}, not {value}; {advice}")
    if held.get("entries") != wanted.get("entries"):
        raise AmesError(f"{path}: made with {held.get('entries')} entries, not {wanted['entries']}; {advice}")


def check_files(codebook: Codebook | None, *files: DescriptorFile) -> None:
    """AmesError for files that ASMK cannot compare by these words (None: by any): packed ones, those of
    another width, and those of another backbone than the one that the words were trained on.
    """
    for file in files:
        if file.packed:
            raise AmesError(
                f"{file.path}: holds packed codes; ASMK takes descriptors: extract without packing"
            )
        if codebook is None:
            continue
        if file.width != codebook.width:
            raise AmesError(
                f"{file.path}: descriptors are {file.width}-d, the codebook takes {codebook.width}-d"
            )
        trained_on = codebook.meta.get("trained_on") or {}
        wanted, found = trained_on.get("backbone"), file.provenance.get("backbone")
        if wanted and found and wanted != found:
            raise AmesError(
                f"{file.path}: made by backbone {found!r}, the codebook is of {wanted!r} descriptors"
            )


def _blocks(file: DescriptorFile, count: int | None) -> Iterator[tuple[int, LocalFeatures]]:
    """Yield (number of the first image, features of some images) of a whole file."""
    slots = file.slots if count is None else min(count, file.slots)
    step = max(1, _BYTES // max(4 * slots * file.width, 1))
    for start in range(0, len(file), step):
        yield start, file.read(range(start, min(start + step, len(file))), slots, locations=False)


def _named(file: DescriptorFile, start: int) -> Any:
    """Name the file and the image in a NotFiniteError of a block."""

    def name(image: int) -> str:
        return f"{file.path}: the descriptors of image {image if not file.names else file.names[image]!r}"

    return naming(name, lambda image: start + image)
