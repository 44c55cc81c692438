"""Download released weights and descriptors by name; an interrupted download resumes.

    python scripts/download.py --list
    python scripts/download.py dinov2_ames roxford5k [--dest DIR]

Weights go to DEST/<name>.pt, data to DEST/data/<data set>/, where the paper's commands look for them. Needs
nothing but Python.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path, PurePosixPath
from urllib.parse import urljoin

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import ames_retrieval.door  # noqa: F401 - sees to it that what follows is this library
from ames.errors import AmesError, unknown
from ames.io.console import OneLineParser, run_script
from ames.io.download import download, pinned
from ames.models.registry import released_files
from ames.weights import released


def main() -> None:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", help="of --list, or paths below the address")
    parser.add_argument("--list", action="store_true", help="show the names and their files")
    parser.add_argument("--dest", type=Path, default=Path("."), help="folder (default: this one)")
    parser.add_argument("--base", default=released.BASE, help=f"address (default: {released.BASE})")
    args = parser.parse_args()
    known = released_files() | released.files()
    if args.list:
        for name, paths in known.items():
            print(f"{name}: {' '.join(paths)}")
        return
    if not args.names:
        raise AmesError("no name given; --list shows them")
    known |= {name: [name] for name in args.names if "/" in name}
    missing = [name for name in args.names if name not in known]
    if missing:
        raise AmesError(unknown("file", missing[0], known))
    base = args.base.rstrip("/") + "/"
    for place in dict.fromkeys(place for name in args.names for place in known[name]):
        fetch(urljoin(base, place), args.dest / PurePosixPath(place.rpartition("networks/")[2]))


def fetch(url: str, path: Path) -> None:
    """One file, with its size and SHA-256."""
    there = path.is_file()
    size = download(url, path, progress=None if there or not sys.stderr.isatty() else _show(path.name))
    digest, first = pinned(path)
    print(f"{path}: {'is there already, ' if there else ''}{size} bytes, SHA-256 {digest}", end="")
    print(" (noted)" if first else " (as noted)", flush=True)


def _show(name: str):
    def progress(done: int, total: int | None) -> None:
        share = f" of {total / 1e6:.1f}" if total else ""
        print(f"\r{name}: {done / 1e6:.1f}{share} MB", end="" if done != total else "\n", file=sys.stderr)

    return progress


if __name__ == "__main__":
    run_script("download", main)
