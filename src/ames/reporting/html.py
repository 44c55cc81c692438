"""One self-contained HTML page of an evaluation: a table of metrics and strips of results."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np

from ames.datasets.image_headers import JPEG
from ames.datasets.images import UnreadableImage, decode
from ames.errors import AmesError
from ames.io.atomic import atomic_file
from ames.reporting.tables import table_cells

_DOCTYPE = b"<!doctype html>"
THUMBNAIL_SIDE = 120  # pixels of the long side
# The mark shown on the picture, beside its frame; "found": nothing is known about it.
LABELS = {"right": "✓", "wrong": "", "junk": "junk", "found": ""}


@dataclass(frozen=True)
class Hit:
    """One result: its image, its label (of ``LABELS``), its score (NaN: it has none) and the name to show.

    Raises AmesError for another label.
    """

    image: Path
    label: str
    score: float
    name: str

    def __post_init__(self) -> None:
        if self.label not in LABELS:
            known = ", ".join(LABELS)
            raise AmesError(f"result {self.name!r} has label {self.label!r}: choose one of {known}")


@dataclass(frozen=True, eq=False)
class Strip:
    """A query and its results under each ranking, for example before and after re-ranking.

    query: an image file, or an image as uint8 [H, W, 3], RGB, or [H, W], grey.
    rankings: (caption, results best first) for each row.
    """

    query: Path | np.ndarray
    caption: str
    rankings: list[tuple[str, list[Hit]]]
    label: str = "query"  # what stands below the first picture


def write_report(
    path: Path | str,
    *,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    strips: Sequence[Strip],
    notes: Sequence[str] = (),
) -> Path:
    """Write the page to ``path``, whole or not at all, and return the path.

    rows: the table; columns are the keys of the first row, floats are printed with one decimal.
    The file needs nothing else: no script, no network; each distinct image is stored once, as a JPEG of at
    most 120 x 120 pixels. An image that cannot be read becomes a grey placeholder. All text is escaped.
    Raises AmesError when the file cannot be written, and where it would replace a file that is no page, such
    as a photo.
    """
    _check_place(Path(path))
    thumbnails = _Thumbnails()
    sections = [
        {
            "caption": strip.caption,
            "label": strip.label,
            "rankings": [
                (caption, [(hit, thumbnails.class_of(hit.image)) for hit in hits])
                for caption, hits in strip.rankings
            ],
            "thumbnail": thumbnails.class_of(strip.query),
        }
        for strip in strips
    ]
    columns, cells = table_cells(rows)
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("ames.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    page = templates.get_template("report.html").render(
        title=title,
        columns=columns,
        table=cells,
        notes=notes,
        strips=sections,
        thumbnails=thumbnails.rules,
        marks=LABELS,
        judged=any(hit.label != "found" for s in strips for _, hits in s.rankings for hit in hits),
    )
    path = Path(path)
    with atomic_file(path) as file:
        file.write(page.encode("utf-8", errors="replace"))
    return path


def _check_place(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(len(_DOCTYPE))
    except OSError:  # no such file; where another one is in the way, writing says so
        return
    if head and head.lower() != _DOCTYPE:
        raise AmesError(f"{path}: exists, and is no page; give another name for the page, .html")


class _Thumbnails:
    """CSS classes that show the thumbnails, so that each distinct picture is in the page once."""

    def __init__(self) -> None:
        self._classes: dict[str, str] = {}  # file or content of an image -> class
        self.rules: dict[str, str] = {}  # declarations -> class

    def class_of(self, image: Path | np.ndarray) -> str:
        if isinstance(image, np.ndarray):
            key = f"{image.shape} {image.dtype} {hashlib.sha256(image.tobytes()).hexdigest()}"
        else:
            key = str(Path(image).absolute())
        if key not in self._classes:
            rule = _thumbnail_rule(image)
            self._classes[key] = self.rules.setdefault(rule, f"t{len(self.rules)}")
        return self._classes[key]


def _thumbnail_rule(image: Path | np.ndarray) -> str:
    """Declarations that show ``image`` at its thumbnail's size; a grey field if it is broken."""
    try:
        small = _shrink(_bgr(image) if isinstance(image, np.ndarray) else _read(Path(image)))
        encoded, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])
    except (OSError, ValueError, UnreadableImage, cv2.error):
        encoded = False
    if not encoded:
        return f"width:{THUMBNAIL_SIDE}px;height:{THUMBNAIL_SIDE}px;background:#999"
    data = base64.b64encode(jpeg.tobytes()).decode()
    height, width = small.shape[:2]
    return f"width:{width}px;height:{height}px;background-image:url(data:image/jpeg;base64,{data})"


def _read(path: Path) -> np.ndarray:
    """Return the image as uint8 [H, W, 3], BGR, a JPEG at a quarter of its size where that is enough."""
    data = path.read_bytes()
    if data.startswith(JPEG):
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_COLOR_4)
        if pixels is not None and max(pixels.shape) >= 2 * THUMBNAIL_SIDE:
            return np.asarray(pixels)
    return decode(data)


def _bgr(image: np.ndarray) -> np.ndarray:
    """A uint8 RGB or grey image as uint8 [H, W, 3], BGR."""
    if image.dtype != np.uint8 or not image.size or image.shape[2:] not in ((), (3,)):
        raise ValueError("an image must be uint8 [H, W, 3] or [H, W]")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if image.ndim == 2 else cv2.COLOR_RGB2BGR))


def _shrink(image: np.ndarray) -> np.ndarray:
    """``image`` with a long side of at most ``THUMBNAIL_SIDE``."""
    height, width = image.shape[:2]
    scale = min(1.0, THUMBNAIL_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
