"""Which photographs, and which parts of them, a landmark is made of.

Three places make a group: landmarks 2g and 2g + 1 and the distractor landmark g. The members of a group are
often disjoint parts of one photograph, or packages of one make, so they are hard negatives of each other.
But for the common picture of a make, no part of a photograph is the subject of two landmarks, and backgrounds
come from photographs that serve no landmark. So two labels never show the same thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ames.datasets.landmarks.photographs import DETAIL, Shot

KINDS = ("wall", "object", "box", "scene", "facade")
MEMBERS = 3  # of a group
BACKGROUND_SHARE = 0.2  # of the photographs: backgrounds, occluders and pictures without a landmark
SINGLE_SHARE = 0.25  # of the other photographs: one landmark each; the others are divided
# Kinds of landmarks that are one photograph, and of the groups that share one. Scenes need large parts.
SINGLE_KINDS = {"wall": 0.25, "object": 0.2, "scene": 0.55}
SHARED_KINDS = {"wall": 0.2, "object": 0.2, "box": 0.3, "scene": 0.3}
REST_KINDS = {"wall": 0.5, "object": 0.5}  # of parts that are left over
FINE_SIDE = 700  # pixels of the shorter side of a photograph that may have nine parts
DRAWN_SHARE = 0.2  # of the groups: facades and printed packages, which need no photograph of their own
DRAWN_KINDS = ("facade", "box", "box")  # in turn: packages of one make are the hardest negatives
LEAST_DETAIL = 9  # mean gradient, grey levels, of a place that shows something
LEAST_COVER = (0.35, 0.55)  # share of such places in a part, and in the middle of a scene
LEAST_VARIETY = 8  # of a photograph that shows things; parts of a mere texture cannot be told apart
GAP = 0.01  # between parts of a photograph, share of its side


class Part(NamedTuple):
    """A part of a photograph: its name on the shelf and (left, top, right, bottom) in pixels."""

    name: str
    box: tuple[int, int, int, int]


Act = tuple[str, tuple[Part, ...]]  # a role before its group has a number


@dataclass(frozen=True)
class Role:
    """A landmark's kind and its parts; a package has its own picture first, then the one of its make."""

    kind: str
    group: int
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Cast:
    """The roles of all groups for which there are photographs, and what is behind and before landmarks."""

    groups: tuple[tuple[Role, ...], ...]
    backgrounds: tuple[str, ...]
    cut_outs: tuple[str, ...]  # that only hide landmarks

    def role(self, group: int, member: int) -> Role:
        """The role of a place; beyond the photographs it is drawn."""
        if group < len(self.groups):
            return self.groups[group][member]
        return Role(DRAWN_KINDS[group % len(DRAWN_KINDS)], group)


def cast(rng: np.random.Generator, shots: Sequence[Shot]) -> Cast:
    """Give each photograph its task; at least one of ``shots`` is no cut-out."""
    order = [shots[i] for i in rng.permutation(len(shots))]
    plain, cut = [s for s in order if not s.cut_out], [s for s in order if s.cut_out]
    behind = max(1, round(BACKGROUND_SHARE * len(plain)))
    before = round(BACKGROUND_SHARE * len(cut))
    backgrounds = [shot.name for shot in plain[:behind]]
    singles: list[Act] = [("object", (whole(shot),)) for shot in cut[before:]]
    groups: list[list[Act]] = []
    for shot in plain[behind:]:
        if shot.variety < LEAST_VARIETY:
            backgrounds.append(shot.name)
            continue
        shared, single = divided(rng, shot) if rng.random() > SINGLE_SHARE else ([], [])
        kind = _draw(rng, SINGLE_KINDS)
        if not shared and not single and detailed(shot, (0, 0, 1, 1), kind):
            single = [(kind, (whole(shot),))]
        groups += shared
        singles += single
        if not shared and not single:
            backgrounds.append(shot.name)
    singles = [singles[i] for i in rng.permutation(len(singles))]
    groups += [singles[i : i + MEMBERS] for i in range(0, len(singles) - MEMBERS + 1, MEMBERS)]
    for n in range(round(len(groups) * DRAWN_SHARE / (1 - DRAWN_SHARE))):
        groups.append([(DRAWN_KINDS[n % len(DRAWN_KINDS)], ())] * MEMBERS)
    mixed = [groups[i] for i in rng.permutation(len(groups))]
    roles = tuple(tuple(Role(kind, g, parts) for kind, parts in group) for g, group in enumerate(mixed))
    return Cast(roles, tuple(backgrounds), tuple(shot.name for shot in cut[:before]))


def divided(rng: np.random.Generator, shot: Shot) -> tuple[list[list[Act]], list[Act]]:
    """Groups whose members are disjoint parts of one photograph, and the parts that are left over.

    Only parts with detail count. A package needs a part of its own; those of a make share one more.
    """
    kind = _draw(rng, SHARED_KINDS)
    cells = grid(rng, *division(rng, shot, kind))
    order = [cells[i] for i in rng.permutation(len(cells))]
    parts = [part_of(shot, cell) for cell in order if detailed(shot, cell, kind)]
    if kind == "scene":
        acts: list[Act] = [("scene", (part,)) for part in parts]
        return ([[*acts, ("facade", ())]], []) if len(acts) == 2 else ([], acts)
    step = MEMBERS + (kind == "box")
    chunks = [parts[i : i + step] for i in range(0, len(parts) - step + 1, step)]
    rest: list[Act] = [(_draw(rng, REST_KINDS), (part,)) for part in parts[len(chunks) * step :]]
    if kind == "box":
        return [[("box", (part, chunk[-1])) for part in chunk[:-1]] for chunk in chunks], rest
    return [[(kind, (part,)) for part in chunk] for chunk in chunks], rest


def division(rng: np.random.Generator, shot: Shot, kind: str) -> tuple[int, int]:
    """Rows and columns of the parts of a photograph: two halves for scenes, else 4, 6 or 9 parts."""
    short, wide = min(shot.size), shot.size[1] >= shot.size[0]
    if kind == "scene":
        return (1, 2) if wide else (2, 1)
    finest = 3 if short >= FINE_SIDE else 2
    choice = int(rng.integers(1 if kind == "box" else 0, finest))
    return ((2, 2), (2, 3) if wide else (3, 2), (3, 3))[choice]


def grid(rng: np.random.Generator, rows: int, columns: int) -> list[tuple[float, float, float, float]]:
    """Rows × columns cells (left, top, right, bottom) in shares of the sides, about equal, with gaps."""
    lines = []
    for count in (rows, columns):
        inner = np.arange(1, count) / count + rng.uniform(-0.12, 0.12, count - 1) / count
        lines.append(np.concatenate([[0.0], inner, [1.0]]))
    return [
        (float(left) + GAP, float(top) + GAP, float(right) - GAP, float(bottom) - GAP)
        for top, bottom in zip(lines[0][:-1], lines[0][1:], strict=True)
        for left, right in zip(lines[1][:-1], lines[1][1:], strict=True)
    ]


def detailed(shot: Shot, cell: tuple[float, float, float, float], kind: str) -> bool:
    """Return whether a cell (shares of the sides) shows enough to be told from others: no plain sky.

    Of a scene the middle counts, which all its views show.
    """
    table = np.frombuffer(shot.detail, np.uint8).reshape(DETAIL, DETAIL)
    left, top, right, bottom = cell
    if kind == "scene":
        x, y = (right - left) / 4, (bottom - top) / 4
        left, top, right, bottom = left + x, top + y, right - x, bottom - y
    rows, columns = (slice(round(a * DETAIL), round(b * DETAIL)) for a, b in ((top, bottom), (left, right)))
    return float((table[rows, columns] >= LEAST_DETAIL).mean()) >= LEAST_COVER[kind == "scene"]


def part_of(shot: Shot, cell: tuple[float, float, float, float]) -> Part:
    """A cell of a photograph in pixels."""
    height, width = shot.size
    left, top, right, bottom = cell
    return Part(shot.name, (int(left * width), int(top * height), int(right * width), int(bottom * height)))


def whole(shot: Shot) -> Part:
    """All of a photograph."""
    return Part(shot.name, (0, 0, shot.size[1], shot.size[0]))


def _draw(rng: np.random.Generator, shares: dict[str, float]) -> str:
    return list(shares)[int(rng.choice(len(shares), p=list(shares.values())))]
