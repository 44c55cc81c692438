"""What a generated data set consists of: its parameters, its places, and the source of chance of each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ames.datasets.landmarks.photographs import Record
from ames.errors import AmesError

FORMAT = 1  # version of the files and of the drawing; sets of other versions are refused
SPLITS = {"train": 0, "val": 1, "test": 2}

CANVAS_VIEW = 0  # "view number" that draws the landmark itself; photographs are numbered from 1
LIST_LANDMARK = 3_000_000  # "landmark number" that shuffles the lists
DISTRACTOR_LANDMARK = 1_000_000  # first number of the landmarks that nobody queries
CLUTTER_LANDMARK = 2_000_000  # first number of the scenes without a landmark
GROUP_LANDMARK = 4_000_000  # first number of the groups of landmarks made of photographs
DISTRACTOR_VIEWS = 4  # pictures of one distractor landmark
CLUTTER_SHARE = 0.3  # share of the distractors that show no landmark
PORTRAIT_SHARE = 0.3  # share of the pictures in portrait orientation


@dataclass(frozen=True)
class Parameters:
    """The content of a set, recorded in ``dataset.json``. AmesError for impossible values.

    split: "train", "val" or "test"; landmarks of different splits never coincide. landmarks: their number;
    "val" and "test" have one query each. easy, hard, junk: views of each landmark, the query not counted.
    distractors: pictures of other landmarks or of none. seed: another one draws other landmarks. size:
    (height, width) of landscape pictures in pixels; portrait ones have them swapped. photographs: those that
    the set is made of; ``build.make_landmarks`` fills it in. With them, pictures are up to ``size`` large.
    """

    split: str
    landmarks: int
    easy: int
    hard: int
    junk: int
    distractors: int
    seed: int = 0
    size: tuple[int, int] = (384, 512)
    format: int = FORMAT
    photographs: Record | None = None

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise AmesError(f"split {self.split!r} is none of {', '.join(SPLITS)}")
        for name in ("landmarks", "easy", "hard", "junk", "distractors", "seed"):
            if getattr(self, name) < 0:
                raise AmesError(f"{name}={getattr(self, name)} must not be negative")
        if not 0 < self.landmarks < DISTRACTOR_LANDMARK:
            raise AmesError(f"landmarks={self.landmarks} must be from 1 to {DISTRACTOR_LANDMARK - 1}")
        if self.split != "train" and not (self.easy and self.hard):
            raise AmesError("a val or test set needs at least one easy and one hard view per landmark")
        if min(self.size) < 64:
            raise AmesError(f"size={self.size} is too small: both sides need at least 64 pixels")


@dataclass(frozen=True)
class Place:
    """One landmark, or one scene without any, and the difficulty of each of its pictures."""

    number: int
    label: int
    kind: str  # "landmark", "distractor" or "clutter"
    views: tuple[str, ...]  # "query", "easy", "hard", "junk" or "clutter"; numbered from 1


def plan(parameters: Parameters) -> list[Place]:
    """All places of a set. Labels: the landmarks from 0 on, then the distractors, each with its own."""
    views = ["easy"] * parameters.easy + ["hard"] * parameters.hard + ["junk"] * parameters.junk
    if parameters.split != "train":
        views.insert(0, "query")
    places = [Place(n, n, "landmark", tuple(views)) for n in range(parameters.landmarks)]
    scenes = int(parameters.distractors * CLUTTER_SHARE)
    cycle = ("easy", "hard", "easy", "hard")
    for n, start in enumerate(range(0, parameters.distractors - scenes, DISTRACTOR_VIEWS)):
        count = min(DISTRACTOR_VIEWS, parameters.distractors - scenes - start)
        places.append(Place(DISTRACTOR_LANDMARK + n, len(places), "distractor", cycle[:count]))
    for n in range(scenes):
        places.append(Place(CLUTTER_LANDMARK + n, len(places), "clutter", ("clutter",)))
    return places


def generator(parameters: Parameters, landmark: int, view: int) -> np.random.Generator:
    """The one source of chance of one picture (or, as view 0, of one drawn landmark)."""
    return np.random.default_rng([parameters.seed, SPLITS[parameters.split], landmark, view])


def described(parameters: Parameters) -> dict[str, Any]:
    """The content of ``dataset.json``; that of a drawn set does not mention photographs."""
    content = asdict(parameters)
    if parameters.photographs is None:
        del content["photographs"]
    return content
