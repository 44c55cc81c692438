"""Scores saved while scoring, so that an interrupted call resumes."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from ames import __version__
from ames.database.manifest import NAME
from ames.database.store import Database
from ames.descriptors.local import DescriptorFile
from ames.errors import AmesError
from ames.io.hashing import add_tensors
from ames.reranking.list_scorer import ListScorer
from ames.reranking.scorer import PairScorer

_PAIR = np.dtype([("query", "<i8"), ("image", "<i8"), ("logit", "<f4")])
_LISTED = np.dtype([("list", "<u8"), ("place", "<i4"), ("logit", "<f4")])

ListKey = tuple[int, ...]  # a query, then the ids of its candidates in their order


class _Cache:
    """Records in a folder, under a key that says what they are scores of.

    Each process appends to a file of its own and reads all that were there when it began, so that two
    calls at once do not disturb each other. A record that a crash cut off is left out. ``len`` is the
    number of scores found.
    """

    record: np.dtype

    def __init__(self, folder: Path, key: str) -> None:
        self._own = folder / f"{key}-{uuid.uuid4().hex[:8]}.scores"
        self._found = sorted(folder.glob(f"{key}-*.scores"))
        parts = [_read(path, self.record) for path in self._found]
        self._records = np.concatenate([np.empty(0, self.record), *parts])

    def __len__(self) -> int:
        return len(self._records)

    def _append(self, count: int, **columns: np.ndarray) -> None:
        """Append records; AmesError where the folder cannot be written."""
        records = np.empty(count, self.record)
        for name, values in columns.items():
            records[name] = values
        try:
            self._own.parent.mkdir(parents=True, exist_ok=True)
            with self._own.open("ab") as file:
                file.write(records.tobytes())
        except OSError as error:
            raise AmesError(f"{self._own}: cannot be written ({error.strerror})") from error

    def clear(self) -> None:
        """Remove what was kept, once the scores are safe elsewhere."""
        for path in {*self._found, self._own}:
            with suppress(OSError):  # in use by another call, where the system minds
                path.unlink(missing_ok=True)


class ScoreCache(_Cache):
    """Logits of (query, image) pairs."""

    record = _PAIR

    def get(self, ids: np.ndarray) -> np.ndarray:
        """Return float32 [Q, M]: saved logits of a shortlist's entries, ids [Q, M]; NaN without one."""
        logits = np.full(ids.shape, np.nan, np.float32)
        records = np.sort(self._records, order=("query", "image"))
        for q, row in enumerate(ids):
            known = records[slice(*np.searchsorted(records["query"], [q, q + 1]))]
            if len(known):
                place = np.searchsorted(known["image"], row).clip(max=len(known) - 1)
                logits[q] = np.where(known["image"][place] == row, known["logit"][place], np.nan)
        return logits

    def append(self, query: np.ndarray, image: np.ndarray, logit: np.ndarray) -> None:
        """Append the scores of pairs, each [P]; AmesError where the folder cannot be written."""
        self._append(len(query), query=query, image=image, logit=logit)


class ListCache(_Cache):
    """Logits of lists. A list is known by its query and its ids in their order, so that protocols and
    lengths, which make other lists, share no scores.
    """

    record = _LISTED

    def get(self, lists: Sequence[ListKey]) -> dict[ListKey, np.ndarray]:
        """Return the logits float32 [K] of those of the lists that were kept whole."""
        records = np.sort(self._records, order=("list", "place"))
        found = {}
        for one in lists:
            digest = np.uint64(_digest(one))
            first = np.searchsorted(records["list"], digest)
            known = records[first : np.searchsorted(records["list"], digest, side="right")]
            _, places = np.unique(known["place"], return_index=True)  # two calls at once may have kept it
            if len(places) == len(one) - 1:
                found[one] = known["logit"][places]
        return found

    def append(self, lists: Sequence[ListKey], logits: np.ndarray) -> None:
        """Append the scores [L, K] of lists of one length; AmesError where the folder cannot be written."""
        places = np.tile(np.arange(logits.shape[1]), len(lists))
        digests = np.repeat(np.array([_digest(one) for one in lists], np.uint64), logits.shape[1])
        self._append(len(places), list=digests, place=places, logit=logits.reshape(-1))


def _digest(one: ListKey) -> int:
    """64 bits of the SHA-256 of a query and the ids of a list."""
    return int.from_bytes(hashlib.sha256(np.array(one, "<i8").tobytes()).digest()[:8], "little")


def _read(path: Path, record: np.dtype) -> np.ndarray:
    try:
        data = path.read_bytes()
    except FileNotFoundError:  # another call has finished since the folder was listed
        data = b""
    return np.frombuffer(data[: len(data) // record.itemsize * record.itemsize], record)


def scores_key(
    scorer: PairScorer | ListScorer,
    files: tuple[DescriptorFile | Database, DescriptorFile | Database],
    counts: tuple[int | None, int | None],
) -> str:
    """What the scores of a call depend on, as 16 hexadecimal digits: the model's weights and number format,
    both files, of queries and gallery (by name, size and time of change), and how many descriptors are used.
    """
    digest = hashlib.sha256()
    arguments = sorted(getattr(scorer.model, "arguments", {}).items())
    settings: list[object] = [__version__, scorer.compute.precision, *counts, arguments]
    for name, module in scorer.model.named_modules():
        plain = {k: v for k, v in sorted(vars(module).items()) if isinstance(v, (int, float, str))}
        settings.append((name, type(module).__name__, plain))
    digest.update(repr(settings).encode())
    add_tensors(digest, scorer.model.state_dict())
    read = [file.path / NAME if file.path.is_dir() else file.path for file in files]
    read += [file.vectors.path for file in files if isinstance(file, DescriptorFile) and file.vectors]
    for file in files:
        if isinstance(file, DescriptorFile) and file.sizes is not None and scorer.model.reads_size:
            digest.update(file.sizes.tobytes())
    for path in read:
        status = path.stat()
        place = path.parent if path.name == NAME else path
        digest.update(f"{place.resolve()} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]
