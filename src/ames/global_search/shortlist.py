"""The result of a global search: the nearest gallery images of each query, best first."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ames.errors import AmesError
from ames.io.archives import reading_npz
from ames.io.atomic import atomic_file
from ames.io.claims import parsed
from ames.io.pickles import load_pickle

_IDS_AT_ONCE = 1 << 20  # sorted together
_ROWS_AT_ONCE = 4096  # of a check: bounds the memory that it takes beside arrays of gigabytes


@dataclass(frozen=True, eq=False)
class Shortlist:
    """Nearest gallery images of each query.

    ids: int64 [Q, M] positions in the gallery, best first, each once per query; -1 is no entry.
    similarities: float32 [Q, M], finite where there is an entry.
    meta: origin: dataset, descriptors, gallery_size.
    Other integer and floating dtypes are converted. Raises AmesError when the shapes differ or are not two
    dimensional, ids are not integers (stored floats lose ids above 2**24), a value is out of its range, or a
    query names an image twice (not checked if ``distinct`` is False, to inspect a file).
    """

    ids: np.ndarray
    similarities: np.ndarray
    meta: Mapping[str, Any] = field(default_factory=dict)
    distinct: InitVar[bool] = True

    def __post_init__(self, distinct: bool) -> None:
        ids, similarities = np.asarray(self.ids), np.asarray(self.similarities)
        if ids.dtype.kind not in "iu":
            raise AmesError(f"ids of a shortlist must be integers, not {ids.dtype}: convert them to int64")
        if similarities.dtype.kind not in "fiu":
            raise AmesError(f"similarities of a shortlist must be float32, not {similarities.dtype}")
        if ids.ndim != 2 or ids.shape != similarities.shape:
            raise AmesError(
                f"shortlist needs ids and similarities of one shape [queries, entries], not "
                f"{list(ids.shape)} and {list(similarities.shape)}"
            )
        if ids.size and ids.min() < -1:
            raise AmesError(f"shortlist holds the id {ids.min()}: ids start at 0, and -1 is no entry")
        ids = ids.astype(np.int64, copy=False)
        with np.errstate(over="ignore"):
            similarities = similarities.astype(np.float32, copy=False)
        _check_finite(ids, similarities)
        twice = first_repeated(ids) if distinct else None
        if twice is not None:
            raise AmesError(
                f"query {twice[0]} names gallery image {twice[1]} more than once: make the shortlist again"
            )
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "similarities", similarities)

    def where(self, mask: np.ndarray) -> "Shortlist":
        """Return the entries that ``mask``, bool [Q, M], selects; the others are empty."""
        return Shortlist(np.where(mask, self.ids, -1), self.similarities, self.meta, distinct=False)

    def save(self, path: Path | str, *, meta: Mapping[str, Any] | None = None) -> Path:
        """Write the shortlist as ``.npz``, whole or not at all, and return the path.

        meta: added to the shortlist's own; what JSON can hold.
        Raises AmesError when the name does not end in ``.npz`` or the file cannot be written.
        """
        path = Path(path)
        if path.suffix != ".npz":
            raise AmesError(f"{path}: a shortlist is saved as .npz: give a name that ends in .npz")
        text = json.dumps({**self.meta, **(meta or {})})
        with atomic_file(path) as file:
            np.savez(file, ids=self.ids, similarities=self.similarities, meta=np.array(text))
        return path

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        gallery_size: int | None = None,
        columns: int | None = None,
        distinct: bool = True,
    ) -> "Shortlist":
        """Read what ``save`` wrote, or a published ``.pkl``; nothing in the file is executed.

        columns: first entries of each query to keep in memory (None: all). distinct: as in the class.
        Raises AmesError naming the file when it is missing, broken or no shortlist, when an id is outside
        of a gallery of ``gallery_size`` images or named twice by a query, or when the floats of a ``.pkl``
        do not hold its ids exactly.
        """
        path = Path(path)
        if columns is not None and columns < 1:
            raise AmesError(f"{path}: {columns} columns of the shortlist were asked for: give at least 1")
        with named(path):
            if path.suffix == ".pkl":
                shortlist = cls.from_array(load_pickle(path), columns=columns, distinct=distinct)
            else:
                content = _read(path)
                ids, similarities = (content[name] for name in ("ids", "similarities"))
                if columns is not None:  # copies: a view would keep the rest in memory
                    ids, similarities = ids[..., :columns].copy(), similarities[..., :columns].copy()
                shortlist = cls(ids, similarities, _meta(content["meta"]), distinct)
        highest = int(shortlist.ids.max(initial=-1))
        if gallery_size is not None and highest >= gallery_size:
            raise AmesError(
                f"{path}: shortlist holds the id {highest} but the gallery has {gallery_size} images: "
                "use the shortlist of this gallery"
            )
        return shortlist

    @classmethod
    def from_array(cls, content: Any, *, columns: int | None = None, distinct: bool = True) -> "Shortlist":
        """Convert a published array or tensor [2, Q, M]: similarities, then ids, often as floats.

        Raises AmesError for another shape, and for ids that are not whole or not exact in their type.
        """
        similarities, ids = published_array(content)[..., :columns]
        return cls(whole_ids(ids), similarities.astype(np.float32), distinct=distinct)


def read_meta(path: Path | str) -> dict[str, Any]:
    """Read the meta of an ``.npz`` of ``Shortlist.save``, without its entries.

    Raises AmesError naming the file when it is missing, broken or no shortlist.
    """
    with named(path):
        return _meta(_read(Path(path), ("meta",))["meta"])


@contextmanager
def named(path: Path | str) -> Iterator[None]:
    """Begin errors about a file's content with its name."""
    try:
        yield
    except AmesError as error:
        raise error if str(error).startswith(f"{path}: ") else AmesError(f"{path}: {error}") from error


def published_array(content: Any) -> np.ndarray:
    """Return the array (2, queries, entries) of a published pickle: similarities, then ids, as numbers."""
    if isinstance(content, torch.Tensor):
        content = content.detach().numpy()
    if not isinstance(content, np.ndarray):
        found = f"a {type(content).__name__}"
    elif content.ndim != 3 or len(content) != 2 or content.dtype.kind not in "fiu":
        found = f"{content.dtype} {content.shape}"
    else:
        return content
    raise AmesError(f"not a shortlist: expected an array (2, queries, entries), found {found}")


def _meta(text: np.ndarray) -> dict[str, Any]:
    try:
        meta = parsed(str(text[()]))
    except ValueError:
        meta = None
    if not isinstance(meta, dict):
        raise AmesError("meta of the shortlist is not a JSON dict: write the file again")
    return meta


def whole_ids(stored: np.ndarray) -> np.ndarray:
    """Convert stored numbers to int64 exactly; each float type is exact only up to a limit."""
    if stored.dtype.kind != "f":
        return stored.astype(np.int64)
    limit = 2 ** (np.finfo(stored.dtype).nmant + 1)
    ids = np.empty(stored.shape, np.int64)
    for start in range(0, len(ids), _ROWS_AT_ONCE):
        part = stored[start : start + _ROWS_AT_ONCE]
        whole = np.isfinite(part) & (part == np.floor(part))
        if not whole.all():
            raise AmesError(f"the id {part[~whole][0]} of the shortlist is not a whole number")
        if part.size and part.max() >= limit:
            raise AmesError(
                f"the id {int(part.max())} of the shortlist is stored as {part.dtype}, which is exact only "
                f"below {limit}: make the shortlist again with whole numbers"
            )
        ids[start : start + _ROWS_AT_ONCE] = part
    return ids


def repeated(ids: np.ndarray) -> np.ndarray:
    """Return bool [B, C]: entries whose image is also earlier in the row; -1 is none."""
    found = np.zeros(ids.shape, bool)
    ordered = np.sort(ids.astype(np.int32) if ids.max(initial=0) < 2**31 else ids, axis=1)
    rows = np.flatnonzero(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(1))
    if len(rows):  # a stable order, which takes longer, where there is something
        order = np.argsort(ids[rows], axis=1, kind="stable")
        ordered = np.take_along_axis(ids[rows], order, axis=1)
        again = np.zeros(ordered.shape, bool)
        again[:, 1:] = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
        found[rows[:, None], order] = again
    return found


def first_repeated(ids: np.ndarray) -> tuple[int, int] | None:
    """Return the first row of ids [B, M] that names an image twice, and the image; None if there is none."""
    for start, again in _repeats(ids):
        places = np.argwhere(again)
        if len(places):
            row, column = places[0]
            return start + int(row), int(ids[start + row, column])
    return None


def count_repeated(ids: np.ndarray) -> int:
    """Count the entries of ids [B, M] that are ``repeated``."""
    return sum(int(again.sum()) for _, again in _repeats(ids))


def _repeats(ids: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield ``repeated`` of blocks of rows, with their first row: this bounds memory."""
    rows = max(1, _IDS_AT_ONCE // max(ids.shape[1], 1))
    for start in range(0, len(ids), rows):
        yield start, repeated(ids[start : start + rows])


def _check_finite(ids: np.ndarray, similarities: np.ndarray) -> None:
    """Raise AmesError at the first similarity of an entry that is infinite or not a number."""
    for start in range(0, len(ids), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        bad = np.argwhere(~np.isfinite(similarities[part]) & (ids[part] >= 0))
        if len(bad):
            row, column = bad[0]
            value = similarities[part][row, column]
            raise AmesError(
                f"similarity of query {start + row}, entry {column} is {value}: it must be finite"
            )


def _read(path: Path, names: tuple[str, ...] = ("ids", "similarities", "meta")) -> dict[str, np.ndarray]:
    """Arrays of the file."""
    if not path.is_file():
        raise AmesError(f"{path}: there is no such shortlist file")
    with reading_npz(path, "an .npz file of a shortlist"), np.load(path, allow_pickle=False) as archive:
        missing = [name for name in names if name not in archive]
        if missing:
            raise AmesError(f"{path}: not the file of a shortlist: it lacks {', '.join(missing)}")
        return {name: archive[name] for name in names}
