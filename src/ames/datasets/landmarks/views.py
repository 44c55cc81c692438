"""Photographs of a landmark: easy, hard and junk views in the sense of revisited Oxford.

Every view is taken under mild conditions except for a few troubles, whose conditions are severe (hard views)
or extreme (junk views): a hard view is a strong viewpoint or a small scale or a heavy occlusion or a dark or
blurred picture, or two of these, rarely all at once, as with photographs.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ames.datasets.landmarks import camera, motifs, scenery
from ames.datasets.landmarks.textures import Array
from ames.errors import AmesError

Range = tuple[float, float]


@dataclass(frozen=True)
class Conditions:
    """Ranges from which the conditions of one photograph are drawn."""

    yaw: Range  # degrees seen from the side, either side
    pitch: Range  # degrees seen from below or above
    roll: Range  # degrees turned in the image plane, either way
    scale: Range  # 1 lets the landmark just fit into the picture; above, it is cut off
    shift: Range  # landmark's centre off the picture's, in shares of the picture's sides
    occlusion: Range  # share of the landmark's seen pixels that things in front hide
    gamma: Range  # below 1 brighter, above darker
    gain: Range  # brightness factor
    shadow: Range  # share of the light that a shadow takes away
    defocus: Range  # standard deviation of the blur, pixels of a 512-pixel picture
    motion: Range  # length of the motion blur, pixels of a 512-pixel picture
    noise: Range  # standard deviation, grey levels


MILD = Conditions(
    yaw=(0, 28),
    pitch=(0, 10),
    roll=(0, 6),
    scale=(0.5, 0.85),
    shift=(0, 0.14),
    occlusion=(0, 0.2),
    gamma=(0.8, 1.25),
    gain=(0.85, 1.15),
    shadow=(0, 0.35),
    defocus=(0, 0.7),
    motion=(0, 2),
    noise=(1.5, 4),
)
SEVERE = Conditions(
    yaw=(35, 58),
    pitch=(8, 24),
    roll=(10, 35),
    scale=(0.28, 0.42),
    shift=(0.26, 0.4),
    occlusion=(0.35, 0.55),
    gamma=(1.3, 1.9),
    gain=(0.5, 0.8),
    shadow=(0.45, 0.75),
    defocus=(1.2, 2.0),
    motion=(4, 8),
    noise=(6, 11),
)
EXTREME = Conditions(
    yaw=(66, 76),
    pitch=(0, 20),
    roll=(0, 30),
    scale=(0.1, 0.2),
    shift=(0.42, 0.5),
    occlusion=(0.78, 0.92),
    gamma=(3.0, 4.0),
    gain=(0.25, 0.45),
    shadow=(0.6, 0.9),
    defocus=(4.5, 7),
    motion=(14, 24),
    noise=(14, 22),
)

# Conditions that go wrong together; 'close' is a detail seen from near (partial), set apart from 'far'.
TROUBLES: dict[str, tuple[str, ...]] = {
    "viewpoint": ("yaw", "pitch"),
    "turn": ("roll",),
    "far": ("scale",),
    "close": ("shift",),
    "occlusion": ("occlusion",),
    "light": ("gamma", "gain", "shadow", "noise"),
    "blur": ("defocus", "motion"),
}
CLOSE_SCALE: Range = (1.3, 1.8)  # the landmark overfills the picture and lies off its centre


@dataclass(frozen=True)
class Difficulty:
    """What kind of view: how many troubles, of which kinds, how bad, in how busy a place."""

    troubles: tuple[str, ...]
    count: tuple[int, int]  # fewest and most troubles at once (of 'far' and 'close' only one stays)
    bad: Conditions
    neighbours: tuple[int, int]  # other buildings or objects around
    clutter: tuple[int, int]  # strongly textured pieces around, behind the landmark


DIFFICULTIES: dict[str, Difficulty] = {
    "easy": Difficulty((), (0, 0), MILD, (2, 3), (4, 9)),
    "hard": Difficulty(tuple(TROUBLES), (1, 3), SEVERE, (2, 3), (5, 12)),
    "junk": Difficulty(("far", "occlusion", "blur"), (1, 2), EXTREME, (2, 3), (5, 12)),
}

BEND_SHARE = 0.3  # share of the views whose plane is slightly curved
BEND = 0.04  # most that it is curved, share of the landmark's height


def draw_conditions(rng: np.random.Generator, difficulty: Difficulty) -> dict[str, float]:
    """One value per field of ``Conditions``, unsigned."""
    count = int(rng.integers(difficulty.count[0], difficulty.count[1] + 1))
    chosen = [str(name) for name in rng.permutation(difficulty.troubles)[:count]]
    if "far" in chosen and "close" in chosen:
        chosen.remove("close")  # they exclude each other
    bad = {field for trouble in chosen for field in TROUBLES[trouble]}
    values = {}
    for field in Conditions.__dataclass_fields__:
        values[field] = float(rng.uniform(*getattr(difficulty.bad if field in bad else MILD, field)))
    if "close" in chosen:
        values["scale"] = float(rng.uniform(*CLOSE_SCALE))
    return values


def render_view(
    landmark: Array, mask: Array, rng: np.random.Generator, difficulty: str, size: tuple[int, int]
) -> Array:
    """Photograph a landmark.

    Args:
        landmark: the drawn landmark, uint8 [H, W, 3] in BGR order.
        mask: its pixels, uint8 [H, W] of 0 and 255.
        rng: the only source of chance; place, viewpoint, light and occluders are drawn from it.
        difficulty: a key of ``DIFFICULTIES``.
        size: (height, width) of the photograph in pixels.

    Returns:
        The photograph, uint8 [h, w, 3] in BGR order.
    """
    if difficulty not in DIFFICULTIES:
        raise AmesError(f"difficulty {difficulty!r} is none of {', '.join(DIFFICULTIES)}")
    table = DIFFICULTIES[difficulty]
    at = draw_conditions(rng, table)
    image = place(rng, size, table)
    sign_yaw, sign_pitch, sign_roll, sign_x, sign_y = rng.choice((-1.0, 1.0), 5)
    angles = (sign_yaw * at["yaw"], sign_pitch * at["pitch"], sign_roll * at["roll"])
    homography = camera.plane_homography(mask.shape, size, angles, at["scale"])
    homography = camera.shifted(homography, sign_x * at["shift"] * size[1], sign_y * at["shift"] * size[0])
    bend = float(rng.uniform(-BEND, BEND)) if rng.random() < BEND_SHARE else 0.0
    seen, seen_mask = camera.warp(landmark, mask, homography, size, bend)
    solid = cv2.threshold(seen_mask, 127, 255, cv2.THRESH_BINARY)[1]
    motifs.paste(image, (seen, solid), 0, 0)
    scenery.occlude(rng, image, solid, at["occlusion"])
    return expose(rng, image, at)


def render_clutter(rng: np.random.Generator, size: tuple[int, int]) -> Array:
    """A photograph of a busy place without any landmark, uint8 [h, w, 3]: a distractor."""
    at = draw_conditions(rng, DIFFICULTIES["easy"])
    return expose(rng, scenery.clutter(rng, size, int(rng.integers(6, 16))), at)


def place(rng: np.random.Generator, size: tuple[int, int], table: Difficulty) -> Array:
    """The surroundings of a view: a street with neighbours and textured pieces."""
    image = scenery.background(rng, size, int(rng.integers(table.neighbours[0], table.neighbours[1] + 1)))
    for _ in range(int(rng.integers(table.clutter[0], table.clutter[1] + 1))):
        part = scenery.patch(rng, int(min(size) * rng.uniform(0.1, 0.25)))
        reach = part[1].shape[0] // 2
        x, y = int(rng.integers(0, size[1])) - reach, int(rng.integers(0, size[0])) - reach
        motifs.paste(image, part, x, y)
    return image


def expose(rng: np.random.Generator, image: Array, at: dict[str, float]) -> Array:
    """Light, lens and sensor under the conditions ``at``."""
    unit = max(image.shape[:2]) / 512
    image = camera.lit(rng, image, at["gamma"], at["gain"], at["shadow"])
    image = camera.blurred(rng, image, at["defocus"] * unit, at["motion"] * unit)
    return camera.noisy(rng, image, at["noise"])
