"""Global search in the codes of a database."""

from __future__ import annotations

import numpy as np

from ames.database.build import check_cosines, load_codec
from ames.database.store import Database
from ames.search.codes import GlobalIndex
from ames.search.shortlist import Shortlist


def open_index(database: Database) -> GlobalIndex:
    """The global index of a database, in memory; deleted images are not in it. AmesError where its codes are
    of vectors that are not of unit length, as an earlier version may have stored them.
    """
    codes, present = database.global_codes()
    codec = load_codec(database)
    check_cosines(database, codec, codes[present])
    return codec.index(codes, present)


def search_database(database: Database, vectors: np.ndarray, k: int | None = None) -> Shortlist:
    """Global search by cosine: vectors float32 [Q, G] -> the ``k`` most similar images (None: all)."""
    return open_index(database).search(vectors, len(database) if k is None else k)
