"""Imported first by every command: ends it in one line where ``ames`` is another package.

Another project of that name is on the public package index. Where its package is found first, or was
installed over this one, every import of ``ames.something`` would end in a traceback that does not say so.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

_OWN = Path(__file__).resolve().parents[1] / "ames"
_NAME = "ames-retrieval"


def foreign() -> str | None:
    """Say in one line why ``ames`` is not this library; None where it is."""
    try:
        spec = importlib.util.find_spec("ames")
    except ValueError:  # a module that was put together by hand
        spec = None
    if spec is None:
        return f"{_OWN.parent} holds no package ames: install {_NAME} again"
    found = Path(spec.origin).resolve().parent if spec.has_location and spec.origin else None
    if found != _OWN:
        place = found or next(iter(spec.submodule_search_locations or []), "memory")
        return (
            f"another package called ames is found before this library's: {place} instead of {_OWN}; "
            "take it from PYTHONPATH and the working folder, or pip uninstall ames"
        )
    try:
        distribution = getattr(importlib.import_module("ames"), "DISTRIBUTION", None)
    except Exception:  # another project's package may fail in any way
        distribution = None
    if distribution != _NAME:
        return (
            f"another project's package ames was installed over this library, in {_OWN}: "
            f"pip uninstall ames {_NAME}, then install {_NAME} again"
        )
    return None


def main() -> int:
    """The command ``ames``."""
    from ames.cli.main import main as run

    return run()


_wrong = foreign()
if _wrong is not None:
    print(f"{Path(sys.argv[0]).stem or 'ames'}: {_wrong}", file=sys.stderr)
    sys.exit(2)
