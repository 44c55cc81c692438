"""A picture of two photos, of what a model ties in them, and of what each place contributes to the score."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ames.errors import AmesError
from ames.io.atomic import atomic_file
from ames.reporting.style import COLOURS

ENDINGS = (".png", ".jpg", ".jpeg")
_WIDTH, _HEIGHT = 1600, 1000  # of the picture at most, in pixels; the height is that of the photos
_GAP, _ROW = 20, 40  # pixels around the photos, and of a row of text
_SPOT = 0.02  # standard deviation of a descriptor's spot of heat, of the photo's height
_STRONGEST = 0.8  # opacity of heat
_INK = (40, 40, 40)


def _bgr(colour: str) -> tuple[int, int, int]:
    return int(colour[5:7], 16), int(colour[3:5], 16), int(colour[1:3], 16)


# Blue, vermilion and yellow differ under each kind of colour blindness, and in lightness.
_LOWERS, _RAISES, _LINE = _bgr(COLOURS[0]), _bgr(COLOURS[1]), _bgr("#F0E442")


@dataclass(frozen=True, eq=False)
class Side:
    """One photo. pixels: uint8 [H, W, 3] BGR. positions: float [N, 2], (row, col) as shares of height and
    width; shares: float [N], what each of these places contributes. box: x1, y1, x2, y2 in pixels: the part
    that was described; None: all of it.
    """

    pixels: np.ndarray
    positions: np.ndarray
    shares: np.ndarray
    name: str
    box: tuple[float, ...] | None = None


def draw_match(a: Side, b: Side, links: np.ndarray, weights: np.ndarray, caption: str) -> np.ndarray:
    """Return the picture, uint8 [H, W, 3] BGR, 1600 pixels wide unless both photos are tall.

    Photos are grey, side by side at one height. Vermilion is where descriptors raise the score, blue where
    they lower it; both photos have one scale. Lines are links, as opaque as they are strong.
    links: int [L, 2], rows of either side; weights: float [L] in (0, 1].
    """
    ratios = [side.pixels.shape[1] / side.pixels.shape[0] for side in (a, b)]
    height = max(1, int(min(_HEIGHT, (_WIDTH - 3 * _GAP) / sum(ratios))))
    room = _WIDTH - 4 * _GAP  # a photo of one pixel's height would be wider than that
    sizes = [(height, min(max(1, int(height * ratio)), room)) for ratio in ratios]
    width = max(sum(w for _, w in sizes) + 3 * _GAP, _WIDTH // 2)
    canvas = np.full((height + _GAP + 4 * _ROW, width, 3), 255, np.uint8)
    lefts = _GAP, width - _GAP - sizes[1][1]
    most = max(float(np.abs(side.shares).max(initial=0)) for side in (a, b))
    for side, size, left in zip((a, b), sizes, lefts, strict=True):
        heat = (_heat(side, size) / (most or 1)).clip(-1, 1)
        canvas[_GAP : _GAP + height, left : left + size[1]] = _shown(side, size, heat)
        _write(canvas, side.name, (left, _GAP + height + 30), size[1])
    ends = [
        np.round(side.positions * size + (_GAP, left)).astype(int)[:, ::-1]
        for side, size, left in zip((a, b), sizes, lefts, strict=True)
    ]
    for (i, j), weight in zip(links[::-1], weights[::-1], strict=True):  # the strongest lie on top
        _line(canvas, ends[0][i], ends[1][j], float(weight))
    _write(canvas, caption, (_GAP, height + _GAP + 75), width - 2 * _GAP)
    _legend(canvas, height + _GAP + 2 * _ROW + 15, most)
    return canvas


def write_picture(path: Path | str, picture: np.ndarray) -> Path:
    """Write a picture whole or not at all, and return its path. AmesError for a name that does not end as
    ``ENDINGS``, and where it cannot be written.
    """
    path = check_picture(path)
    data = cv2.imencode(path.suffix.lower(), picture)[1].tobytes()
    with atomic_file(path) as file:
        file.write(data)
    return path


def check_picture(path: Path | str) -> Path:
    """Return the path of a picture to write; AmesError for another ending than those of ``ENDINGS``."""
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise AmesError(f"{path}: pictures end with {', '.join(ENDINGS)}: give such a name")
    return path


def _heat(side: Side, size: tuple[int, int]) -> np.ndarray:
    """float32 [h, w]: the shares, each as a spot whose middle has its value."""
    heat = np.zeros(size, np.float32)
    rows, columns = np.clip((side.positions * size).astype(int), 0, np.array(size) - 1).T
    np.add.at(heat, (rows, columns), side.shares)
    spot = max(_SPOT * size[0], 1.0)
    return cv2.GaussianBlur(heat, (0, 0), spot, borderType=cv2.BORDER_CONSTANT) * (2 * np.pi * spot**2)


def _shown(side: Side, size: tuple[int, int], heat: np.ndarray) -> np.ndarray:
    """The photo in grey at another size, uint8 [h, w, 3], under heat in [-1, 1], and its box."""
    shrinks = size[0] < side.pixels.shape[0]
    small = cv2.resize(side.pixels, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    shown = _heated(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY) * np.float32(0.85), heat)
    if side.box is not None:
        factor = size[0] / side.pixels.shape[0]
        x1, y1, x2, y2 = (round(max(value, 0) * factor) for value in side.box)
        cv2.rectangle(
            shown, (x1, y1), (min(x2, size[1] - 1), min(y2, size[0] - 1)), (255, 255, 255), 2, cv2.LINE_AA
        )
    return shown


def _heated(grey: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Colour float32 [h, w] by heat in [-1, 1]: uint8 [h, w, 3]."""
    # Most shares are far below the largest one: the root shows them, too.
    opacity = _STRONGEST * np.sqrt(np.abs(heat))[..., None]
    colour = np.where(heat[..., None] > 0, np.array(_RAISES, np.float32), np.array(_LOWERS, np.float32))
    mixed = grey[..., None] + opacity * (colour - grey[..., None])
    return np.ascontiguousarray(mixed.clip(0, 255).astype(np.uint8))


def _line(canvas: np.ndarray, start: np.ndarray, end: np.ndarray, weight: float) -> None:
    """Draw a link, the more opaque the stronger, with a dark edge that shows on light photos."""
    corner = np.minimum(start, end) - 8
    corner = np.maximum(corner, 0)
    far = np.maximum(start, end) + 8
    part = canvas[corner[1] : far[1], corner[0] : far[0]]
    drawn = part.copy()
    a, b = tuple(map(int, start - corner)), tuple(map(int, end - corner))
    for colour, extra in ((_INK, 2), (_LINE, 0)):
        cv2.line(drawn, a, b, colour, 2 + extra, cv2.LINE_AA)
        for point in (a, b):
            cv2.circle(drawn, point, 4 + extra // 2, colour, -1, cv2.LINE_AA)
    opacity = 0.12 + 0.88 * weight
    cv2.addWeighted(drawn, opacity, part, 1 - opacity, 0, dst=part)


def _legend(canvas: np.ndarray, top: int, most: float) -> None:
    """Draw the scale of the shares, from -most to most, and a line."""
    left = _GAP + _write(canvas, f"lowers the score by {most:.2g}", (_GAP, top + 22), 400) + 15
    ramp = np.linspace(-1, 1, 200, dtype=np.float32)[None].repeat(24, 0)
    canvas[top + 2 : top + 26, left : left + 200] = _heated(np.full_like(ramp, 150), ramp)
    left += 215
    left += _write(canvas, f"raises it by {most:.2g}", (left, top + 22), 400) + 60
    if left + 400 < canvas.shape[1]:
        _line(canvas, np.array([left, top + 14]), np.array([left + 80, top + 14]), 1.0)
        _write(canvas, "link, the fainter the weaker", (left + 100, top + 22), 400)


def _write(canvas: np.ndarray, text: str, place: tuple[int, int], room: int) -> int:
    """Write a text at (left, baseline), smaller where the room does not do; return its width in pixels.

    OpenCV's letters are ASCII; others become question marks.
    """
    plain, font = text.encode("ascii", "replace").decode(), cv2.FONT_HERSHEY_SIMPLEX
    scale = 0.8
    wide = cv2.getTextSize(plain, font, scale, 1)[0][0]
    if wide > room:
        scale, wide = scale * room / wide, room
    cv2.putText(canvas, plain, place, font, scale, _INK, 1, cv2.LINE_AA)
    return int(wide)
