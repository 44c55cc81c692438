"""Global descriptors as codes of a few bytes, and the search in them: FAISS with a factory string.

Most factories that encode are possible: "Flat", "SQfp16", "SQ8", "SQ4", "PCA64,SQ8", "RaBitQ", and for
large collections "IVF1024,SQ8", "PCA64,IVF4096,PQ32" or "OPQ32_128,IVF4096,PQ32".
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ames.descriptors.unit_length import unit
from ames.errors import AmesError
from ames.global_search.shortlist import Shortlist

_BLOCK = 1 << 16  # vectors or codes handed to FAISS at a time
_NPROBE = 32  # lists of an IVF index that a query visits
_SEARCHABLE = {
    "IndexFlat",
    "IndexFlatIP",
    "IndexScalarQuantizer",
    "IndexPQ",
    "IndexRaBitQ",
    "IndexIVFFlat",
    "IndexIVFPQ",
    "IndexIVFScalarQuantizer",
    "IndexIVFRaBitQ",
}


class GlobalCodec:
    """A trained code for global descriptors; made by ``fit`` or ``from_bytes``.

    ``width``: of the vectors; ``code_bytes``: of a code. Vectors are coded at unit length
    (``ames.descriptors.unit_length.unit``), so that the similarity, FAISS' inner product, is the cosine.
    """

    def __init__(self, index: Any) -> None:
        self._empty = index
        self.width: int = index.d
        self.code_bytes: int = index.sa_code_size()

    @classmethod
    def fit(cls, vectors: np.ndarray, factory: str, *, seed: int = 0) -> GlobalCodec:
        """Train the code of a FAISS factory string on vectors float32 [n, G].

        AmesError for a string that FAISS cannot parse or encode with, for too few vectors, and for values
        that are not finite.
        """

        vectors = _unit(vectors)
        vectors = vectors[np.linalg.norm(vectors, axis=1) > 0]
        if not len(vectors):
            raise AmesError("no global descriptors to fit a codec on: all images are without keypoints")
        index = check_factory(factory, vectors.shape[1])
        order = np.random.default_rng([seed, 22]).permutation(len(vectors))
        try:
            _train(index, vectors[order])
            codec = cls(index)
            codec.index(codec.encode(vectors[:1]), np.ones(1, bool)).search(vectors[:1], 1)
        except RuntimeError as error:
            raise AmesError(
                f"global factory {factory!r} cannot be fitted on {len(vectors)} vectors: {_reason(error)}"
            ) from error
        return codec

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """float32 [n, G] -> uint8 [n, code_bytes]. AmesError for another width, or if not finite."""
        if vectors.ndim != 2 or vectors.shape[1] != self.width:
            raise AmesError(f"global descriptors are {vectors.shape}, the codec takes (n, {self.width})")
        codes = np.empty((len(vectors), self.code_bytes), np.uint8)
        for start in range(0, len(vectors), _BLOCK):
            block = _unit(vectors[start : start + _BLOCK], start)
            codes[start : start + _BLOCK] = self._empty.sa_encode(block)
        return codes

    def length(self, codes: np.ndarray) -> float | None:
        """Return the median length of the vectors that codes uint8 [n, code_bytes] stand for; None without
        codes, or where FAISS cannot decode them.
        """
        if not len(codes):
            return None
        try:
            decoded = self._empty.sa_decode(np.ascontiguousarray(codes))
        except RuntimeError:
            return None
        return float(np.median(np.linalg.norm(decoded, axis=1)))

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """codes uint8 [n, code_bytes] -> float32 [n, G], the vectors that they stand for, at unit length.

        AmesError where FAISS cannot decode them.
        """
        try:
            decoded = self._empty.sa_decode(np.ascontiguousarray(codes))
        except RuntimeError as error:
            raise AmesError(f"these global codes cannot be decoded: {_reason(error)}") from error
        return _unit(decoded)

    def to_bytes(self) -> bytes:
        """Serialize an index without vectors. Store a checksum too: FAISS trusts what it reads."""
        import faiss

        return faiss.serialize_index(self._empty).tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> GlobalCodec:
        """Read what ``to_bytes`` wrote; AmesError for data that FAISS cannot read or that holds vectors."""
        import faiss

        try:
            index = faiss.deserialize_index(np.frombuffer(data, np.uint8))
        except RuntimeError as error:
            raise AmesError(f"not a codec of FAISS ({_reason(error)})") from error
        if index.ntotal or not index.is_trained:
            raise AmesError("not a codec: an index that holds vectors, or was not trained")
        return cls(index)

    def index(self, codes: np.ndarray, present: np.ndarray) -> GlobalIndex:
        """Index the codes uint8 [n, code_bytes] that are ``present``, bool [n], without decoding them."""
        import faiss

        if codes.shape != (len(present), self.code_bytes):
            raise AmesError(
                f"codes are {codes.shape}, expected ({len(present)}, {self.code_bytes}): one for each image, "
                "of this codec"
            )
        whole = faiss.clone_index(self._empty)
        inner = faiss.downcast_index(whole)
        if isinstance(inner, faiss.IndexPreTransform):
            inner = faiss.downcast_index(inner.index)
        rows = np.flatnonzero(present)
        for start in range(0, len(rows), _BLOCK):
            inner.add_sa_codes(np.ascontiguousarray(codes[rows[start : start + _BLOCK]]))
        whole.ntotal = inner.ntotal
        return GlobalIndex(whole, rows, len(codes))


class GlobalIndex:
    """Searches codes; made by ``GlobalCodec.index``. ``rows``: the images that can be found."""

    def __init__(self, index: Any, rows: np.ndarray, images: int) -> None:
        self._index, self.rows, self._images = index, rows, images

    def search(self, queries: np.ndarray, k: int, *, nprobe: int = _NPROBE) -> Shortlist:
        """Return the ``k`` most similar images of each query float32 [Q, G], by the cosine with the decoded
        vectors; if there are fewer, the last entries are -1.

        A zero query, of an image without keypoints, finds nothing. nprobe: lists to visit, if the index has
        lists. AmesError for another width, a query that is not finite, or a ``k`` below 0.
        """
        import faiss

        if k < 0:
            raise AmesError(f"{k} images a query were asked for; give 0 or more")
        if queries.ndim != 2 or queries.shape[1] != self._index.d:
            raise AmesError(f"queries are {queries.shape}, the database's vectors (n, {self._index.d})")
        queries = _unit(queries, what="query")
        k = min(k, self._images)
        ids = np.full((len(queries), k), -1, np.int64)
        similarities = np.full((len(queries), k), -1, np.float32)
        asking = np.flatnonzero(np.linalg.norm(queries, axis=1) > 0)
        wanted = min(k, len(self.rows))
        if not len(asking) or not wanted:
            return Shortlist(ids, similarities)
        inner = faiss.try_extract_index_ivf(self._index)
        if inner is not None:
            inner.nprobe = min(nprobe, inner.nlist)
        found, places = self._index.search(queries[asking], wanted)
        valid = places >= 0
        ids[asking[:, None], np.arange(wanted)] = np.where(valid, self.rows[places], -1)
        similarities[asking[:, None], np.arange(wanted)] = np.where(valid, found, -1)
        return Shortlist(ids, similarities)


def _unit(vectors: np.ndarray, first: int = 0, what: str = "image") -> np.ndarray:
    """C-contiguous float32 [n, G] of unit length, as FAISS takes them; the first one is number ``first``."""
    with np.errstate(over="ignore"):  # of float64, which ``unit`` finds
        vectors = np.ascontiguousarray(vectors, np.float32)
    return unit(vectors, lambda row: f"global descriptors: the vector of {what} {first + row}")


def _check_parts(factory: str, index: Any) -> None:
    """Refuse factories with which FAISS encodes, but cannot search by the inner product, or packs wrongly
    without an error (the FastScan kinds with lists).
    """
    import faiss

    inner: Any = faiss.downcast_index(index)
    if type(inner).__name__ == "IndexPreTransform":
        for step in _steps(inner):
            if isinstance(step, faiss.PCAMatrix) and step.eigen_power:
                raise AmesError(
                    f"global factory {factory!r}: whitening changes the similarity; take PCA or PCAR"
                )
        inner = faiss.downcast_index(inner.index)
    if type(inner).__name__ not in _SEARCHABLE:
        raise AmesError(
            f"global factory {factory!r}: a {type(inner).__name__} cannot be kept as codes; take Flat, SQ, "
            "PQ or RaBitQ, with or without IVF"
        )


def _train(index: Any, vectors: np.ndarray) -> None:
    """Train as FAISS does, except PCA: FAISS subtracts the mean, which changes inner products."""
    import faiss

    whole: Any = faiss.downcast_index(index)
    if type(whole).__name__ != "IndexPreTransform":
        index.train(vectors)
        return
    for step in _steps(whole):
        centred = isinstance(step, faiss.PCAMatrix)
        step.train(np.concatenate((vectors, -vectors)) if centred else vectors)  # together their mean is 0
        vectors = step.apply(vectors)
    whole.index.train(vectors)
    whole.is_trained = True


def _steps(index: Any) -> list[Any]:
    """The transforms before an IndexPreTransform."""
    import faiss

    return [faiss.downcast_VectorTransform(index.chain.at(i)) for i in range(index.chain.size())]


def check_factory(factory: str, width: int) -> Any:
    """Return the untrained index of a FAISS factory string for vectors of a width.

    AmesError for a string that FAISS cannot parse or encode with.
    """
    import faiss

    if not isinstance(factory, str):
        raise AmesError(f"global factory is a {type(factory).__name__}: give FAISS' text, such as SQ4")
    if re.search(r"(?<!\d)0(?!\d)", factory):  # FAISS divides by it
        raise AmesError(f"global factory {factory!r}: a size of 0")
    try:
        index = faiss.index_factory(width, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise AmesError(f"global factory {factory!r}: {_reason(error)}") from error
    _check_parts(factory, index)
    return index


def _reason(error: RuntimeError) -> str:
    """Return what FAISS says, without the place in its source and the condition that failed there."""
    said = re.sub(r"^Error in .* at \S+:\d+: ", "", str(error).strip().splitlines()[-1])
    said = re.sub(r"^'.*' failed: (?=\S)", "", said.split("Error: ")[-1])
    return said.removesuffix(".")
