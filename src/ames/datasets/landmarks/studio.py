"""What stands behind and before a photographed landmark: crops of photographs that show no landmark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ames.datasets.landmarks import blending, camera, motifs, scenery
from ames.datasets.landmarks.motifs import Motif
from ames.datasets.landmarks.outlines import draw_outline
from ames.datasets.landmarks.photographs import read_shot
from ames.datasets.landmarks.roles import Part
from ames.datasets.landmarks.textures import Array

SOFT_SHARE = 0.35  # share of the backgrounds that are out of focus
BODY_SHARE = 0.75  # of the occluders; the others have the shape of poles, trees and people
CUT_OUT_SHARE, EACH_SHARE = 0.5, 0.02  # of the bodies that are cut-outs: at most, and for each cut-out
OCCLUDER_TRIES = 24
IDLE, BESIDE_SHARE = 0.02, 0.15  # of the things that hide less than 2 % of the landmark, some stay


@dataclass(frozen=True)
class Studio:
    """The shelf of reduced photographs and the names of those that are no landmark."""

    shelf: Path
    backgrounds: tuple[str, ...]
    cut_outs: tuple[str, ...] = ()

    def part(self, part: Part) -> Array:
        """The pixels of a part, uint8 [h, w, 3 or 4], not writeable."""
        left, top, right, bottom = part.box
        return read_shot(self.shelf / part.name)[top:bottom, left:right]

    def surface(
        self, rng: np.random.Generator, size: tuple[int, int], share: tuple[float, float] = (0.35, 1.0)
    ) -> Array:
        """A crop of any background photograph, uint8 [h, w, 3], mirrored or not.

        size: (h, w). share: range of the crop's size; 1 is the largest that the photograph holds.
        """
        name = self.backgrounds[rng.integers(len(self.backgrounds))]
        photograph = read_shot(self.shelf / name)
        largest = min(photograph.shape[0] / size[0], photograph.shape[1] / size[1])
        factor = largest * float(rng.uniform(*share))
        h, w = max(2, int(size[0] * factor)), max(2, int(size[1] * factor))
        top = int(rng.integers(0, photograph.shape[0] - h + 1))
        left = int(rng.integers(0, photograph.shape[1] - w + 1))
        crop = photograph[top : top + h, left : left + w]
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        way = cv2.INTER_AREA if factor > 1 else cv2.INTER_CUBIC
        return cv2.resize(np.ascontiguousarray(crop), size[::-1], interpolation=way)

    def background(self, rng: np.random.Generator, size: tuple[int, int]) -> Array:
        """The surroundings of a landmark, sharp or out of focus, brighter or darker: uint8 [h, w, 3]."""
        image = self.surface(rng, size)
        if rng.random() < SOFT_SHARE:
            image = cv2.GaussianBlur(image, (0, 0), max(size) / 512 * float(rng.uniform(1, 5)))
        return cv2.convertScaleAbs(image, alpha=float(rng.uniform(0.75, 1.15)))

    def body(self, rng: np.random.Generator, view: tuple[int, int]) -> Motif:
        """A thing before the landmark, anywhere in the view: image [h, w, 3] and mask [h, w]."""
        side = min(view) * rng.uniform(0.18, 0.6)
        size = (max(16, int(side * rng.uniform(0.6, 1.4))), max(16, int(side * rng.uniform(0.6, 1.4))))
        if rng.random() < min(CUT_OUT_SHARE, EACH_SHARE * len(self.cut_outs)):
            thing = read_shot(self.shelf / self.cut_outs[rng.integers(len(self.cut_outs))])
            factor = side / max(thing.shape[:2])
            thing = cv2.resize(thing, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
            image, mask = np.ascontiguousarray(thing[..., :3]), camera.solid(thing[..., 3])
        else:
            image, mask = self.surface(rng, size, (0.15, 0.5)), draw_outline(rng, size)
        h, w = mask.shape
        x, y = int(rng.integers(-w // 3, view[1] - w // 2)), int(rng.integers(-h // 3, view[0] - h // 2))
        return motifs.add(motifs.blank(view), (image, mask), x, y)

    def clad(self, rng: np.random.Generator, view: tuple[int, int]) -> Motif:
        """A pole, a tree or people, as drawn landmarks have, of photographed stuff."""
        shape = (scenery.pole, scenery.tree, scenery.people)[rng.integers(3)]
        image, mask = shape(rng, view)
        stuff = self.surface(rng, view, (0.2, 0.6))
        return cv2.addWeighted(image, 0.4, stuff, 0.6, 0), mask

    def occlude(self, rng: np.random.Generator, image: Array, visible: Array, share: float) -> None:
        """Put things before a view [h, w, 3], in place, until about ``share`` of the landmark is hidden.

        visible: mask [h, w] of the landmark. A thing that would hide 0.15 more than ``share`` is left out.
        """
        whole = cv2.countNonZero(visible)
        if whole == 0 or share <= 0.02:
            return
        for _ in range(OCCLUDER_TRIES):
            layer, mask = (self.body if rng.random() < BODY_SHARE else self.clad)(rng, visible.shape)
            left = cv2.bitwise_and(visible, cv2.bitwise_not(mask))
            hidden = 1 - cv2.countNonZero(left) / whole
            idle = cv2.countNonZero(visible) - cv2.countNonZero(left) < IDLE * whole
            if hidden > share + 0.15 or (idle and rng.random() > BESIDE_SHARE):
                continue
            blending.put(image, (layer, mask))
            visible = left
            if hidden >= share:
                break
