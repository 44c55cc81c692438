"""Global search in the codes of a database."""

from __future__ import annotations

import numpy as np

from ames.database.store import Database, read_file
from ames.errors import AmesError
from ames.global_search.codes import GlobalCodec, GlobalIndex
from ames.global_search.shortlist import Shortlist

SIMILARITY, COSINE = "similarity", "cosine"  # in the manifest's source: vectors were coded at unit length
_MEASURED = 1000  # codes that are decoded where the manifest does not say so
_SHORT, _LONG = 0.3, 1.2  # lengths that a lossy code of a vector of unit length may have


def open_codec(database: Database) -> tuple[GlobalCodec, np.ndarray, np.ndarray]:
    """Return the global codec of a database, all codes uint8 [n, bytes], and bool [n]: which images have one.

    AmesError where there are none, they are damaged, or they are of vectors that are far from unit length:
    earlier versions stored vectors as they were given. Newer databases say that theirs are of unit length.
    """
    codes, present = database.global_codes()
    codec = _read_codec(database)
    if not _says_cosine(database):
        found = codes[present]
        length = codec.length(found[:: max(1, len(found) // _MEASURED)])
        if length is not None and not _SHORT <= length <= _LONG:
            raise AmesError(
                f"{database.path}: its global codes are of vectors of length {length:.3g}, as an earlier "
                "version stored them; their similarities are no cosines: compress the descriptors again"
            )
    return codec, codes, present


def codec_for_more(database: Database) -> GlobalCodec:
    """Return the global codec of a database that gets more images; errors as of ``open_codec``.

    Its codes are read only where nothing says what they are, so that the time does not grow with the images.
    """
    return _read_codec(database) if _says_cosine(database) else open_codec(database)[0]


def _read_codec(database: Database) -> GlobalCodec:
    file = database.manifest.codec
    assert file is not None, "a database with global codes has a codec"
    return GlobalCodec.from_bytes(read_file(database.path, file))


def _says_cosine(database: Database) -> bool:
    return database.manifest.source.get(SIMILARITY) == COSINE


def open_index(database: Database) -> GlobalIndex:
    """Return the global index of a database, in memory; deleted images are not in it."""
    codec, codes, present = open_codec(database)
    return codec.index(codes, present)


def search_database(database: Database, vectors: np.ndarray, k: int | None = None) -> Shortlist:
    """Global search by cosine: vectors float32 [Q, G] -> the ``k`` most similar images (None: all)."""
    return open_index(database).search(vectors, len(database) if k is None else k)
