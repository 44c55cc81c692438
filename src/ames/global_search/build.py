"""Shortlists of a data set's files: the search for them, and their re-ranking by SuperGlobal."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ames.datasets.layout import DatasetFolder
from ames.descriptors.vectors import Vectors, digest
from ames.errors import AmesError
from ames.global_search.exact import BLOCK, Found, collected, count_entries, search_blocks
from ames.global_search.shortlist import Shortlist, named, published_array, read_meta
from ames.global_search.shortlist_writer import Write, write_npz, write_pkl
from ames.global_search.superglobal import FORMULA, Reranking, of_earlier_formula, rescore
from ames.io.atomic import remove_leftovers
from ames.io.locks import exclusively
from ames.io.pickles import load_pickle
from ames.io.progress import progress

_log = logging.getLogger(__name__)
_TRAINING = 300  # what the sampler reads
_MOVE = "move it away to make it again"
_BYTES = 1 << 27  # of the descriptors that are re-ranked together, several times of which are in memory


@dataclass(frozen=True, kw_only=True)
class Source:
    """The global descriptors of a data set, and where shortlists of them are written.

    training: the images are both queries and gallery. more: files that follow the gallery's own. target: the
    folder of the shortlist, None: the data set's. kind: "npz", or "pkl" for the published layout.
    """

    folder: DatasetFolder
    training: bool = False
    more: Sequence[Path] = ()
    target: DatasetFolder | None = None
    kind: str = "npz"

    def __post_init__(self) -> None:
        if self.kind not in ("npz", "pkl"):
            raise AmesError(f"shortlists are written as npz or pkl, not {self.kind!r}")

    @property
    def files(self) -> list[Path]:
        """All files of global descriptors: the queries' first, unless they are the gallery."""
        splits = ("",) if self.training else ("query", "gallery")
        return [*(self.folder.vectors(split) for split in splits), *self.more]

    def open(self) -> tuple[Vectors, Vectors]:
        """(queries, gallery). AmesError where their vectors are of two spaces."""
        queries = Vectors.open(self.files[0])
        gallery = Vectors.open(*self.files[0 if self.training else 1 :])
        queries.check_searchable(gallery)
        return queries, gallery

    def about(self, queries: Vectors, gallery: Vectors) -> dict[str, Any]:
        """What a shortlist says about its origin."""
        held = (gallery,) if self.training else (queries, gallery)
        return {
            "dataset": self.place.name,
            "descriptors": self.folder.descriptors,
            "gallery_size": len(gallery),
            "digest": digest(*held),
        }

    @property
    def place(self) -> DatasetFolder:
        return self.target or self.folder

    @contextmanager
    def write(self, path: Path, queries: int, entries: int, meta: Mapping[str, Any]) -> Iterator[Write]:
        """As ``write_npz``. AmesError where another process writes the file already."""
        writer: AbstractContextManager[Write]
        if self.kind == "npz":
            writer = write_npz(path, queries, entries, meta=meta)
        else:
            size = meta["gallery_size"]
            writer = write_pkl(path, queries, entries, training=self.training, gallery_size=size)
        with exclusively(path):
            remove_leftovers(path)  # gigabytes, of a call that was killed
            with writer as write:
                yield write


def make(
    source: Source,
    *,
    size: int | None = None,
    skip_self: bool = False,
    overwrite: bool = False,
    device: str = "cpu",
    block: int = BLOCK,
) -> Path:
    """Write ``nn_<descriptors>``, the shortlist of each query, and return its path.

    size: entries per query; None: the whole gallery of a test set, and of a training set 300 (as the sampler
    reads) besides the image itself. skip_self: images of a training set do not find themselves (by number:
    others of the same vector are found). An existing shortlist is kept. AmesError if it says that it was made
    from other descriptors or with other settings (a pickle shows only its shape), unless ``overwrite``, which
    replaces it. ``block``: as in ``search_blocks``.
    """
    kept = None if overwrite else existing(source)
    if kept is not None and not all(file.exists() for file in source.files):
        return kept
    if skip_self and not source.training:
        raise AmesError(f"{source.folder.path}: the queries of a test set are not in its gallery")
    queries, gallery = source.open()
    if kept is not None and kept.suffix == ".pkl":
        _check_shape(kept, len(queries), size and count_entries(gallery, size, skip_self))
        return kept
    about = source.about(queries, gallery)
    if kept is not None:
        # The file may differ in what the call does not specify.
        about |= {} if size is None else {"entries": count_entries(gallery, size, skip_self)}
        check_same(kept, about | ({"skip_self": True} if skip_self else {}))
        return kept
    if source.training and size is None:
        size = _TRAINING + (not skip_self)
    entries = count_entries(gallery, size, skip_self)
    if size is not None and size > entries and not source.training:
        _log.warning("%d entries asked for, the gallery has %d images: all are taken", size, len(gallery))
    about |= {"entries": entries, "skip_self": skip_self}
    path = source.place.path / f"nn_{source.folder.descriptors}.{source.kind}"
    with source.write(path, len(queries), entries, about) as write:
        found = search_blocks(queries, gallery, size, block=block, skip_self=skip_self, device=device)
        for ids, similarities in shown(found, len(queries), "search"):
            write(ids, similarities)
    return path


def make_superglobal(
    source: Source, shortlist: Path, settings: Reranking | None = None, *, device: str = "cpu"
) -> Path:
    """Write ``nn_superglobal``, ``shortlist`` re-ranked by the descriptors it was made from, and return its
    path.

    An existing file is kept. AmesError if it says that it was made from other descriptors, with other
    settings or by the formula of an earlier version, for a shortlist of another gallery, and for training
    sets.
    """
    if source.training:
        raise AmesError(f"{source.folder.path}: SuperGlobal re-ranks the shortlists of test sets")
    settings = settings or Reranking()
    queries, gallery = source.open()
    about = source.about(queries, gallery)
    if shortlist.suffix == ".npz":
        check_same(shortlist, {"digest": about["digest"]})
    about |= {"superglobal": asdict(settings) | {"formula": FORMULA}}
    path = source.place.path / f"nn_superglobal.{source.kind}"
    if path.is_file():
        if path.suffix == ".npz":
            check_same(path, about)
        else:
            _log.warning("%s: kept; a pickle does not say how it was made", path)
        return path
    found = Shortlist.load(shortlist, gallery_size=len(gallery))
    if len(found.ids) != len(queries):
        raise AmesError(f"{shortlist}: {len(found.ids)} queries, but {source.files[0]} holds {len(queries)}")
    blocks = rerank_blocks(found, queries, gallery, settings, device=device)
    with source.write(path, len(queries), found.ids.shape[1], about) as write:
        for ids, similarities in shown(blocks, len(queries), "re-rank"):
            write(ids, similarities)
    return path


def rerank(
    found: Shortlist, queries: Vectors, gallery: Vectors, settings: Reranking, *, device: str = "cpu"
) -> Shortlist:
    """Return the re-ranked shortlist, in memory; see ``rerank_blocks``."""
    return collected(rerank_blocks(found, queries, gallery, settings, device=device), found.ids.shape[1])


@torch.inference_mode()
def rerank_blocks(
    found: Shortlist, queries: Vectors, gallery: Vectors, settings: Reranking, *, device: str = "cpu"
) -> Iterator[Found]:
    """Yield (ids int64 [b, M], similarities float32 [b, M]) of the queries' blocks, as in ``found``, with the
    first ``settings.top`` entries of each query re-ranked.

    Their similarities are SuperGlobal's scores; equal ones stay in their order. Those of the other entries
    are lowered by one number per query, if needed, so that they are not above. Images without a vector, on
    either side, are not re-ranked.
    """
    top = min(settings.top, found.ids.shape[1])
    block = max(1, _BYTES // (4 * max(top, 1) * (gallery.width + top)))
    for start in range(0, len(queries), block):
        asked = torch.from_numpy(queries.read(start, start + block)).to(device)
        rows = slice(start, start + len(asked))
        ids, similarities = found.ids[rows].copy(), found.similarities[rows].copy()
        if not top:
            yield ids, similarities
            continue
        head = np.where(ids[:, :top] < 0, 0, ids[:, :top])
        vectors = torch.from_numpy(gallery.gather(head.ravel())).to(device).view(*head.shape, -1)
        present = torch.from_numpy(ids[:, :top] >= 0).to(device) & vectors.any(2) & asked.any(1)[:, None]
        scores = rescore(asked, vectors, present, settings).cpu().numpy()
        yield _reordered(ids, similarities, scores)


def _reordered(ids: np.ndarray, similarities: np.ndarray, scores: np.ndarray) -> Found:
    """Sort the first entries by ``scores`` [b, top]; those of -inf come last, unchanged."""
    top = scores.shape[1]
    order = np.argsort(-scores, axis=1, kind="stable")
    ids[:, :top] = np.take_along_axis(ids[:, :top], order, 1)
    old = np.take_along_axis(similarities[:, :top], order, 1)
    new = np.take_along_axis(scores, order, 1)
    ranked = np.isfinite(new)
    similarities[:, :top] = np.where(ranked, new, old)
    for row, count in zip(similarities, ranked.sum(1), strict=True):
        if 0 < count < len(row):
            row[count:] -= max(row[count] - row[count - 1], 0)
            np.minimum(row[count:], row[count - 1], out=row[count:])  # the difference was rounded
    return ids, similarities


def existing(source: Source) -> Path | None:
    """Return the shortlist that ``make`` would keep."""
    if source.kind == "pkl":  # asked for by name: one of the other kind does not stand in for it
        path = source.place.path / f"nn_{source.folder.descriptors}.pkl"
        return path if path.is_file() else None
    try:
        return source.place.find_shortlist()
    except AmesError:
        return None


def _check_shape(path: Path, queries: int, entries: int | None) -> None:
    """Check the shape of a pickle; entries: None is any number."""
    with named(path):
        _, rows, columns = published_array(load_pickle(path)).shape
    for what, held, wanted in (("queries", rows, queries), ("entries", columns, entries)):
        if wanted is not None and held != wanted:
            raise AmesError(f"{path}: has {held} {what}, not {wanted}; {_MOVE}")


def check_same(path: Path, wanted: Mapping[str, Any], *, redo: str = _MOVE) -> None:
    """Compare with a file's description; what a file of an earlier version lacks counts as equal.

    redo: what makes the file again, for the errors.
    """
    held = read_meta(path)
    if held.get("digest", wanted["digest"]) != wanted["digest"]:
        raise AmesError(f"{path}: made from other descriptors; {redo}")
    if "superglobal" in wanted and of_earlier_formula(held):
        raise AmesError(f"{path}: made by the SuperGlobal formula of an earlier version of ames; {redo}")
    for key in ("entries", "skip_self", "superglobal", "expansion"):
        if key in wanted and held.get(key, wanted[key]) != wanted[key]:
            raise AmesError(f"{path}: made with {key} {held[key]}, not {wanted[key]}; {redo}")


def shown(blocks: Iterator[Found], total: int, what: str) -> Iterator[Found]:
    """Yield the blocks of ``total`` queries and show the progress."""
    with progress(what, total, "queries") as tick:
        for ids, similarities in blocks:
            yield ids, similarities
            tick(len(ids))
