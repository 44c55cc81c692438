"""One self-contained HTML page of an evaluation: a table of figures and strips of results to look at."""

import base64
import hashlib
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ames.datasets.decoding import UnreadableImage, decode
from ames.datasets.image_headers import JPEG
from ames.errors import AmesError
from ames.io.atomic import atomic_file

THUMBNAIL_SIDE = 120  # pixels of the long side
LABELS = {"right": "✓", "wrong": "", "junk": "junk"}  # the mark shown on the picture, beside its frame
_NOTHING = "<li>no results</li>"


@dataclass(frozen=True)
class Hit:
    """One result: its image, whether it is "right", "wrong" or "junk", its score and the name to show.

    Raises AmesError for another label.
    """

    image: Path
    label: str
    score: float
    name: str

    def __post_init__(self) -> None:
        if self.label not in LABELS:
            raise AmesError(
                f"result {self.name!r} has label {self.label!r}: choose one of {', '.join(LABELS)}"
            )


@dataclass(frozen=True, eq=False)
class Strip:
    """A query and its results under each ranking, for example before and after re-ranking.

    query: an image file, or an image as uint8 [H, W, 3], RGB, or [H, W], grey.
    rankings: (caption, results best first) for each row.
    """

    query: Path | np.ndarray
    caption: str
    rankings: list[tuple[str, list[Hit]]]


def write_report(
    path: Path | str,
    *,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    strips: Sequence[Strip],
    notes: Sequence[str] = (),
) -> Path:
    """Write the page to `path`, whole or not at all, and return the path.

    rows: the table; columns are the keys of the first row, floats are printed with one decimal.
    The file needs nothing else: no script, no network; each distinct image is stored once, as a JPEG of at
    most 120 x 120 pixels. An image that cannot be read becomes a grey placeholder. All text is escaped.
    Raises AmesError when the file cannot be written.
    """
    thumbnails = _Thumbnails()
    sections = "\n".join(_strip(strip, thumbnails) for strip in strips)
    legend = _LEGEND if strips else ""
    page = _PAGE.format(
        title=html.escape(title),
        style=_STYLE + thumbnails.style(),
        table=_table(rows),
        notes="".join(f"<p>{html.escape(note)}</p>\n" for note in notes),
        legend=legend,
        strips=sections,
    )
    path = Path(path)
    with atomic_file(path) as file:
        file.write(page.encode("utf-8", errors="replace"))
    return path


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as an aligned plain-text table with a line of headings; no rows give an empty text.

    Columns are the keys of the first row. Columns of numbers are aligned right, floats have one decimal;
    None, NaN and a missing key are printed as "-".
    """
    if not rows:
        return ""
    columns = []
    for key, numeric in _columns(rows):
        cells = [str(key), *(_cell(row.get(key)) for row in rows)]
        width = max(map(len, cells))
        columns.append([cell.rjust(width) if numeric else cell.ljust(width) for cell in cells])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, bool]]:
    """Keys of the first row, each with whether all values under it are numbers (or absent)."""
    return [(key, all(_is_number(row.get(key)) for row in rows)) for key in rows[0]]


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, Real) and not isinstance(value, bool))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, Real) and not isinstance(value, Integral):
        return "-" if math.isnan(value) else f"{float(value):.1f}"
    return " ".join(str(value).split())  # a line break would tear the table


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    columns = _columns(rows)
    lines = [[(_cell(row.get(key)), numeric, "td") for key, numeric in columns] for row in rows]
    lines.insert(0, [(str(key), numeric, "th") for key, numeric in columns])
    text = "\n".join(
        "<tr>"
        + "".join(f"<{tag}{_NUMBER * numeric}>{html.escape(cell)}</{tag}>" for cell, numeric, tag in line)
        + "</tr>"
        for line in lines
    )
    return f'<div class="scroll"><table>\n{text}\n</table></div>'


def _strip(strip: Strip, thumbnails: "_Thumbnails") -> str:
    """One section: the query at the left (on a phone: above), a row of results for each ranking."""
    rows = []
    for caption, hits in strip.rankings:
        items = "\n".join(_hit(rank, hit, thumbnails) for rank, hit in enumerate(hits, start=1))
        rows.append(f"<h3>{html.escape(caption)}</h3>\n<ol>\n{items or _NOTHING}\n</ol>")
    query = thumbnails.picture(strip.query, label=f"query: {strip.caption}")
    return (
        f"<section>\n<h2>{html.escape(strip.caption)}</h2>\n"
        f'<div class="strip"><figure class="query">{query}<figcaption>query</figcaption></figure>\n'
        f'<div class="rankings">\n{"".join(rows)}\n</div></div>\n</section>'
    )


def _hit(rank: int, hit: Hit, thumbnails: "_Thumbnails") -> str:
    name = html.escape(hit.name)
    mark = f'<b aria-hidden="true">{LABELS[hit.label]}</b>' if LABELS[hit.label] else ""
    picture = thumbnails.picture(hit.image, label=f"{hit.label}: {hit.name}")
    return (
        f'<li class="{hit.label}" title="{name}"><div class="frame">{picture}{mark}</div>'
        f'<span class="score">{rank} · {hit.score:.3f}</span><span class="name">{name}</span></li>'
    )


class _Thumbnails:
    """CSS classes that hold the thumbnails, so that each distinct picture is in the page once."""

    def __init__(self) -> None:
        self.classes: dict[str, str] = {}  # file or content of an image -> class
        self.rules: dict[str, str] = {}  # rule without its selector -> class

    def picture(self, image: Path | np.ndarray, *, label: str) -> str:
        """The element that shows `image`; `label` is read out in place of it."""
        if isinstance(image, np.ndarray):
            key = f"{image.shape} {image.dtype} {hashlib.sha256(image.tobytes()).hexdigest()}"
        else:
            key = str(Path(image).absolute())
        if key not in self.classes:
            rule = _thumbnail_rule(image)
            self.classes[key] = self.rules.setdefault(rule, f"t{len(self.rules)}")
        return f'<div class="picture {self.classes[key]}" role="img" aria-label="{html.escape(label)}"></div>'

    def style(self) -> str:
        return "\n".join(f".{name}{{{rule}}}" for rule, name in self.rules.items())


def _thumbnail_rule(image: Path | np.ndarray) -> str:
    """Declarations that show `image` at its thumbnail's size; a grey field if it is broken."""
    try:
        pixels = _read(Path(image)) if not isinstance(image, np.ndarray) else _bgr(image)
        small = _shrink(pixels)
        encoded, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])
    except (OSError, ValueError, UnreadableImage, cv2.error):
        encoded = False
    if not encoded:
        side = f"{THUMBNAIL_SIDE}px"
        return f"width:{side};height:{side};background:#999"
    data = base64.b64encode(jpeg.tobytes()).decode()
    height, width = small.shape[:2]
    return f"width:{width}px;height:{height}px;background-image:url(data:image/jpeg;base64,{data})"


def _read(path: Path) -> np.ndarray:
    """The image as uint8 [H, W, 3], BGR, a JPEG at a quarter of its size where that is enough."""
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
    """`image` with a long side of at most `THUMBNAIL_SIDE`."""
    height, width = image.shape[:2]
    scale = min(1.0, THUMBNAIL_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


_NUMBER = ' class="number"'
_LEGEND = (
    '<p class="legend">Under each picture: rank · score. Green frame and ✓: right. Plain frame: wrong. '
    "Dashed frame: junk, neither right nor wrong.</p>"
)
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<h1>{title}</h1>
{table}
{notes}{legend}
{strips}
</body>
</html>
"""
_STYLE = """:root{color-scheme:light dark;--line:#8886;--junk:#888;--right:#1a9641}
*{box-sizing:border-box}
body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;padding:1rem;max-width:90rem}
h1{font-size:1.5rem}
h2{font-size:1.1rem;margin:0 0 .5rem;overflow-wrap:anywhere}
h3{font-size:.9rem;font-weight:600;margin:0 0 .3rem}
table{border-collapse:collapse;margin:0 0 1rem}
th,td{padding:.25rem .7rem;text-align:left;border-bottom:1px solid var(--line);white-space:nowrap}
.number{text-align:right;font-variant-numeric:tabular-nums}
.scroll,ol{overflow-x:auto}
section{border-top:1px solid var(--line);padding:1rem 0}
.strip{display:flex;gap:1.2rem}
.rankings{min-width:0;flex:1}
figure{margin:0;flex:none;width:126px}
figcaption,.score,.name,.legend{opacity:.75;font-size:.8rem}
ol{display:flex;gap:.6rem;list-style:none;margin:0 0 .8rem;padding:0 0 .4rem}
li{flex:none;width:126px}
.frame{position:relative;width:fit-content;border:3px solid var(--line)}
.right .frame{border-color:var(--right)}
.junk .frame{border:3px dashed var(--junk)}
.junk .picture{opacity:.6}
.frame b{position:absolute;top:0;left:0;padding:0 .3rem;font-size:.8rem;color:#fff;background:#666}
.right .frame b{background:var(--right)}
.score,.name{display:block;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.picture{background-size:100% 100%;print-color-adjust:exact;-webkit-print-color-adjust:exact}
@media(max-width:40rem){.strip{flex-direction:column;gap:.5rem}}
"""
