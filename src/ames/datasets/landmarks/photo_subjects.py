"""Landmarks made of photographs: what the camera of ``photo_views`` looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ames.datasets.landmarks import scenery
from ames.datasets.landmarks.boxes import Box
from ames.datasets.landmarks.facades import draw_landmark
from ames.datasets.landmarks.outlines import draw_outline
from ames.datasets.landmarks.packages import draw_make, draw_package
from ames.datasets.landmarks.relief import draw_relief
from ames.datasets.landmarks.roles import Role
from ames.datasets.landmarks.studio import Studio
from ames.datasets.landmarks.textures import Array

ASPECTS = (0.6, 1.7)  # width / height of a crop
MARGIN = 3  # pixels around a plane that lie outside of its mask: the border of a layer is never seen
FACADE_TEXTURED = 0.7  # share of the facades whose wall has a photograph's texture
FACADE_SIZE = 560  # pixels of a facade's side, about
PLACE_SHARE = 0.5  # of the landmarks, most of which do not move in the world
PLACE_SIZE = (560, 720)  # pixels: a view shows a part of it


@dataclass(frozen=True)
class Plane:
    """A flat landmark, or the photograph of a scene: image uint8 [H, W, 3], mask uint8 [H, W].

    relief: depth over it as ``relief.draw_relief`` draws it, None where it is a plane.
    """

    image: Array
    mask: Array
    relief: Array | None = None


@dataclass(frozen=True)
class Subject:
    """A landmark: its kind (``roles.KINDS``), its body, its place (None: another one in each view)."""

    kind: str
    body: Plane | Box
    place: Plane | None = None


def make_subject(
    role: Role, studio: Studio, of_group: Callable[[], np.random.Generator], rng: np.random.Generator
) -> Subject:
    """The landmark of a role, often in a place of its own. of_group: a fresh generator, the same for all of a
    group; rng: this one's.
    """
    subject = make_bare(role, studio, of_group, rng)
    if subject.kind == "scene" or rng.random() >= PLACE_SHARE:
        return subject
    return replace(subject, place=draw_place(rng, studio, street=subject.kind == "facade"))


def draw_place(rng: np.random.Generator, studio: Studio, *, street: bool) -> Plane:
    """What is behind a landmark in all its views: a crop of a photograph; for facades often a street."""
    if street and rng.random() < 0.5:
        image = scenery.background(rng, PLACE_SIZE, int(rng.integers(1, 4)))
    else:
        image = studio.surface(rng, PLACE_SIZE, (0.5, 0.8))
    return Plane(image, np.full(PLACE_SIZE, 255, np.uint8))


def make_bare(
    role: Role, studio: Studio, of_group: Callable[[], np.random.Generator], rng: np.random.Generator
) -> Subject:
    """The landmark of a role, without a place."""
    if role.kind == "box":
        own, common = (studio.part(part) for part in role.parts) if role.parts else (None, None)
        return Subject("box", draw_package(rng, draw_make(of_group()), own, common))
    if role.kind == "facade":
        return Subject("facade", facade(rng, studio))
    pixels = studio.part(role.parts[0])
    if role.kind == "scene":
        return Subject("scene", Plane(pixels, np.full(pixels.shape[:2], 255, np.uint8), draw_relief(rng)))
    if role.kind == "wall":
        return Subject("wall", wall(crop(rng, pixels)))
    if pixels.shape[2] == 4:
        return Subject("object", replace(cut_out(pixels), relief=draw_relief(rng)))
    # Siblings have one outline: only their content tells them apart.
    shape = crop(rng, pixels)
    outline = inset(draw_outline(of_group(), shape.shape[:2]))
    return Subject("object", Plane(shape, outline, draw_relief(rng)))


def crop(rng: np.random.Generator, pixels: Array) -> Array:
    """A large part of a photograph's part, with a width of 0.6 to 1.7 heights."""
    h, w = pixels.shape[:2]
    aspect = float(np.clip(w / h * rng.uniform(0.75, 1.35), *ASPECTS))
    height, width = min(h, int(w / aspect)), min(w, int(h * aspect))
    top, left = int(rng.integers(0, h - height + 1)), int(rng.integers(0, w - width + 1))
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def inset(mask: Array) -> Array:
    """A mask without the margin of its canvas, in place."""
    mask[:MARGIN] = mask[-MARGIN:] = 0
    mask[:, :MARGIN] = mask[:, -MARGIN:] = 0
    return mask


def wall(image: Array) -> Plane:
    """A photograph as a wall, a poster or a board."""
    return Plane(image, inset(np.full(image.shape[:2], 255, np.uint8)))


def cut_out(pixels: Array) -> Plane:
    """A cut-out with room around it."""
    padded = cv2.copyMakeBorder(pixels, MARGIN, MARGIN, MARGIN, MARGIN, cv2.BORDER_REPLICATE)
    return Plane(np.ascontiguousarray(padded[..., :3]), inset(np.ascontiguousarray(padded[..., 3])))


def facade(rng: np.random.Generator, studio: Studio) -> Plane:
    """A drawn landmark, most often with the texture of a photograph on its wall."""
    height, width = (int(FACADE_SIZE * rng.uniform(0.85, 1.2)) for _ in range(2))
    image, mask = draw_landmark(rng, (height, width))
    if rng.random() < FACADE_TEXTURED:
        texture = cv2.cvtColor(studio.surface(rng, (height, width)), cv2.COLOR_BGR2GRAY).astype(np.float32)
        spread = max(8.0, float(texture.std()))
        factor = 1 + float(rng.uniform(0.1, 0.28)) * np.clip((texture - texture.mean()) / spread, -2, 2)
        image = cv2.convertScaleAbs(cv2.multiply(image, cv2.merge([factor] * 3), dtype=cv2.CV_32F))
    cast = 1 + rng.normal(0, 0.1, 3)  # drawn walls are grey: photographed ones are not
    return Plane(cv2.convertScaleAbs(image * cast[None, None]), mask)
