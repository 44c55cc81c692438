"""The folder of a generated set: built aside, whole or not there, and known by its ``dataset.json``."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ames.errors import AmesError
from ames.io.claims import parsed

DESCRIPTION = "dataset.json"  # of a set that is whole


def is_finished(folder: Path, content: Mapping[str, Any]) -> bool:
    """Return whether ``folder`` holds the set whose ``dataset.json`` has this content; AmesError if it holds
    anything else.
    """
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise AmesError(f"{folder} is not a folder; name a new one for the dataset")
    description = folder / DESCRIPTION
    if not description.is_file():
        if any(folder.iterdir()):
            raise AmesError(f"{folder} is not empty and holds no dataset.json; name a new or empty folder")
        return False
    try:
        found = parsed(description.read_text())
    except ValueError:
        raise AmesError(f"{description} is not valid JSON; name a new folder or delete this one") from None
    wanted = json.loads(json.dumps(dict(content)))
    if found != wanted:
        held = found if isinstance(found, dict) else {}
        other = ", ".join(
            f"{k}={held.get(k)!r} not {wanted.get(k)!r}"
            for k in wanted | held
            if held.get(k) != wanted.get(k)
        )
        raise AmesError(f"{folder} holds a dataset of other parameters ({other}); name a new folder")
    return True


@contextmanager
def built_aside(folder: Path) -> Iterator[Path]:
    """A temporary sibling of ``folder`` that takes its name at the end, or vanishes on any failure."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    except OSError as error:
        raise AmesError(f"{folder}: cannot be written ({error.strerror or error})") from error
    try:
        yield aside
        aside.chmod(0o755)  # mkdtemp makes folders that only the owner can read
        if folder.exists():
            folder.rmdir()  # empty, or this fails: nothing of anyone else's is deleted
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
