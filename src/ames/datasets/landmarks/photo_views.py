"""Views of photographed landmarks: geometry, light, lens and sensor as real photographs have them.

Conditions and difficulties are those of ``views``; light and lens vary more.
"""

from __future__ import annotations

import numpy as np

from ames.datasets.landmarks import blending, boxes, camera, development, scenery, views
from ames.datasets.landmarks.boxes import Box, Pose
from ames.datasets.landmarks.motifs import Motif
from ames.datasets.landmarks.packages import draw_make, draw_package
from ames.datasets.landmarks.photo_subjects import Plane, Subject
from ames.datasets.landmarks.relief import parallax
from ames.datasets.landmarks.scenes import Conditions, scene_homography
from ames.datasets.landmarks.studio import Studio
from ames.datasets.landmarks.textures import Array

CONDITIONS: dict[str, tuple[views.Range, views.Range, views.Range]] = {
    **views.CONDITIONS,
    "occlusion": ((-0.15, 0.18), (0.3, 0.5), (0.78, 0.92)),  # below 0: nothing is in front
    "scale": ((0.55, 1.15), (0.3, 0.45), (0.1, 0.2)),
    "gamma": ((1, 1.25), (1.25, 1.7), (2.5, 3.5)),  # or its inverse
    "temperature": ((0, 0.08), (0.1, 0.22), (0.2, 0.3)),  # red up and blue down by this share, or reverse
    "gain": ((0.85, 1.2), (0.6, 0.85), (0.25, 0.45)),
    "shadow": ((0, 0.35), (0.4, 0.65), (0.6, 0.9)),
    "vignette": ((0, 0.2), (0.2, 0.45), (0.5, 0.8)),  # share of the light that the corners lose
    "contrast": ((0, 0.25), (0.25, 0.5), (0.4, 0.7)),  # local contrast more or less by this share
}
LIGHT = ("gamma", "gain", "shadow", "noise", "temperature", "vignette", "contrast")
TROUBLES = {**views.TROUBLES, "light": LIGHT}

# Ranges that a kind has instead: mild, severe, extreme.
SMALL: dict[str, tuple[views.Range, views.Range, views.Range]] = {
    "scale": ((0.5, 0.95), (0.28, 0.45), (0.1, 0.2)),
}
BY_KIND: dict[str, dict[str, tuple[views.Range, views.Range, views.Range]]] = {
    "object": SMALL,
    "box": {
        **SMALL,
        "yaw": ((4, 35), (35, 55), (60, 70)),
        "pitch": ((0, 15), (10, 25), (0, 20)),
        "roll": ((0, 5), (8, 25), (0, 30)),
    },
}
FROM_ABOVE_SHARE = 0.7  # of the boxes, which stand below the eye; others are seen from either side
SCENE_ANGLES = 0.6  # of a plane's: a photograph of a scene is not seen from behind its edge
SCENE_ZOOM: dict[str, views.Range] = {"mild": (0.8, 1.35), "far": (0.55, 0.75), "close": (1.5, 2.0)}
SCENE_OVERLAP = {"easy": 0.45, "hard": 0.3, "junk": 0.3}

OUTPUT = (0.6, 1.0)  # short side of a picture, share of the set's
CROP_SHARE = 0.1  # share of the pictures that are cropped so that the landmark lies partly outside
CROP = (0.55, 0.8)  # share of the width that is left
STREET_SHARE = {"facade": 0.5}  # of the views without a place, those in a drawn street
SHELF_SHARE = 0.5  # share of a package's views with other packages beside it
SHADOW_SHARE, SHADOW = 0.5, (0.15, 0.6)  # views where the landmark casts a shadow, and how dark


def view_size(rng: np.random.Generator, size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a picture of a set with pictures of ``size`` and smaller."""
    factor = float(rng.uniform(*OUTPUT))
    return max(64, round(size[0] * factor)), max(64, round(size[1] * factor))


def conditions(rng: np.random.Generator, difficulty: str, kind: str) -> tuple[dict[str, float], str]:
    """Unsigned values of ``CONDITIONS`` for a kind, and whether a scene is "mild", "far" or "close"."""
    ranges = {**CONDITIONS, **BY_KIND.get(kind, {})}
    at = views.draw_conditions(rng, views.DIFFICULTIES[difficulty], ranges, TROUBLES)
    scale, (least, most) = at["scale"], ranges["scale"][views.MILD]
    return at, "far" if scale < least else "close" if scale > most else "mild"


def render(
    subject: Subject, studio: Studio, rng: np.random.Generator, difficulty: str, size: tuple[int, int]
) -> Array:
    """A photograph of a landmark, uint8 [h, w, 3] in BGR order.

    difficulty: "easy", "hard" or "junk". size: (h, w), the largest; see ``OUTPUT`` and ``CROP``.
    """
    size = view_size(rng, size)
    at, distance = conditions(rng, difficulty, subject.kind)
    signs = rng.choice((-1.0, 1.0), 5)
    angles = (signs[0] * at["yaw"], signs[1] * at["pitch"], signs[2] * at["roll"])
    if subject.kind == "box" and rng.random() < FROM_ABOVE_SHARE:
        angles = (angles[0], at["pitch"], angles[2])
    shift = (signs[3] * at["shift"], signs[4] * at["shift"])
    if subject.kind == "scene":
        assert isinstance(subject.body, Plane)
        turned = (angles[0] * SCENE_ANGLES, angles[1] * SCENE_ANGLES, angles[2])
        zoom = float(rng.uniform(*SCENE_ZOOM[distance]))
        image, mask = see_scene(
            subject.body, size, Conditions(turned, zoom, shift, SCENE_OVERLAP[difficulty])
        )
    else:
        image = surroundings(subject, studio, rng, size, angles)
        pose = Pose(angles, at["scale"], (shift[0] * size[1], shift[1] * size[0]))
        layer, mask = see(subject.body, rng, size, pose)
        if rng.random() < SHADOW_SHARE:
            blending.cast_shadow(rng, image, mask, float(rng.uniform(*SHADOW)))
        blending.put(image, (layer, mask))
    studio.occlude(rng, image, mask, at["occlusion"])
    image = development.develop(rng, image, at)
    return image if subject.kind == "scene" else cropped(rng, image)


def render_plain(studio: Studio, rng: np.random.Generator, size: tuple[int, int]) -> Array:
    """A photograph without a landmark, uint8 [h, w, 3]: a distractor."""
    size = view_size(rng, size)
    at, _ = conditions(rng, "easy", "wall")
    return development.develop(rng, studio.surface(rng, size), at)


def see_scene(scene: Plane, size: tuple[int, int], at: Conditions) -> Motif:
    """A perspective crop of a photograph, which fills the view."""
    homography = scene_homography(scene.mask.shape, size, at)
    source = scene.image if scene.relief is None else parallax(scene.image, scene.relief, at.angles)
    image, _ = camera.warp(source, scene.mask, homography, size, 0.0)
    return image, np.full(size, 255, np.uint8)


def see(body: Plane | Box, rng: np.random.Generator, size: tuple[int, int], pose: Pose) -> Motif:
    """A landmark before the camera: image [h, w, 3] and mask [h, w]."""
    if isinstance(body, Box):
        lights = rng.uniform(0.55, 1.1, len(boxes.FACES))
        gains = {name: float(light) for name, light in zip(boxes.FACES, lights, strict=True)}
        return boxes.see_box(body, size, pose, gains)
    homography = camera.plane_homography(body.mask.shape, size, pose.angles, pose.scale, pose.shift)
    image, mask = body.image, body.mask
    if body.relief is not None:
        image, mask = (parallax(layer, body.relief, pose.angles) for layer in (image, mask))
    bend = float(rng.uniform(-views.BEND, views.BEND)) if rng.random() < views.BEND_SHARE else 0.0
    return camera.warp(image, mask, homography, size, bend)


def surroundings(
    subject: Subject,
    studio: Studio,
    rng: np.random.Generator,
    size: tuple[int, int],
    angles: tuple[float, float, float],
) -> Array:
    """What is behind a landmark: its place, where it has one; else another photograph in each view, for some
    facades a drawn street. Beside a package there are often others.
    """
    if subject.place is not None:
        turned = (angles[0] * SCENE_ANGLES, angles[1] * SCENE_ANGLES, angles[2])
        shift = (float(rng.normal(0, 0.08)), float(rng.normal(0, 0.05)))
        zoom = float(rng.uniform(*SCENE_ZOOM["mild"]))
        image, _ = see_scene(subject.place, size, Conditions(turned, zoom, shift, SCENE_OVERLAP["easy"]))
    elif rng.random() < STREET_SHARE.get(subject.kind, 0.0):
        image = scenery.background(rng, size, int(rng.integers(1, 3)))
    else:
        image = studio.background(rng, size)
    if subject.kind == "box" and rng.random() < SHELF_SHARE:
        for _ in range(int(rng.integers(1, 4))):
            beside(rng, image, studio)
    return image


def beside(rng: np.random.Generator, image: Array, studio: Studio) -> None:
    """Set a package of another make into a picture, in place."""
    size, side = (image.shape[0], image.shape[1]), float(rng.choice((-1.0, 1.0)))
    picture = studio.surface(rng, (240, 240)) if rng.random() < 0.5 else None
    box = draw_package(rng, draw_make(rng), picture, None)
    angles = (float(rng.uniform(-40, 40)), float(rng.uniform(0, 15)), float(rng.normal(0, 3)))
    shift = (side * size[1] * float(rng.uniform(0.2, 0.45)), size[0] * float(rng.uniform(-0.15, 0.15)))
    blending.put(image, see(box, rng, size, Pose(angles, float(rng.uniform(0.35, 0.7)), shift)))


def cropped(rng: np.random.Generator, image: Array) -> Array:
    """A picture, of which one side is cut off now and then."""
    if rng.random() >= CROP_SHARE:
        return image
    w = image.shape[1]
    left = max(64, int(w * rng.uniform(*CROP)))
    part = image[:, :left] if rng.random() < 0.5 else image[:, max(0, w - left) :]
    return np.ascontiguousarray(part)
