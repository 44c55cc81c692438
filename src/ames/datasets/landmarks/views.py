"""Photographs of a landmark: easy, hard and junk views in the sense of revisited Oxford.

Conditions of a view are mild except for a few troubles, which are severe (hard views) or extreme (junk
views). As with photographs, a hard view has a strong viewpoint, a small scale, a heavy occlusion, bad light
or blur, or two of these, rarely all at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ames.datasets.landmarks import camera, motifs, scenery
from ames.datasets.landmarks.textures import Array

Range = tuple[float, float]

# Ranges from which the conditions of one photograph are drawn: mild, severe, extreme.
MILD, SEVERE, EXTREME = range(3)
CONDITIONS: dict[str, tuple[Range, Range, Range]] = {
    "yaw": ((0, 28), (35, 58), (66, 76)),  # degrees seen from the side, either side
    "pitch": ((0, 10), (8, 24), (0, 20)),  # degrees seen from below or above
    "roll": ((0, 6), (10, 35), (0, 30)),  # degrees turned in the image plane, either way
    "scale": ((0.5, 0.85), (0.28, 0.42), (0.1, 0.2)),  # 1: the landmark just fits; above, it is cut off
    "shift": ((0, 0.14), (0.26, 0.4), (0.42, 0.5)),  # of the landmark's centre, in shares of the sides
    "occlusion": ((0, 0.2), (0.35, 0.55), (0.78, 0.92)),  # share of the landmark's seen pixels
    "gamma": ((0.8, 1.25), (1.3, 1.9), (3.0, 4.0)),  # below 1 brighter, above darker
    "gain": ((0.85, 1.15), (0.5, 0.8), (0.25, 0.45)),  # brightness factor
    "shadow": ((0, 0.35), (0.45, 0.75), (0.6, 0.9)),  # share of the light that a shadow takes away
    "defocus": ((0, 0.7), (1.2, 2.0), (4.5, 7)),  # standard deviation, pixels of a 512-pixel picture
    "motion": ((0, 2), (4, 8), (14, 24)),  # length of the blur, pixels of a 512-pixel picture
    "noise": ((1.5, 4), (6, 11), (14, 22)),  # standard deviation, grey levels
}

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
    """A kind of view: number and kinds of troubles, how bad they are, and the place."""

    troubles: tuple[str, ...]
    count: tuple[int, int]  # fewest and most troubles at once (of "far" and "close" only one stays)
    bad: int  # MILD, SEVERE or EXTREME
    neighbours: tuple[int, int]  # other buildings or objects around
    clutter: tuple[int, int]  # strongly textured pieces in the background


DIFFICULTIES: dict[str, Difficulty] = {
    "easy": Difficulty((), (0, 0), MILD, (2, 3), (4, 9)),
    "hard": Difficulty(tuple(TROUBLES), (1, 3), SEVERE, (2, 3), (5, 12)),
    "junk": Difficulty(("far", "occlusion", "blur"), (1, 2), EXTREME, (2, 3), (5, 12)),
}

BEND_SHARE = 0.3  # share of the views whose plane is slightly curved
BEND = 0.04  # most that it is curved, share of the landmark's height


def draw_conditions(
    rng: np.random.Generator,
    difficulty: Difficulty,
    conditions: Mapping[str, tuple[Range, Range, Range]] = CONDITIONS,
    kinds: Mapping[str, tuple[str, ...]] = TROUBLES,
) -> dict[str, float]:
    """Draw one value per key of ``conditions``, unsigned. kinds: which of them go wrong together."""
    count = int(rng.integers(*difficulty.count, endpoint=True))
    chosen = [str(name) for name in rng.permutation(difficulty.troubles)[:count]]
    if "far" in chosen and "close" in chosen:
        chosen.remove("close")  # they exclude each other
    bad = {field for trouble in chosen for field in kinds[trouble]}
    values = {
        field: float(rng.uniform(*ranges[difficulty.bad if field in bad else MILD]))
        for field, ranges in conditions.items()
    }
    if "close" in chosen:
        values["scale"] = float(rng.uniform(*CLOSE_SCALE))
    return values


def render_view(
    landmark: Array, mask: Array, rng: np.random.Generator, difficulty: str, size: tuple[int, int]
) -> Array:
    """A photograph of a landmark, uint8 [h, w, 3] in BGR order.

    landmark, mask: as ``facades.draw_landmark`` draws them. rng: of place, viewpoint, light and occluders.
    difficulty: a key of ``DIFFICULTIES``. size: (h, w), the photograph's.
    """
    table = DIFFICULTIES[difficulty]
    at = draw_conditions(rng, table)
    image = place(rng, size, table)
    sign_yaw, sign_pitch, sign_roll, sign_x, sign_y = rng.choice((-1.0, 1.0), 5)
    angles = (sign_yaw * at["yaw"], sign_pitch * at["pitch"], sign_roll * at["roll"])
    shift = (sign_x * at["shift"] * size[1], sign_y * at["shift"] * size[0])
    homography = camera.plane_homography(mask.shape, size, angles, at["scale"], shift)
    bend = float(rng.uniform(-BEND, BEND)) if rng.random() < BEND_SHARE else 0.0
    seen = camera.warp(landmark, mask, homography, size, bend)
    motifs.paste(image, seen, 0, 0)
    scenery.occlude(rng, image, seen[1], at["occlusion"])
    return expose(rng, image, at)


def render_clutter(rng: np.random.Generator, size: tuple[int, int]) -> Array:
    """A photograph of a busy place without any landmark, uint8 [h, w, 3]: a distractor."""
    at = draw_conditions(rng, DIFFICULTIES["easy"])
    return expose(rng, scenery.clutter(rng, size, int(rng.integers(6, 16))), at)


def place(rng: np.random.Generator, size: tuple[int, int], table: Difficulty) -> Array:
    """The surroundings of a view: a street with neighbours and textured pieces."""
    image = scenery.background(rng, size, int(rng.integers(*table.neighbours, endpoint=True)))
    for _ in range(int(rng.integers(*table.clutter, endpoint=True))):
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
