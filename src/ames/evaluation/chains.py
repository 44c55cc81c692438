"""Evaluation of a chain on a data set: its files, checked against each other, and its metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ames.chains.chain import Chain, run
from ames.chains.rerank_step import Head, Rerank, ordered
from ames.chains.state import Files, State
from ames.database.store import Database
from ames.datasets.ground_truth import GroundTruth, check_names, load_ground_truth
from ames.datasets.layout import DatasetFolder
from ames.datasets.lists import read_list
from ames.descriptors.local import DescriptorFile, GlobalFile
from ames.descriptors.vectors import Vectors
from ames.errors import AmesError
from ames.evaluation.protocols import Protocol, Result, evaluate
from ames.evaluation.runs import padded
from ames.evaluation.sweep import Reranked, choose_fusion, junk_ids
from ames.global_search.shortlist import Shortlist
from ames.reranking.fusion import Fusion
from ames.reranking.list_scores import ListScores
from ames.reranking.scorer import ComputeConfig


@dataclass(frozen=True, eq=False)
class ChainSet:
    """A test set for chains: its descriptors and its ground truth."""

    files: Files
    ground_truth_file: Path
    ground_truth: GroundTruth

    def start(
        self, protocols: Sequence[Protocol], compute: ComputeConfig | None = None, cache: Path | None = None
    ) -> State:
        """Return the state before a chain, with the junk of each protocol."""
        junk = {p.name: junk_ids(self.ground_truth, p) for p in protocols}
        return State.start(self.files, junk, compute, cache)


def open_chain_set(
    folder: DatasetFolder,
    *,
    ground_truth: str | None = None,
    distractors: bool = False,
    database: Path | None = None,
    other: DatasetFolder | None = None,
) -> ChainSet:
    """Open what a folder has under its descriptors: local ones, global ones, or both.

    ground_truth, distractors, database: as of ``ames.evaluation.test_set.open_test_set``. other: the data set
    that codebooks are trained on. AmesError where there are neither, and where files, and the ground truth,
    are not of the same images.
    """
    path = folder.find_ground_truth(ground_truth)
    truth = load_ground_truth(path)
    held = None if database is None else Database(database)
    local = {x: _local(folder, x) for x in ("query", "gallery")}
    vectors = {x: _vectors(folder, x) for x in ("query", "gallery")}
    gallery = local["gallery"] if held is None else held
    asked, searched = local["query"] or vectors["query"], gallery or vectors["gallery"]
    if asked is None or searched is None:
        side = "query" if asked is None else "gallery"
        raise AmesError(
            f"{folder.path}: there is neither {folder.local(side).name} nor {folder.vectors(side).name}: "
            "extract the data set first, ames prepare"
        )
    if not truth.imlist:  # GLDv2's file names no images
        truth = load_ground_truth(path, gallery_size=len(searched), query_size=len(asked))
    listed = len(truth.imlist)
    truth = padded(truth, len(searched)) if distractors else truth
    for file in (local["query"], vectors["query"]):
        _check_images(file, truth.qimlist, len(truth.qimlist), path)
    for gallery_file in (gallery, vectors["gallery"]):
        _check_images(gallery_file, truth.imlist, listed, path)
    for split, images in (("query", truth.qimlist), ("gallery", truth.imlist[:listed])):
        check_list(folder.image_list(split), images, path)
    made = {x: None if file is None else Vectors.open(file.path) for x, file in vectors.items()}
    trained = None if other is None else _local(other, "gallery") or _local(other, "")
    files = Files(folder, local["query"], gallery, made["query"], made["gallery"], trained)
    return ChainSet(files, path, truth)


def check_list(listed: Path, images: Sequence[str], truth: Path) -> None:
    """AmesError where a list exists and is not of the images of the ground truth, in their order."""
    if not listed.is_file() or not images:
        return
    names = [item.path for item in read_list(listed)]
    if len(names) < len(images):
        said = f"{len(names)} images, but {len(images)} in {truth}"
        raise AmesError(f"{listed}: {said}: make the lists again")
    check_names(names[: len(images)], images, source=str(listed), truth=str(truth))


def _local(folder: DatasetFolder, split: str) -> DescriptorFile | None:
    path = folder.local(split)
    return DescriptorFile(path) if path.is_file() else None


def _vectors(folder: DatasetFolder, split: str) -> GlobalFile | None:
    path = folder.vectors(split)
    return GlobalFile(path) if path.is_file() else None


def _check_images(
    file: DescriptorFile | GlobalFile | Database | None, images: Sequence[str], listed: int, truth: Path
) -> None:
    """AmesError unless a file is of these images, the first ``listed`` of which have names."""
    if file is None:
        return
    if len(file) != len(images):
        raise AmesError(
            f"{file.path}: {len(file)} images, but {len(images)} in {truth}: extract its list again"
        )
    names = file.names if not isinstance(file, Database) or file.is_named else None
    if names is not None:
        check_names(names[:listed], images[:listed], source=str(file.path), truth=str(truth))


@dataclass(frozen=True, eq=False)
class ChainResult:
    """The result of a chain: its last state, the ranking int64 [Q, M] and the metrics of each protocol.

    first: the shortlist before candidates are re-ranked by a model.
    """

    state: State
    first: Shortlist
    results: dict[Protocol, Result]

    def ranking(self, protocol: Protocol) -> np.ndarray:
        """Return the ranking under a protocol, junk at the end of what was re-ranked."""
        return self.state.rankings[protocol.name].ids


def evaluate_chain(
    chain: Chain,
    test: ChainSet,
    protocols: Sequence[Protocol],
    *,
    compute: ComputeConfig | None = None,
    score_cache: Path | None = None,
) -> ChainResult:
    """Check a chain, run it, and evaluate its result. score_cache: folder of an interrupted call's scores.

    AmesError before anything runs where its steps do not fit together or do not fit the files.
    """
    chain.check(test.files)
    state = test.start(protocols, compute, score_cache)
    for step in chain.steps:
        if not isinstance(step, Rerank):
            state = first = run(step, state)
        else:
            state = run(step, state)
    truth = test.ground_truth
    results = {p: evaluate(state.rankings[p.name].ids, truth, p) for p in protocols}
    return ChainResult(state, first.shortlist, results)


def lacks_fusion(chain: Chain) -> bool:
    """Return whether a re-ranking of the chain has no fusion of its own, so that ``with_fusions`` chooses."""
    return any(isinstance(step, Rerank) and step.fusion is None for step in chain.steps)


def with_fusions(
    chain: Chain,
    test: ChainSet,
    protocols: Sequence[Protocol],
    *,
    compute: ComputeConfig | None = None,
    score_cache: Path | None = None,
) -> Chain:
    """Return the chain with a fusion for each re-ranking that has none of its own.

    It is the best on this validation set (``choose_fusion``), step by step: those before are chosen already.
    """
    if not lacks_fusion(chain):
        return chain
    chain.check(test.files)
    state, steps = test.start(protocols, compute, score_cache), []
    for step in chain.steps:
        if not isinstance(step, Rerank):
            state = run(step, state)
        else:
            model, fusion = step.load(test.files)
            heads, _ = step.score(state, model)
            if step.fusion is None:
                reranked = Heads(heads, test.ground_truth, protocols)
                width = next(iter(heads.values())).ids.shape[1]
                fusion, _ = choose_fusion(reranked, width, unit=model.score_unit)
                step = replace(step, lamb=fusion.lamb, temp=fusion.gamma)
            state = replace(state, rankings={view: ordered(head, fusion) for view, head in heads.items()})
        steps.append(step)
    return Chain(chain.name, tuple(steps))


class Heads:
    """Scored candidates as ``choose_fusion`` reads them; lists may differ between protocols."""

    def __init__(self, heads: dict[str, Head], truth: GroundTruth, protocols: Sequence[Protocol]) -> None:
        self._each = {
            p: Reranked(heads[p.name].ranking, _padded(heads[p.name]), truth, [p]) for p in protocols
        }

    def evaluate(self, num_rerank: int, fusion: Fusion) -> dict[Protocol, Result]:
        """Return the metrics with the first ``num_rerank`` re-ranked."""
        return {p: each.evaluate(num_rerank, fusion)[p] for p, each in self._each.items()}


def _padded(head: Head) -> np.ndarray | ListScores:
    """Logits of the whole list, NaN behind the candidates."""
    if not isinstance(head.scores, np.ndarray):
        return head.scores
    logits = np.full(head.ranking.ids.shape, np.nan, np.float32)
    logits[:, : head.scores.shape[1]] = head.scores
    return logits
