"""Scores saved while scoring, so that an interrupted call resumes."""

from __future__ import annotations

import hashlib
import uuid
from contextlib import suppress
from pathlib import Path

import numpy as np

from ames import __version__
from ames.database.manifest import NAME
from ames.database.store import Database
from ames.descriptors.local import DescriptorFile
from ames.errors import AmesError
from ames.io.hashing import add_tensors
from ames.reranking.scorer import PairScorer

_RECORD = np.dtype([("query", "<i8"), ("image", "<i8"), ("logit", "<f4")])


class ScoreCache:
    """Logits of (query, image) pairs in a folder, under a key of what they depend on (``scores_key``).

    Each process appends to its own file and reads the files that existed when it began, so that several calls
    can run at once. An incomplete last record is left out. ``len`` is the number of pairs found.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._own = folder / f"{key}-{uuid.uuid4().hex[:8]}.scores"
        self._found = sorted(folder.glob(f"{key}-*.scores"))
        self._records = np.concatenate([np.empty(0, _RECORD), *(_read(path) for path in self._found)])

    def __len__(self) -> int:
        return len(self._records)

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
        """Append the scores of pairs, each [P]; AmesError if the folder cannot be written."""
        records = np.empty(len(query), _RECORD)
        records["query"], records["image"], records["logit"] = query, image, logit
        try:
            self._own.parent.mkdir(parents=True, exist_ok=True)
            with self._own.open("ab") as file:
                file.write(records.tobytes())
        except OSError as error:
            raise AmesError(f"{self._own}: cannot be written ({error.strerror})") from error

    def clear(self) -> None:
        """Remove the files, after the scores were written elsewhere."""
        for path in {*self._found, self._own}:
            with suppress(OSError):  # in use by another call, where the system forbids removal
                path.unlink(missing_ok=True)


def _read(path: Path) -> np.ndarray:
    try:
        data = path.read_bytes()
    except FileNotFoundError:  # another call has finished since the folder was listed
        data = b""
    return np.frombuffer(data[: len(data) // _RECORD.itemsize * _RECORD.itemsize], _RECORD)


def scores_key(
    scorer: PairScorer,
    queries: DescriptorFile,
    gallery: DescriptorFile | Database,
    *,
    query_count: int | None,
    database_count: int | None,
) -> str:
    """Return 16 hexadecimal digits of what scores depend on: the model's weights and number format, both
    files (name, size and time of change) and the numbers of descriptors.
    """
    digest = hashlib.sha256()
    settings: list[object] = [__version__, scorer.compute.precision, query_count, database_count]
    for name, module in scorer.model.named_modules():
        plain = {k: v for k, v in sorted(vars(module).items()) if isinstance(v, (int, float, str))}
        settings.append((name, type(module).__name__, plain))
    digest.update(repr(settings).encode())
    add_tensors(digest, scorer.model.state_dict())
    for file in (queries, gallery):
        status = (file.path / NAME if file.path.is_dir() else file.path).stat()
        digest.update(f"{file.path.resolve()} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]
