"""The inverted file of ASMK: which images have a visual word, and their aggregated vectors of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.local_search import index_file
from ames.local_search.aggregation import Aggregated, aggregate_images, packed, unit
from ames.local_search.codebook import Codebook
from ames.local_search.kernel import Kernel
from ames.local_search.postings import Asked, Postings

Found = tuple[np.ndarray, np.ndarray]  # ids int64 [Q, k], similarities float32 [Q, k]


class InvertedFile:
    """Images by their visual words: ``add`` any number of times, ``search``, ``save``, ``load``.

    ``codebook``, ``kernel``: what it was made with. half: real vectors are stored as float16. ``len`` is the
    number of images, ``meta`` what a file says of its origin (what JSON can hold).

    An entry, one word of an image, takes 4 bytes and its code: ⌈D/8⌉ bytes of signs, or 4 D (2 D if ``half``)
    of a real vector. ``bytes_per_image`` is the mean of all, without the codebook.

    The similarity of query X and image Y is Σ w u(σ) over common words, divided by √(Σ_X w · Σ_Y w). Weights
    of idf are those of all images that are held, also after a later ``add``. (The released code then keeps
    the weights of words that the new images lack.) A word of no image weighs 1.
    """

    def __init__(self, codebook: Codebook, kernel: Kernel | None = None, *, half: bool = False) -> None:
        self.codebook, self.kernel, self.half = codebook, kernel or Kernel(), half
        most = max(self.kernel.query_assign, self.kernel.db_assign)
        if most > codebook.words:
            raise AmesError(f"{most} words a descriptor were asked for: the codebook has {codebook.words}")
        if half and self.kernel.binary:
            raise AmesError("half is of real vectors: leave it out for a binary kernel")
        self.meta: Mapping[str, Any] = {}
        self._centroids = torch.from_numpy(codebook.centroids)
        width, dtype = index_file.code_form(codebook.width, binary=self.kernel.binary, half=half)
        empty = np.empty((0, width), dtype)
        self._postings = Postings(np.zeros(codebook.words + 1, np.int64), np.empty(0, np.uint32), empty)
        self._counts = np.empty(0, np.int32)  # words of each image; -1: no image of this id was added
        self._pending: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._idf: np.ndarray | None = None
        self._norms: np.ndarray | None = None

    def __len__(self) -> int:
        return int((self._counts >= 0).sum())

    @property
    def bytes_per_image(self) -> float:
        """Bytes of an image's entries and of its count of words, on average."""
        held = self._merged()
        return (held.images.nbytes + held.codes.nbytes + self._counts.nbytes) / max(len(self), 1)

    # ---- adding ---------------------------------------------------------------------------------

    def add(self, local: LocalFeatures, ids: np.ndarray | None = None) -> None:
        """Add images [n, N, D]. ids: whole numbers [n] from 0 on, each new, in any order; None: the next.

        Nothing of the caller's is changed. AmesError for ids that are not so, or another width;
        NotFiniteError for an image with NaN or infinity. Nothing is added then.
        """
        self._check(local)
        local = local.to("cpu")
        wanted = len(self._counts) + np.arange(len(local.valid)) if ids is None else np.array(ids)
        self._check_ids(wanted, len(local.valid))
        parts, counts = [], np.zeros(len(wanted), np.int32)
        for found in aggregate_images(local, self._centroids, self.kernel.db_assign):
            rows = found.images.numpy()
            counts += np.bincount(rows, minlength=len(wanted)).astype(np.int32)
            parts.append((found.words.numpy(), wanted[rows].astype(np.uint32), self._codes(found)))
        size = max(len(self._counts), int(wanted.max(initial=-1)) + 1)
        grown = np.full(size, -1, np.int32)
        grown[: len(self._counts)] = self._counts
        grown[wanted] = counts
        self._counts, self._idf, self._norms = grown, None, None
        self._pending += parts

    def _check_ids(self, ids: np.ndarray, count: int) -> None:
        if ids.shape != (count,) or (ids.dtype.kind not in "iu" and count):
            raise AmesError(f"ids are {ids.dtype} {list(ids.shape)}: give whole numbers, one for each image")
        if count and (ids.min() < 0 or ids.max() >= 2**31):
            raise AmesError(f"ids are {ids.min()} ... {ids.max()}: give numbers from 0 to 2**31 - 1")
        known = np.flatnonzero(self._counts >= 0)
        twice = np.isin(ids, known)
        twice[np.setdiff1d(np.arange(count), np.unique(ids, return_index=True)[1])] = True
        if twice.any():
            raise AmesError(f"image {ids[twice][0]} is added twice: give each image a new id")

    def _check(self, local: LocalFeatures) -> None:
        if local.valid.ndim != 2:
            shape = list(local.descriptors.shape)
            raise AmesError(f"descriptors are {shape}; expected [images, descriptors, width]")
        if local.coded:
            raise AmesError("these are a model's codes: give descriptors")
        if local.width != self.codebook.width:
            raise AmesError(f"descriptors are {local.width}-d, the codebook takes {self.codebook.width}-d")

    def _codes(self, found: Aggregated) -> np.ndarray:
        if self.kernel.binary:
            return packed(found.vectors)
        return unit(found.vectors).numpy().astype(self._postings.codes.dtype, copy=False)

    def _merged(self) -> Postings:
        """All entries by word. New ones are sorted in here, which holds all of them twice for a moment."""
        if self._pending:
            self._postings, self._pending = self._postings.merged(self._pending), []
        return self._postings

    # ---- search ---------------------------------------------------------------------------------

    def search(self, queries: LocalFeatures, k: int | None = None) -> Found:
        """Return the ``k`` most similar images (None: all; at most those held) of queries [Q, N, D]:
        ids int64 [Q, k], best first, and similarities float32 [Q, k] in [0, 1].

        Equal similarities are ordered by id. Images that share no word with a query have similarity 0: they
        follow, by id. AmesError for k below 1 or another width; NotFiniteError for a query with NaN.
        """
        if k is not None and k < 1:
            raise AmesError(f"{k} images a query were asked for: give at least 1")
        held = np.flatnonzero(self._counts >= 0)
        most = len(held) if k is None else min(k, len(held))
        ids, best = (
            np.empty((len(queries.valid), most), np.int64),
            np.empty((len(queries.valid), most), np.float32),
        )
        for row, scores in enumerate(self.scores(queries)):
            order = _best(scores[held], most)
            ids[row], best[row] = held[order], scores[held[order]]
        return ids, best

    def scores(self, queries: LocalFeatures) -> Iterator[np.ndarray]:
        """Yield the similarities of each query to the images 0 ... the highest id, float32, as ``search``."""
        self._check(queries)
        queries = queries.to("cpu")
        postings, (idf, norms) = self._merged(), self._weights()
        inverse = 1 / np.sqrt(np.where(norms > 0, norms, np.inf))
        for asked in self._asked(queries, idf):
            found = postings.similarities(asked, self.kernel, self.codebook.width, len(norms))
            own = len(asked.words) if asked.weights is None else asked.weights.sum()
            yield (found * inverse / np.sqrt(own if own > 0 else np.inf)).astype(np.float32)

    def _asked(self, queries: LocalFeatures, idf: np.ndarray | None) -> Iterator[Asked]:
        """Yield the words of each query, also of one without any."""
        done = 0
        for found in aggregate_images(queries, self._centroids, self.kernel.query_assign):
            rows, words, codes = found.images.numpy(), found.words.numpy(), self._asked_codes(found)
            last = int(rows[-1]) + 1 if len(rows) else done
            ends = np.searchsorted(rows, np.arange(done, last + 1))
            for start, stop in pairwise(ends):
                own = words[start:stop]
                yield Asked(own, codes[start:stop], None if idf is None else idf[own])
            done = last
        for _ in range(done, len(queries.valid)):
            yield Asked(np.empty(0, np.int64), self._postings.codes[:0], None)

    def _asked_codes(self, found: Aggregated) -> np.ndarray:
        return packed(found.vectors) if self.kernel.binary else unit(found.vectors).numpy()

    def _weights(self) -> tuple[np.ndarray | None, np.ndarray]:
        """(idf float64 [W] or None, Σ w of the words of each image float64 [n])."""
        if not self.kernel.idf:
            return None, np.maximum(self._counts, 0).astype(np.float64)
        if self._idf is None or self._norms is None:
            held = self._merged()
            images = np.diff(held.offsets)
            known = images > 0
            self._idf = np.ones(len(images))
            self._idf[known] = np.log(len(self) / images[known]) ** 2
            self._norms = np.bincount(held.images, self._idf[held.words], minlength=len(self._counts))
        return self._idf, self._norms

    @property
    def idf(self) -> np.ndarray:
        """The weight of each word, float64 [W]: 1 without idf."""
        weights = self._weights()[0]
        return np.ones(self.codebook.words) if weights is None else weights.copy()

    # ---- files ----------------------------------------------------------------------------------

    def save(self, path: Path | str) -> Path:
        """Write entries, counts, settings and the codebook to one file, whole or not; return its path."""
        stored = index_file.Stored(
            kernel=self.kernel,
            meta=self.meta,
            half=self.half,
            codebook=self.codebook,
            counts=self._counts,
            postings=self._merged(),
        )
        return index_file.write(path, stored)

    @classmethod
    def load(cls, path: Path | str, *, check: bool = True) -> InvertedFile:
        """Map what ``save`` wrote: entries are read from the disk as they are used.

        check: read the file once and compare its checksum; without, damage inside lists can go unseen.
        AmesError for any other file, and for a damaged one.
        """
        stored = index_file.read(path, check=check)
        made = cls(stored.codebook, stored.kernel, half=stored.half)
        made._postings, made._counts, made.meta = stored.postings, stored.counts, stored.meta
        return made


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """Return the places of the ``count`` highest, highest first; equal ones in rising order of place."""
    if count >= len(scores):
        return np.argsort(-scores, kind="stable")
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    above = np.flatnonzero(scores > least)
    tied = np.flatnonzero(scores == least)[: count - len(above)]
    return np.append(above[np.argsort(-scores[above], kind="stable")], tied)
