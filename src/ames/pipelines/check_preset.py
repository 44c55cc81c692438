"""Which descriptors a preset's model was trained on, raw or projected: told by known pairs of photos.

Published descriptor files do not say which of the two they hold (docs/extraction.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, islice, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ames.datasets.ground_truth import load_ground_truth
from ames.datasets.landmarks.build import Parameters, make_landmarks
from ames.datasets.layout import DatasetFolder
from ames.datasets.lists import read_rows
from ames.datasets.photo_folder import open_collection
from ames.errors import AmesError
from ames.extraction.extractor import Extractor
from ames.models.load import load
from ames.reranking.reranker import Reranker

_MATCHING, _OTHER = "same", "different"
_PER_OBJECT = 3  # matching pairs of an object, at most
LANDMARKS = 8  # that are drawn where no photos are given


@dataclass(frozen=True)
class Pair:
    """Two photos, and whether they show the same object."""

    query: Path
    candidate: Path
    same: bool


def check_preset(
    name: str, images: Path | None = None, *, device: str = "cpu", **options: Any
) -> tuple[list[dict[str, Any]], str]:
    """Return rows for a table, and the conclusion in one line.

    name: a model of ``list_models`` with a backbone. images: a folder with one sub-folder per object, or a
    list of lines PHOTO,PHOTO,same (or different), relative to its own folder; None: generated landmarks.
    options: of ``Extractor``, such as the files of ``weights`` and of a ``detector``. A row has the mean
    logit of matching and of other pairs, their margin (the difference of the means in standard deviations),
    and the share of (matching, other) pairs that the logits order rightly, in percent.
    """
    found = load(name)
    if found.entry is None or found.entry.backbone is None:
        raise AmesError(f"{name}: has no backbone of its own, so that there is nothing to check")
    entry, reranker = found.entry, Reranker(name, device=device)
    with TemporaryDirectory() as work:
        pairs = _drawn(Path(work)) if images is None else read_pairs(images)
        ways = ("raw", "projected") if "detector" in entry.extraction or "detector" in options else ("raw",)
        rows = []
        for way in ways:
            extractor = Extractor(name, device=device, **{**options, "descriptors": way})
            photos = list(dict.fromkeys(path for pair in pairs for path in (pair.query, pair.candidate)))
            features = {path: extractor(path).local for path in photos}
            logits = [
                reranker.score(
                    features[pair.query].trim(entry.query_desc_num),
                    [features[pair.candidate].trim(entry.db_desc_num)],
                )[0]
                for pair in pairs
            ]
            rows.append({"descriptors": way} | _separation(np.array(logits), [pair.same for pair in pairs]))
    return rows, _conclusion(name, rows)


def read_pairs(images: Path) -> list[Pair]:
    """Return the pairs of a list, or of a folder with one sub-folder per object."""
    if images.is_dir():
        collection = open_collection(images)
        objects = [
            [collection.root / collection.images[row] for row in rows] for rows in collection.objects.values()
        ]
        if len(objects) < 2:
            raise AmesError(f"{images}: give at least two sub-folders, one per object, with two photos each")
        return pairs_of(objects)
    pairs = []
    for line, row in read_rows(images):
        if len(row) != 3 or row[2] not in (_MATCHING, _OTHER):
            raise AmesError(f"{images}, line {line}: expected PHOTO,PHOTO,same or PHOTO,PHOTO,different")
        first, second = (images.parent / name for name in row[:2])
        pairs.append(Pair(first, second, row[2] == _MATCHING))
    if len({pair.same for pair in pairs}) != 2:
        raise AmesError(f"{images}: give matching pairs and others, both")
    return pairs


def pairs_of(objects: Sequence[Sequence[Path]]) -> list[Pair]:
    """Return up to three matching pairs per object, and as many with the next object's photos."""
    pairs = []
    for one, next_one in pairwise([*objects, objects[0]]):
        matching, other = combinations(one, 2), zip(one, next_one, strict=False)
        for kind, same in ((matching, True), (other, False)):
            pairs += [Pair(a, b, same) for a, b in islice(kind, _PER_OBJECT)]
    return pairs


def _drawn(folder: Path) -> list[Pair]:
    """Pairs of generated landmarks that no shipped model was trained on."""
    made = DatasetFolder(folder / "landmarks", "rootsift")
    parameters = Parameters("test", LANDMARKS, easy=2, hard=1, junk=0, distractors=0)
    make_landmarks(made.path, parameters, workers=0)
    truth = load_ground_truth(made.ground_truth)
    objects = [
        [made.path / name, *(made.path / truth.imlist[i] for i in query["easy"])]
        for name, query in zip(truth.qimlist, truth.queries, strict=True)
    ]
    return pairs_of(objects)


def _separation(logits: np.ndarray, same: Sequence[bool]) -> dict[str, float]:
    mask = np.array(same)
    matching, other = logits[mask], logits[~mask]
    spread = float(np.sqrt((matching.var() + other.var()) / 2))
    margin = float(matching.mean() - other.mean())
    ordered = float((matching[:, None] > other).mean() + 0.5 * (matching[:, None] == other).mean())
    return {
        "matching": float(matching.mean()),
        "other": float(other.mean()),
        "margin": margin / spread if spread else 0.0,
        "ordered %": 100 * ordered,
    }


def _conclusion(name: str, rows: Sequence[dict[str, Any]]) -> str:
    best = max(rows, key=lambda row: row["margin"])
    if len(rows) == 1:
        return f"{name}: its backbone has one kind of descriptors; margin {best['margin']:.1f}"
    other = min(row["margin"] for row in rows)
    return (
        f"{name}: {best['descriptors']} descriptors give the larger margin ({best['margin']:.1f} against "
        f"{other:.1f}): extract with --descriptors {best['descriptors']}"
    )
