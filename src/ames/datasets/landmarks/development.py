"""From light to a file: local contrast, colour of the light, vignette, lens, sensor and JPEG quality."""

from __future__ import annotations

import cv2
import numpy as np

from ames.datasets.landmarks import camera
from ames.datasets.landmarks.textures import Array

QUALITY = (55, 95)  # of JPEG files
LEAST_MEAN = 60  # grey levels of a picture that is not taken in the dark


def develop(rng: np.random.Generator, image: Array, at: dict[str, float]) -> Array:
    """An image uint8 [h, w, 3] as a camera records it under the conditions ``at`` of ``photo_views``.

    Blur and noise come last: they cover the landmark, its surroundings and the border between them alike.
    """
    unit = max(image.shape[:2]) / 512
    signs = rng.choice((-1.0, 1.0), 3)
    image = contrasted(image, signs[0] * at["contrast"])
    image = tinted(image, signs[1] * at["temperature"])
    image = vignetted(rng, image, at["vignette"])
    image = camera.lit(rng, image, at["gamma"] ** signs[2], at["gain"], at["shadow"])
    image = exposed(image, at["gain"])
    image = camera.blurred(rng, image, at["defocus"] * unit, at["motion"] * unit)
    return camera.noisy(rng, image, at["noise"])


def exposed(image: Array, gain: float) -> Array:
    """Brighten a dark image: a camera's own exposure leaves none below ``LEAST_MEAN`` × gain."""
    mean = float(image.mean())
    wanted = LEAST_MEAN * min(1.0, gain)
    return image if mean >= wanted else cv2.convertScaleAbs(image, alpha=min(4.0, wanted / max(mean, 1.0)))


def contrasted(image: Array, amount: float) -> Array:
    """Local contrast more (up to 1) or less (down to -1) by the share ``amount``; colours keep their mean."""
    h, w = image.shape[:2]
    small = cv2.resize(image, (max(2, w // 8), max(2, h // 8)), interpolation=cv2.INTER_AREA)
    smooth = cv2.resize(cv2.GaussianBlur(small, (0, 0), 2.5), (w, h), interpolation=cv2.INTER_LINEAR)
    return cv2.addWeighted(image, 1 + amount, smooth, -amount, 0)


def tinted(image: Array, amount: float) -> Array:
    """Warmer light (``amount`` > 0: red up, blue down by that share) or colder."""
    gains = np.array([1 - amount, 1.0, 1 + amount])
    table = (np.arange(256)[:, None] * gains).clip(0, 255).astype(np.uint8)
    return cv2.LUT(image, table[None])


def vignetted(rng: np.random.Generator, image: Array, amount: float) -> Array:
    """Darken an image towards its corners, by up to the share ``amount``."""
    h, w = image.shape[:2]
    x, y = (np.linspace(-1, 1, n, dtype=np.float32) - float(rng.normal(0, 0.15)) for n in (w, h))
    factor = (1 - amount * np.minimum(1, (x[None] ** 2 + y[:, None] ** 2) / 2)).astype(np.float32)
    return cv2.convertScaleAbs(cv2.multiply(image, cv2.merge([factor] * 3), dtype=cv2.CV_32F))


def draw_quality(rng: np.random.Generator) -> int:
    """The JPEG quality of a picture."""
    return int(rng.integers(*QUALITY, endpoint=True))
