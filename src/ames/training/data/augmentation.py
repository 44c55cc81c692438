"""Seeded views of an image for training: a random crop, a flip, and a change of colours.

The distributions are torchvision's (RandomResizedCrop, RandomHorizontalFlip, ColorJitter). What is drawn
(``View``) is apart from what is done with pixels, so that one view can be made at several resolutions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from ames.errors import AmesError

_TRIES = 10  # for a crop inside the image, before it is the largest one at the centre
_GRAY = (0.114, 0.587, 0.299)  # of blue, green and red: ITU-R BT.601
_LEVELS = np.arange(256, dtype=np.float64)

Box = tuple[int, int, int, int]  # top, left, height, width in pixels


@dataclass(frozen=True)
class View:
    """What was drawn for one image.

    box: (top, left, height, width) of the crop in pixels. flip: left to right. jitter: changes of colour
    (a name of ``CHANGES``, its amount), in the order in which they are made.
    """

    box: Box
    flip: bool = False
    jitter: tuple[tuple[str, float], ...] = ()

    def apply(self, image: np.ndarray, size: int) -> np.ndarray:
        """Return the view of uint8 [H, W, 3] BGR as uint8 [size, size, 3].

        Interpolation is by area where the crop becomes smaller in both directions, else linear.
        """
        top, left, height, width = self.box
        part = image[top : top + height, left : left + width]
        if part.shape[:2] != (height, width):
            raise AmesError(
                f"a view of {self.box} is outside of an image of {image.shape[1]} x {image.shape[0]}"
            )
        smaller = size <= min(height, width)
        part = cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        if self.flip:
            part = cv2.flip(part, 1)
        for name, amount in self.jitter:
            part = CHANGES[name](part, amount)
        return part


@dataclass(frozen=True)
class Augmentation:
    """The distribution of views.

    scale: bounds of the crop's area as a share of the image, uniform. ratio: bounds of its width / height,
    log-uniform. flip: probability. jitter: strengths of brightness, contrast, saturation and hue; a factor is
    uniform in [max(0, 1 - strength), 1 + strength], the shift of the hue in [-strength, strength] of the
    colour circle, and the order of the four is random. jitter_probability: of any change of colour.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_probability: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise AmesError(
                f"scale {self.scale} of a crop: give two shares of the image, 0 < least <= most <= 1"
            )
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise AmesError(f"ratio {self.ratio} of a crop: give the least and the largest width / height")
        for name, chance in (("flip", self.flip), ("jitter_probability", self.jitter_probability)):
            if not 0 <= chance <= 1:
                raise AmesError(f"{name} {chance} is no probability: give a number from 0 to 1")
        if len(self.jitter) != len(CHANGES) or min(self.jitter) < 0 or self.jitter[-1] > 0.5:
            raise AmesError(
                f"jitter {self.jitter}: give four strengths (brightness, contrast, saturation, hue), at "
                "least 0, the last at most 0.5"
            )

    def draw(self, rng: np.random.Generator, height: int, width: int) -> View:
        """Return a view of an image of ``height`` x ``width`` pixels.

        The number of draws is fixed, so that equal generators give images of other sizes the same flip,
        colours and share of the image.
        """
        numbers = rng.random(2 + 4 + 4 + 4 * _TRIES).tolist()
        flip, chance = numbers[:2]
        jitter = self._changes(numbers[2:6], numbers[6:10]) if chance < self.jitter_probability else ()
        return View(self._box(numbers[10:], height, width), flip < self.flip, jitter)

    def _changes(self, numbers: list[float], order: list[float]) -> tuple[tuple[str, float], ...]:
        """Return the changes of colour; those of no strength are left out."""
        found = {}
        for name, number, strength in zip(CHANGES, numbers, self.jitter, strict=True):
            middle, least = (0.0, -strength) if name == "hue" else (1.0, max(0.0, 1 - strength))
            if strength:
                found[name] = least + number * (middle + strength - least)
        ranks = dict(zip(CHANGES, order, strict=True))
        return tuple((name, found[name]) for name in sorted(found, key=ranks.__getitem__))

    def _box(self, numbers: list[float], height: int, width: int) -> Box:
        least, most = (math.log(x) for x in self.ratio)
        for i in range(0, len(numbers), 4):
            share, form, down, right = numbers[i : i + 4]
            area = height * width * (self.scale[0] + share * (self.scale[1] - self.scale[0]))
            ratio = math.exp(least + form * (most - least))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(down * (height - h + 1)), int(right * (width - w + 1)), h, w
        return centre_box(height, width, self.ratio)


def centre_box(height: int, width: int, ratio: tuple[float, float] = (1.0, 1.0)) -> Box:
    """Return the largest box at the centre of an image whose width / height is within ``ratio``."""
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    return (height - h) // 2, (width - w) // 2, h, w


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Return the levels of uint8 [H, W, 3] times ``factor``."""
    return cv2.LUT(image, _table(_LEVELS * factor))


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Return the levels' differences from the mean grey level of the image, times ``factor``."""
    mean = sum(share * level for share, level in zip(_GRAY, cv2.mean(image), strict=False))
    return cv2.LUT(image, _table(_LEVELS * factor + (1 - factor) * mean))


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Return the differences of the channels of a pixel from its grey level, times ``factor``."""
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return cv2.addWeighted(image, factor, gray, 1 - factor, 0)


def hue(image: np.ndarray, shift: float) -> np.ndarray:
    """Return the colours turned by ``shift`` of the colour circle, to 1 / 256 of it (8-bit HSV)."""
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV_FULL)
    turned = (np.arange(256) + round(shift * 256)) % 256
    same = np.arange(256)
    hsv = cv2.LUT(hsv, np.stack((turned, same, same), -1).astype(np.uint8)[None])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR_FULL)


def _table(levels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


CHANGES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "brightness": brightness,
    "contrast": contrast,
    "saturation": saturation,
    "hue": hue,
}
