"""The manifest of a database: its files, and what they were made from.

It is the only file that changes: replacing it as a whole replaces the old database by the new one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ames.database.segment import RowLayout
from ames.errors import AmesError
from ames.io.atomic import atomic_file
from ames.io.claims import parsed

NAME, FORMAT, VERSION = "manifest.json", "ames database", 1


@dataclass(frozen=True)
class File:
    """A file of the database, its size and its SHA-256 (None: each row has a checksum)."""

    name: str
    bytes: int
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """slots, code_bytes, codes ("bits" or "float16"), global_bytes: the rows. projection: fingerprint of the
    model's projection. segments, their rows; deleted: bitmap of rows; codec: the trained global codec and
    its factory. provenance: of the descriptors. building: rows that a build will have, None after it has
    finished. generation: increases with each change.
    """

    slots: int
    code_bytes: int
    codes: str
    global_bytes: int
    projection: str
    model: dict[str, Any]
    segments: tuple[File, ...] = ()
    rows: tuple[int, ...] = ()
    deleted: File | None = None
    codec: File | None = None
    factory: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    building: int | None = None
    generation: int = 0

    @property
    def layout(self) -> RowLayout:
        return RowLayout(self.slots, self.code_bytes, self.global_bytes)

    @property
    def files(self) -> set[str]:
        """Names of all files of the database except the manifest."""
        return {file.name for file in self._files()}

    @property
    def file_bytes(self) -> int:
        """Their size as written: a later change may have removed them."""
        return sum(file.bytes for file in self._files())

    def _files(self) -> list[File]:
        return [file for file in (*self.segments, self.deleted, self.codec) if file]

    def save(self, folder: Path) -> None:
        """Replace the folder's manifest; the files that it names must be durable before."""
        body = asdict(self)
        digest = hashlib.sha256(_text(body)).hexdigest()
        content = {"format": FORMAT, "version": VERSION, "sha256": digest} | body
        with atomic_file(folder / NAME) as file:
            file.write(json.dumps(content, indent=1).encode())

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read a folder's manifest; AmesError if it is missing, damaged or of another version."""
        path = folder / NAME
        try:
            content = parsed(path.read_bytes())
        except FileNotFoundError:
            what = f"no database (no {NAME})" if folder.is_dir() else "no such folder"
            raise AmesError(f"{folder}: {what}; make one with ames index or ames compress") from None
        except NotADirectoryError:
            raise AmesError(f"{folder}: a file; a database is a folder that ames index makes") from None
        except OSError as error:
            raise AmesError(f"{path}: cannot be read ({error.strerror or error})") from error
        except ValueError as error:
            raise AmesError(f"{path}: damaged (not JSON)") from error
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise AmesError(f"{path}: not the manifest of a database")
        version = content.pop("version", None)
        if version != VERSION:
            raise AmesError(f"{path}: version {version} of the format, this library reads {VERSION}")
        if content.pop("sha256", None) != hashlib.sha256(_text(content)).hexdigest():
            raise AmesError(f"{path}: damaged (its checksum is wrong)")
        content["segments"] = tuple(File(**item) for item in content["segments"])
        content["rows"] = tuple(content["rows"])
        for key in ("deleted", "codec"):
            content[key] = None if content[key] is None else File(**content[key])
        return cls(**content)


def _text(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True).encode()
