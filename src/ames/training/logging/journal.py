"""The journal of a training: its metrics, one JSON object per line, also readable while it runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from io import FileIO
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from ames.errors import AmesError
from ames.io.atomic import atomic_file
from ames.io.claims import parsed

ENDING = "-journal.jsonl"


def journal_path(model: Path | str) -> Path:
    """Return the journal's path of a model file: ``teacher.pt`` has ``teacher-journal.jsonl`` beside it."""
    return Path(model).with_name(Path(model).stem + ENDING)


class Journal:
    """Appends metrics to a file. Each record has a ``kind`` ("step" or "epoch") and under ``step`` the
    number of steps after which it was taken, over the whole training; that of an epoch also ``epoch``.

    Records must be written before the state of their step is kept. The journal of a resumed training then
    equals that of an uninterrupted one, except for times.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file: FileIO | None = None
        self._begun = 0
        self._there: set[str] = set()  # the kinds of the records that step ``begun`` has already

    def begin(self, step: int) -> None:
        """Open the file after ``step`` steps: remove later lines and an incomplete last one, at 0 all.

        AmesError where the file is not a journal or cannot be written.
        """
        self.close()
        there = read_journal(self.path) if step and self.path.exists() else []
        kept = [record for record in there if record["step"] <= step]
        with atomic_file(self.path) as file:
            file.writelines(map(_line, kept))
        self._begun, self._there = step, {x["kind"] for x in kept if x["step"] == step}
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - until close()

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record; metrics that are not finite become null, because JSON has no NaN.

        A record of the step it was begun at is skipped if it exists: a training that is killed between
        its record and its state takes the same metrics again. AmesError where the disk is full.
        """
        if self._file is None:
            raise ValueError("begin() opens a journal, which was not called")
        record = _plain(record)
        if not _sound(record):
            raise ValueError(f"{record} does not say what kind it is, and of which step or epoch")
        if record["step"] == self._begun and record["kind"] in self._there:
            return
        line = _line(record)
        try:
            written = self._file.write(line)
        except OSError as error:
            raise AmesError(f"{self.path}: cannot be written ({error.strerror or error})") from error
        if written != len(line):
            raise AmesError(f"{self.path}: cannot be written (the disk is full)")

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read_journal(path: Path | str) -> list[dict[str, Any]]:
    """The records of a journal, also of one that is being written: a torn last line is left out.

    AmesError names the file that is not there, or the first line that is no record.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise AmesError(f"{path}: cannot be read ({error.strerror or error})") from error
    last = lines.pop()
    records = [_record(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]
    # What a crash leaves of a line is its beginning; of a block that had not reached the disk, zeros.
    if last.startswith(b"{"):
        with suppress(AmesError):  # only its end may be missing
            records.append(_record(last, str(path)))
    elif last.strip(b"\0"):
        raise _garbage(f"{path}, line {len(lines) + 1}")
    return records


def _record(line: bytes, where: str) -> dict[str, Any]:
    try:
        found = parsed(line)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not _sound(found):
        raise _garbage(where)
    return found


def _sound(record: Mapping[str, Any]) -> bool:
    """Return whether a record has a kind and a step; its metrics are not checked."""
    needed = {"step": ("step",), "epoch": ("step", "epoch")}.get(str(record.get("kind")), ("kind",))
    return all(type(record.get(key)) is int and record[key] >= 0 for key in needed)


def _garbage(where: str) -> AmesError:
    return AmesError(f"{where}: no record of a training; remove that line, or the file")


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, allow_nan=False).encode() + b"\n"


def _plain(value: Any) -> Any:
    """Return a value for JSON: numbers of numpy as those of Python, None for what is not finite."""
    if isinstance(value, Mapping):
        return {key: _plain(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(x) for x in value]
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if math.isfinite(value) else None
