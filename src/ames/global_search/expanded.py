"""Files of query expansion and of database augmentation, for a data set's global descriptors."""

from __future__ import annotations

import filecmp
import hashlib
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ames.datasets.layout import DatasetFolder, descriptor_path
from ames.descriptors.encoding import VectorRows
from ames.descriptors.local import GlobalFile
from ames.descriptors.plan import OutputPlan
from ames.descriptors.provenance import Provenance
from ames.descriptors.resumable import ResumableFiles
from ames.descriptors.vectors import Vectors, digest
from ames.errors import AmesError
from ames.extraction.pipeline import Extraction, complete
from ames.global_search.build import Source, check_same, make, shown
from ames.global_search.exact import BLOCK, count_entries, search_blocks
from ames.global_search.expansion import Expansion, augment_blocks, expand_queries
from ames.global_search.shortlist import Shortlist, read_meta
from ames.io.atomic import atomic_path

_log = logging.getLogger(__name__)
ALPHA_QE, AVERAGE_QE, DBA = "alpha-qe", "average-qe", "dba"
_REDO = "take --overwrite to make it again"


def make_expanded(
    source: Source,
    settings: Expansion,
    *,
    name: str | None = None,
    size: int | None = None,
    overwrite: bool = False,
    device: str = "cpu",
    block: int = BLOCK,
) -> Path:
    """Write the shortlist of a second search, by expanded queries, and return its path, ``nn_<name>.npz``.

    The first search is the shortlist ``nn_<descriptors>``, which is made if it is missing. name: by default
    that of the descriptors, "+" and alpha-qe (average-qe for alpha 0). size: entries per query; None: as many
    as the first shortlist has. An existing file is kept. AmesError if it was made from other descriptors, by
    another shortlist or with other settings, unless ``overwrite``; also for training sets, and where the
    first shortlist has fewer entries than neighbours. ``block``: as in ``search_blocks``.
    """
    _check_test_set(source)
    if source.kind != "npz":
        raise AmesError(f"the shortlists of expanded queries are written as npz, not {source.kind}")
    name = checked_name(source, name, ALPHA_QE if settings.alpha else AVERAGE_QE)
    path = source.place.path / f"nn_{name}.npz"
    first = make(source, device=device, block=block)
    queries, gallery = source.open()
    about = source.about(queries, gallery)
    if first.suffix != ".npz" or "digest" not in read_meta(first):
        _log.warning("%s: does not say of which descriptors it is; it is taken for one of these", first)
    found = Shortlist.load(first, gallery_size=len(gallery))
    entries = count_entries(gallery, found.ids.shape[1] if size is None else size)
    about |= {"entries": entries, "expansion": asdict(settings) | {"by": _digest(found, settings)}}
    if path.is_file() and not overwrite:
        if "expansion" not in read_meta(path):
            raise AmesError(f"{path}: does not say that its queries were expanded; {_REDO}")
        check_same(path, about, redo=_REDO)
        return path
    expanded = expand_queries(queries, gallery, found, settings, source=str(first))
    del found  # can be gigabytes
    asked = Vectors.of(expanded, f"expanded queries of {queries.sources[0]}")
    with source.write(path, len(queries), entries, about) as write:
        blocks = search_blocks(asked, gallery, entries, block=block, device=device)
        for ids, similarities in shown(blocks, len(queries), "search"):
            write(ids, similarities)
    return path


def make_augmented(
    source: Source,
    settings: Expansion,
    *,
    name: str | None = None,
    overwrite: bool = False,
    device: str = "cpu",
    block: int = BLOCK,
) -> tuple[Source, Extraction]:
    """Write the augmented gallery, ``<name>_gallery_global.hdf5``, and a link to the queries beside it,
    ``<name>_query_global.hdf5``. Return the source that these files are, and what was done.

    name: by default that of the descriptors and "+dba". The file grows by ``block`` images, and the same call
    resumes after an interruption. A complete one is kept. AmesError if it was made from other descriptors or
    with other settings, unless ``overwrite``, and for training sets.
    """
    _check_test_set(source)
    name = checked_name(source, name, DBA)
    queries, gallery = source.open()
    files = [GlobalFile(path) for path in source.files[1:]]
    record = {key: value for key, value in files[0].provenance.items() if key != "ames"}
    record[DBA] = asdict(settings) | {"digest": digest(gallery)}
    names = _names(files)
    target = DatasetFolder(source.place.path, name)
    plan = OutputPlan(
        out=target.stem("gallery"),
        rows={"global": VectorRows(gallery.width)},
        names=[""] * len(gallery) if names is None else names,
        named=names is not None,
        provenance=Provenance.from_dict(record),
    )
    fill = partial(_fill, gallery=gallery, settings=settings, block=block, device=device)
    done = complete(plan, fill, overwrite=overwrite)
    _link(Path(queries.sources[0]), descriptor_path(target.stem("query"), "global"), overwrite=overwrite)
    return Source(folder=target, kind=source.kind), done


def checked_name(source: Source, name: str | None, method: str) -> str:
    """Return the name of what a method makes. AmesError for one that is a path or the descriptors' own."""
    own = source.folder.descriptors
    if name is None:
        return f"{own}+{method}"
    if not name or name == own or Path(name).name != name:
        raise AmesError(
            f"name {name!r}: give a new one for files in {source.place.path}, not {own!r}, no path"
        )
    return name


def _check_test_set(source: Source) -> None:
    if source.training:
        raise AmesError(f"{source.folder.path}: only the descriptors of test sets are expanded")


def _digest(found: Shortlist, settings: Expansion) -> str:
    """16 hexadecimal digits of the neighbours and their similarities."""
    k = settings.neighbours
    both = hashlib.sha256(found.ids[:, :k].tobytes())
    both.update(found.similarities[:, :k].tobytes())
    return both.hexdigest()[:16]


def _names(files: Sequence[GlobalFile]) -> list[str] | None:
    """The images' names, if all files have them."""
    names: list[str] = []
    for file in files:
        if file.names is None:
            return None
        names += file.names
    return names


def _fill(
    files: ResumableFiles, errors: Path | None, *, gallery: Vectors, settings: Expansion, **options: Any
) -> None:
    """Append the rows that the file lacks."""
    files.check_space()
    for _, vectors in augment_blocks(gallery, settings, first=files.state.done, **options):
        files.append([vectors], [], [])


def _link(file: Path, link: Path, *, overwrite: bool) -> None:
    """Make ``link`` lead to a file, by a relative path, or copy the file where the disk has no links."""
    if link.exists():
        if link.samefile(file) or filecmp.cmp(link, file, shallow=False):
            return
        if not overwrite:
            raise AmesError(f"{link}: exists and is not {file}; {_REDO}")
    temporary = link.with_name(f".{link.name}.{os.getpid()}.part")
    target = os.path.relpath(file.parent.resolve() / file.name, link.parent.resolve())
    try:
        os.symlink(target, temporary)  # not by ``atomic_path``, which would open the file itself for writing
        os.replace(temporary, link)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        _log.warning("%s: copied; no link can be made there (%s)", link, error.strerror)
        with atomic_path(link) as copy:
            shutil.copyfile(file, copy)
