"""The scores of an evaluation, ``scores.npz`` in its folder: for metrics without the model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ames.datasets.ground_truth import GroundTruth, load_ground_truth
from ames.errors import AmesError
from ames.evaluation.protocols import GLDV2, REVISITED, Protocol, protocols_by_name
from ames.global_search.shortlist import Shortlist, named
from ames.io.archives import reading_npz
from ames.io.atomic import atomic_file
from ames.io.claims import parsed
from ames.reranking.list_scores import ListScores
from ames.reranking.windows import Windows

SCORES, RESULTS = "scores.npz", "results.json"


@dataclass(frozen=True, eq=False)
class Run:
    """Scores of one evaluation, and all that metrics of them need.

    scores: logits float32 [Q, M] as the shortlist, NaN where no protocol needed the pair; or those of the
    lists that a list-wise model read. gallery_size: images of
    the gallery, more than the ground truth names where distractors lie behind. about: dataset, model,
    descriptor counts, and the rows that were asked for.
    """

    shortlist: Shortlist
    scores: np.ndarray | ListScores
    ground_truth: Path
    gallery_size: int
    protocols: tuple[Protocol, ...]
    about: dict[str, Any]

    def save(self, folder: Path) -> None:
        """Writes ``folder/scores.npz``."""
        meta: dict[str, Any] = {
            "ground_truth": str(self.ground_truth.resolve()),
            "gallery_size": self.gallery_size,
            "protocols": [asdict(p) for p in self.protocols],
            "about": self.about,
        }
        if isinstance(self.scores, ListScores):
            scores, meta["windows"] = self.scores.to_arrays(), asdict(self.scores.windows)
        else:
            scores = {"logits": self.scores}
        arrays = {"ids": self.shortlist.ids, "similarities": self.shortlist.similarities} | scores
        with atomic_file(folder / SCORES) as file:
            np.savez(file, allow_pickle=False, meta=np.array(json.dumps(meta)), **arrays)

    @classmethod
    def load(cls, folder: Path | str) -> Run:
        """Read what ``save`` wrote; AmesError names what is missing or broken."""
        path = Path(folder) / SCORES
        if not path.is_file():
            raise AmesError(f"{path}: no such file; give the folder of an evaluation's run")
        with reading_npz(path, "the scores of an evaluation"), np.load(path, allow_pickle=False) as content:
            meta = parsed(str(content["meta"][()]))
            with named(path):
                shortlist = Shortlist(content["ids"], content["similarities"])
            return cls(
                shortlist,
                _scores(content, meta),
                Path(meta["ground_truth"]),
                int(meta["gallery_size"]),
                tuple(_protocol(item) for item in meta["protocols"]),
                dict(meta["about"]),
            )

    def truth(self, path: Path | None = None) -> GroundTruth:
        """Read the ground truth of the run, from ``path`` if it was moved."""
        return padded(load_ground_truth(path or self.ground_truth), self.gallery_size)

    def choose(self, names: Sequence[str]) -> tuple[Protocol, ...]:
        """Return protocols by name, of the run, ROxford/RParis and GLDv2; without names those of the run."""
        return protocols_by_name(names, (*REVISITED, *GLDV2, *self.protocols)) or self.protocols


def padded(truth: GroundTruth, gallery_size: int) -> GroundTruth:
    """Add a name for each distractor that follows the listed gallery images."""
    names = [f"distractor {i}" for i in range(len(truth.imlist), gallery_size)]
    return replace(truth, imlist=[*truth.imlist, *names]) if names else truth


def _scores(content: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> np.ndarray | ListScores:
    if "windows" not in meta:
        return content["logits"]
    return ListScores.from_arrays(content["lists"], content["list_logits"], Windows(**meta["windows"]))


def _protocol(item: dict[str, Any]) -> Protocol:
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in item.items()}
    return Protocol(**values)
