"""The photographs of a set: found, given to one split each, and kept reduced on a shelf.

A photograph belongs to the split that the hash of its file names, so no two splits share a file. A shelf is
a folder of reduced copies, which all processes read: a set needs each photograph many times, and decoding a
large one takes longer than drawing a picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ames.datasets.finding import find_images
from ames.datasets.images import UnreadableImage, decode
from ames.datasets.landmarks.textures import Array
from ames.errors import AmesError
from ames.io.text import counted

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}  # of the photographs, for each split
FEWEST = 4  # photographs of a split, cut-outs not counted
LONG_SIDE = 1280  # pixels of a reduced photograph
SHORT_SIDE = 160  # a smaller photograph is left out: its parts would be a few pixels wide
CUT_OUT_SIDE = 96  # the same for cut-outs, which are things as a whole
KEPT = 44  # decoded photographs that a process keeps: at most 290 MB
DETAIL = 12  # rows and columns of a photograph's map of detail
_QUALITY = 95  # of reduced copies
_NAMED = 5


@dataclass(frozen=True)
class Record:
    """What ``dataset.json`` says about the photographs. format: version of the drawing with photographs."""

    number: int
    digest: str
    format: int = 1


class Shot(NamedTuple):
    """A photograph on the shelf."""

    name: str  # of its file
    size: tuple[int, int]  # (height, width) of the reduced copy
    detail: bytes  # DETAIL × DETAIL: mean gradient of each part, grey levels
    variety: float  # how much the parts differ in colour, grey levels; see ``variety_of``
    cut_out: bool  # has an alpha channel that hides some of it


@dataclass(frozen=True)
class Found:
    """The photographs of a folder, sorted by (hash of the file, path), each content once."""

    folder: Path
    files: tuple[tuple[str, Path], ...]
    notes: tuple[str, ...]  # lines about files that are no images

    @property
    def record(self) -> Record:
        """Number and digest of the contents; names do not count, because no picture depends on them."""
        digest = hashlib.sha256("".join(content for content, _ in self.files).encode())
        return Record(len(self.files), digest.hexdigest())

    def of_split(self, split: str) -> list[Path]:
        """The files that belong to a split."""
        return [path for content, path in self.files if split_of(content) == split]


def find_photographs(folder: Path | str) -> Found:
    """All images below ``folder``. AmesError if there is none, or one cannot be opened."""
    folder = Path(folder)
    found = find_images(folder)
    contents: dict[str, Path] = {}
    for name in found.names:
        try:
            content = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError as error:
            raise AmesError(f"{folder / name}: cannot be read ({error.strerror})") from error
        contents.setdefault(content, folder / name)
    return Found(folder, tuple(sorted(contents.items())), tuple(found.notes()))


def split_of(content: str) -> str:
    """The split of the file whose hash in hexadecimal is ``content``."""
    place, below = int(content[:12], 16) / 16**12, 0.0
    for split, share in SHARES.items():
        below += share
        if place < below:
            return split
    return list(SHARES)[-1]


def shelve(task: tuple[Path, Path]) -> Shot | str:
    """Write the reduced copy of a photograph; return what is on the shelf, or why nothing is.

    task: the photograph and the path of the copy without a suffix. A cut-out becomes a PNG of four channels,
    cropped to what it shows.
    """
    source, target = task
    try:
        data = source.read_bytes()
        image = decode(data)
    except (OSError, UnreadableImage) as error:
        return str(error)
    alpha = alpha_of(data, image.shape[:2])
    if alpha is not None:
        x, y, w, h = cv2.boundingRect(alpha)
        image = np.dstack([image, alpha])[y : y + h, x : x + w]
    image = reduced(image)
    h, w = image.shape[:2]
    if min(h, w) < (SHORT_SIDE if alpha is None else CUT_OUT_SIDE):
        return f"too small: {w} x {h} pixels"
    path = target.with_suffix(".jpg" if alpha is None else ".png")
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY] if alpha is None else []
    written, coded = cv2.imencode(path.suffix, image, options)
    if not written:
        return "not an image that OpenCV can write"
    path.write_bytes(coded.tobytes())
    colours = image[..., :3]
    return Shot(path.name, (h, w), detail_of(colours), variety_of(colours), alpha is not None)


def alpha_of(data: bytes, size: tuple[int, ...]) -> Array | None:
    """The mask (0 or 255) of a cut-out that shows 3 to 97 % of its (height, width), else None."""
    if not (data.startswith(b"\x89PNG") or data[8:12] == b"WEBP"):
        return None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3 or image.shape[2] != 4 or image.shape[:2] != tuple(size):
        return None
    alpha = image[..., 3]
    half = 128 if alpha.dtype == np.uint8 else 32768
    mask = np.where(alpha >= half, np.uint8(255), np.uint8(0))
    return mask if 0.03 < float((mask > 0).mean()) < 0.97 else None


def reduced(image: Array) -> Array:
    """An image whose longer side has at most ``LONG_SIDE`` pixels."""
    h, w = image.shape[:2]
    factor = LONG_SIDE / max(h, w)
    if factor >= 1:
        return image
    size = max(1, round(w * factor)), max(1, round(h * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def detail_of(image: Array) -> bytes:
    """Mean gradient (grey levels) of DETAIL × DETAIL parts of an image uint8 [h, w, 3]."""
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (480, 480), interpolation=cv2.INTER_AREA)
    gradient = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    return cv2.resize(gradient, (DETAIL, DETAIL), interpolation=cv2.INTER_AREA).tobytes()


def variety_of(image: Array) -> float:
    """Standard deviation of the mean colours of 4 × 4 parts: below 8 for grass, gravel or a brick wall."""
    parts = cv2.resize(image, (4, 4), interpolation=cv2.INTER_AREA).reshape(16, 3)
    return float(parts.astype(np.float64).std(axis=0).mean())


def check_shots(found: Found, split: str, results: list[Shot | str]) -> tuple[list[Shot], list[str]]:
    """The shots of a split, and lines about what was left out. AmesError for fewer than ``FEWEST``."""
    shots = [result for result in results if isinstance(result, Shot)]
    bad = [
        f"{path.relative_to(found.folder)} ({result})"
        for path, result in zip(found.of_split(split), results, strict=True)
        if isinstance(result, str)
    ]
    whole = sum(not shot.cut_out for shot in shots)
    notes = list(found.notes)
    if bad:
        first = ", ".join(bad[:_NAMED] + ["..."] * (len(bad) > _NAMED))
        said = counted(len(bad), "photograph cannot be used and was", "photographs cannot be used and were")
        notes.append(f"{said} left out: {first}")
    if whole < FEWEST:
        raise AmesError(
            f"{found.folder}: the {split} split gets {whole} of {len(found.files)} photographs, fewer than "
            f"{FEWEST}; add photographs" + "".join(f" ({note})" for note in notes)
        )
    return shots, notes


@lru_cache(maxsize=KEPT)
def read_shot(path: Path) -> Array:
    """A reduced photograph, uint8 [h, w, 3 or 4], not writeable."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise OSError(f"{path}: the reduced copy of a photograph is gone")
    image.flags.writeable = False
    return image


def shelve_all(
    found: Found, split: str, shelf: Path, each: Callable[..., Iterator[Shot | str]]
) -> tuple[list[Shot], list[str]]:
    """Reduce the photographs of a split into the folder ``shelf``; as ``check_shots``.

    each: ``map``, or that of a pool of processes.
    """
    shelf.mkdir()
    tasks = [(path, shelf / f"{i:06d}") for i, path in enumerate(found.of_split(split))]
    return check_shots(found, split, list(each(shelve, tasks)))
