"""Which photographs, and which parts of them, a landmark is made of.

Three places make a group: landmarks 2g and 2g + 1 and the distractor landmark g. The members of a group are
often disjoint parts of one photograph, or packages of one make, so they are hard negatives of each other. No
part of a photograph serves two landmarks, and backgrounds come from photographs that serve no landmark. So
two labels never show the same thing.
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
SINGLE_SHARE = 0.35  # of the other photographs: one landmark each; the others are divided
# Kinds of landmarks that are one photograph, and of the groups that share one. Scenes need large parts.
SINGLE_KINDS = {"wall": 0.25, "object": 0.2, "scene": 0.55}
SHARED_KINDS = {"wall": 0.24, "object": 0.24, "box": 0.24, "scene": 0.28}
DRAWN_SHARE = 0.2  # of the groups: facades and printed packages, which need no photograph of their own
DRAWN_KINDS = ("facade", "facade", "facade", "box")  # in turn
LEAST_DETAIL, LEAST_COVER = 9, 0.35  # a part has a gradient of 9 grey levels on this share of its area
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
        shared = [] if rng.random() < SINGLE_SHARE else divided(rng, shot)
        groups += shared
        if not shared and detailed(shot, (0, 0, 1, 1)):
            singles.append((_draw(rng, SINGLE_KINDS), (whole(shot),)))
        elif not shared:
            backgrounds.append(shot.name)
    singles = [singles[i] for i in rng.permutation(len(singles))]
    groups += [singles[i : i + MEMBERS] for i in range(0, len(singles) - MEMBERS + 1, MEMBERS)]
    for n in range(round(len(groups) * DRAWN_SHARE / (1 - DRAWN_SHARE))):
        groups.append([(DRAWN_KINDS[n % len(DRAWN_KINDS)], ())] * MEMBERS)
    mixed = [groups[i] for i in rng.permutation(len(groups))]
    roles = tuple(tuple(Role(kind, g, parts) for kind, parts in group) for g, group in enumerate(mixed))
    return Cast(roles, tuple(backgrounds), tuple(shot.name for shot in cut[:before]))


def divided(rng: np.random.Generator, shot: Shot) -> list[list[Act]]:
    """Groups whose members are disjoint parts of one photograph; none if it has too little detail."""
    kind = _draw(rng, SHARED_KINDS)
    wide = shot.size[1] >= shot.size[0]
    if kind == "scene":
        rows, columns = (1, 2) if wide else (2, 1)
    else:
        rows, columns = (2, 3) if wide else (3, 2)
        if kind != "box" and rng.random() < 0.5:
            rows = columns = 2
    cells = grid(rng, rows, columns)
    parts = [part_of(shot, cells[i]) for i in rng.permutation(len(cells)) if detailed(shot, cells[i])]
    if kind == "scene":
        return [[("scene", (parts[0],)), ("scene", (parts[1],)), ("facade", ())]] if len(parts) == 2 else []
    if kind == "box" and len(parts) > MEMBERS:
        return [[("box", (parts[m], parts[MEMBERS])) for m in range(MEMBERS)]]
    kind = "object" if kind == "box" else kind
    return [
        [(kind, (part,)) for part in parts[i : i + MEMBERS]]
        for i in range(0, len(parts) - MEMBERS + 1, MEMBERS)
    ]


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


def detailed(shot: Shot, cell: tuple[float, float, float, float]) -> bool:
    """Return whether a cell (shares of the sides) shows enough to be told from others: no plain sky."""
    table = np.frombuffer(shot.detail, np.uint8).reshape(DETAIL, DETAIL)
    left, top, right, bottom = (round(x * DETAIL) for x in cell)
    return float((table[top:bottom, left:right] >= LEAST_DETAIL).mean()) >= LEAST_COVER


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
