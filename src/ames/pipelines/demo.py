"""The demo: from images to a re-ranked, measured result and a page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ames.backbones.choice import chosen, default_backbone
from ames.datasets.finding import is_image_file
from ames.datasets.ground_truth import GroundTruth, ids, load_ground_truth, save_ground_truth
from ames.datasets.landmarks.build import Parameters, make_landmarks
from ames.datasets.layout import DatasetFolder
from ames.datasets.lists import write_names
from ames.datasets.photo_folder import DISTRACTORS, Collection, open_collection
from ames.descriptors.local import DescriptorFile
from ames.errors import AmesError
from ames.evaluation.evaluate import Scoring, score_once
from ames.evaluation.protocols import (
    LEAVE_ONE_OUT,
    MEDIUM,
    REVISITED,
    Protocol,
    Result,
    left_out,
    query_counts,
)
from ames.evaluation.sweep import evaluate_initial, evaluate_oracle, junk_ids
from ames.evaluation.test_set import TestSet
from ames.extraction.base import BaseExtractor
from ames.extraction.config import ExtractionConfig
from ames.extraction.factory import build_extractor
from ames.extraction.pipeline import OtherSettings
from ames.global_search.shortlist import Shortlist
from ames.io.atomic import atomic_file
from ames.io.hashing import sha256
from ames.io.text import counted
from ames.models.base import Similarity
from ames.models.chamfer import Chamfer
from ames.models.load import load
from ames.models.registry import all_shipped_for
from ames.pipelines.prepare import extract_split, make_shortlist
from ames.reporting.html import Hit, Strip, write_report
from ames.reporting.tables import format_table
from ames.reranking.fusion import Fusion, rerank
from ames.reranking.list_scores import ListScores
from ames.reranking.scorer import ComputeConfig

# Descriptors used of a query, and of a database image in the small and in the large setting.
QUERY_DESC, FEW, MANY = 200, 50, 200
# Chosen on the generated validation pictures at each database count (docs/shipped.md).
CHAMFER_FUSIONS = {
    "aliked": {FEW: Fusion(0.05, 0.8), MANY: Fusion(0.05, 0.8)},
    "rootsift": {FEW: Fusion(0.05, 1.0), MANY: Fusion(0.0, 0.1)},
}
STORED = 400  # descriptors extracted per image
_WIDTH = 128  # of the descriptors of each backbone with shipped models
LANDMARKS, PHOTOS = "landmarks-test", "photos"  # folders of data sets below ``out``
RECORD = "photos.json"  # of the photos that a demo was made from
SHOWN = 8  # results in a strip
STRIPS = 12


@dataclass(frozen=True)
class Method:
    """A row of the table: a model, its descriptor count in the database, and its fusion."""

    name: str
    model: Similarity
    database_count: int
    fusion: Fusion


@dataclass(frozen=True)
class DemoSet:
    """A prepared test set: files, truth, and how it is evaluated."""

    folder: DatasetFolder
    images: Path
    ground_truth: GroundTruth
    protocols: Sequence[Protocol]
    notes: list[str]


@dataclass(frozen=True)
class Outcome:
    """The result of a method: metrics by protocol, logits [Q, M] or those of lists, seconds of scoring."""

    method: Method
    results: dict[Protocol, Result]
    scores: np.ndarray | ListScores
    seconds: float


@dataclass(frozen=True)
class GeneratedLandmarks:
    """Test landmarks with easy, hard and junk views, which no shipped weights have seen."""

    landmarks: int = 40
    seed: int = 0

    def prepare(self, out: Path, *, backbone: str, workers: int) -> DemoSet:
        folder = DatasetFolder(out / LANDMARKS, backbone)
        parameters = Parameters(
            "test", self.landmarks, easy=4, hard=6, junk=2, distractors=500, seed=self.seed
        )
        make_landmarks(folder.path, parameters, workers=workers)
        return DemoSet(folder, folder.path, load_ground_truth(folder.ground_truth), REVISITED, [])


@dataclass(frozen=True)
class OwnPhotos:
    """A folder of photos with one sub-folder per object; leave-one-out over the objects."""

    root: Path
    distractors: str = DISTRACTORS

    def prepare(self, out: Path, *, backbone: str, workers: int) -> DemoSet:
        collection = open_collection(self.root, distractors=self.distractors)
        folder = DatasetFolder(out / PHOTOS, backbone)
        truth = collection.leave_one_out()
        _check_unchanged(folder.path / RECORD, collection, truth)
        write_names(folder.image_list("gallery"), truth.imlist)
        write_names(folder.image_list("query"), truth.qimlist)
        save_ground_truth(folder.ground_truth, truth)
        sizes = ", ".join(f"{name} {len(images)}" for name, images in collection.objects.items())
        notes = [f"{len(collection.images)} images of {self.root}; objects: {sizes}", *collection.notes]
        if collection.unreadable:
            named = "; ".join(f"{name}: {why}" for name, why in collection.unreadable.items())
            said = counted(
                len(collection.unreadable),
                "image could not be read and was",
                "images could not be read and were",
            )
            notes.append(f"{said} left out: {named}")
        return DemoSet(folder, self.root, truth, (LEAVE_ONE_OUT,), notes)


def run_demo(
    out: Path | str,
    source: GeneratedLandmarks | OwnPhotos = GeneratedLandmarks(),
    *,
    backbone: str | None = None,
    num_rerank: int = 100,
    workers: int = 2,
    device: str = "cpu",
    model: Path | str | None = None,
    binary_model: Path | str | None = None,
) -> Path:
    """Run every stage below ``out``, print the table, and return the path of ``report.html``.

    backbone: of shipped models; None: ``ames.backbones.choice.default_backbone``, and a line says which.
    model, binary_model: checkpoints in place of the shipped ones. Finished stages are reused.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise AmesError(f"{out}: is not a folder; give a folder to write to")
    if backbone is None:
        backbone = default_backbone()
        print(chosen(backbone), flush=True)
    methods = _methods(backbone, model, binary_model)
    _check_out(out, source)
    test = source.prepare(out, backbone=backbone, workers=workers)
    config = ExtractionConfig(backbone=backbone, desc_num=STORED, workers=workers, device=device)
    shortlist = _prepare(test, build_extractor(config))
    k = min(num_rerank, shortlist.ids.shape[1])
    outcomes = [_measure(method, test, shortlist, k, device) for method in methods]
    rows = _rows(test, shortlist, outcomes, k)
    notes = _notes(test, shortlist, k)
    print(format_table(rows))
    print("\n".join(notes))
    with atomic_file(out / "results.json") as file:
        file.write(json.dumps({"images": str(test.images), "rows": rows, "notes": notes}, indent=1).encode())
    report = write_report(
        out / "report.html",
        title=f"ames demo: {test.folder.name}",
        rows=rows,
        strips=_strips(test, shortlist, outcomes[-1], k),
        notes=notes,
    )
    print(f"report: {report}")
    return report


def _check_out(out: Path, source: GeneratedLandmarks | OwnPhotos) -> None:
    """AmesError if files of the demo would lie among photos: those that it reads, or others."""
    if isinstance(source, OwnPhotos):
        root = source.root.resolve()
        for place in (out, out / PHOTOS):
            if place.resolve().is_relative_to(root):
                raise AmesError(f"{place}: is among the photos of {source.root}; give another --out")
    if any((out / name).is_file() for name in ("results.json", f"{PHOTOS}/{RECORD}")):
        return  # an earlier demo's
    # Objects have a folder each. Of the landmarks' folder ``make_landmarks`` says what is wrong.
    for pattern in ("*", "*/*"):
        for path in out.glob(pattern):
            own = path.relative_to(out).parts[0].startswith(LANDMARKS)
            if not own and path.is_file() and is_image_file(path):
                raise AmesError(f"{out}: holds images, such as {path.relative_to(out)}; give another --out")


def _check_unchanged(path: Path, collection: Collection, truth: GroundTruth) -> None:
    """AmesError if an earlier run was on other photos; ``path`` records their names and contents."""
    contents = {name: sha256(collection.root / name) for name in truth.imlist}
    record = {"images": contents, "queries": truth.qimlist}
    if not path.exists():
        with atomic_file(path) as file:
            file.write(json.dumps(record).encode())
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = None
    if before != record:
        raise AmesError(
            f"{path.parent}: made from other photos than {collection.root} holds now; "
            "delete this folder or give another --out"
        )


def _prepare(test: DemoSet, extractor: BaseExtractor) -> Shortlist:
    for split in ("query", "gallery"):
        try:
            done = extract_split(test.folder, split, extractor, images=test.images)
        except OtherSettings as error:
            path = test.folder.path
            raise AmesError(
                f"{path}: made by another version of ames; delete this folder or give another --out"
            ) from error
        if not done.already:
            print(done.summary())
    return Shortlist.load(make_shortlist(test.folder), gallery_size=len(test.ground_truth.imlist))


# ---- methods --------------------------------------------------------------------------------------


def _methods(backbone: str, model: Path | str | None, binary_model: Path | str | None) -> list[Method]:
    """Rows of the table below the global one, the binary model last."""
    if backbone not in CHAMFER_FUSIONS:
        known = " or ".join(CHAMFER_FUSIONS)
        raise AmesError(f"backbone {backbone}: no models are shipped for it; the demo takes {known}")
    fusions, methods = CHAMFER_FUSIONS[backbone], []
    for count in (MANY, FEW):
        methods.append(Method("Chamfer, float", Chamfer(local_dim=_WIDTH), count, fusions[count]))
    for found, fusion in _learned(backbone, model, binarized=False):
        methods += [Method(type(found).__name__, found, count, fusion) for count in (MANY, FEW)]
    for found, fusion in _learned(backbone, binary_model, binarized=True):
        methods.append(Method(f"{type(found).__name__} binary", found, FEW, fusion))
    return methods


def _learned(
    backbone: str, given: Path | str | None, *, binarized: bool
) -> Iterator[tuple[Similarity, Fusion]]:
    """A checkpoint, or the shipped models of the backbone, the default one last, and their fusions."""
    shipped = reversed(all_shipped_for(backbone, binarized=binarized))
    for name in shipped if given is None else [given]:
        found = load(name, backbone=backbone)
        model, is_binary = found.model, found.model.code_bits is not None
        if model.local_dim != _WIDTH or is_binary != binarized:
            kind, expected = ("binary" if x else "full-precision" for x in (is_binary, binarized))
            raise AmesError(
                f"{name}: a {kind} model of {model.local_dim}-d descriptors; expected a {expected} one of "
                f"{_WIDTH}-d"
            )
        yield model, Fusion.from_checkpoint(found.about, source=found.name) or Fusion(0.0, 1.0)


def _measure(method: Method, test: DemoSet, shortlist: Shortlist, k: int, device: str) -> Outcome:
    folder, truth = test.folder, test.ground_truth
    files = (DescriptorFile(folder.local(split)) for split in ("query", "gallery"))
    opened = TestSet(folder, folder.ground_truth, folder.shortlist, truth, shortlist, *files)
    scoring = Scoring(
        query_count=QUERY_DESC,
        database_count=method.database_count,
        compute=ComputeConfig(devices=(device,)),
    )
    return Outcome(method, *score_once(scoring, method.model, opened, test.protocols, k, method.fusion))


# ---- what a person sees ---------------------------------------------------------------------------


def _rows(test: DemoSet, shortlist: Shortlist, outcomes: Sequence[Outcome], k: int) -> list[dict[str, Any]]:
    """One row per method; mAP by protocol, mP@10 of the main one."""
    truth, protocols = test.ground_truth, test.protocols

    def row(name: str, results: dict[Protocol, Result], outcome: Outcome | None = None) -> dict[str, Any]:
        method = outcome and outcome.method
        alone = len(protocols) == 1
        return {
            "method": name,
            "query x database": method and f"{QUERY_DESC} x {method.database_count}",
            "bytes/image": method and method.database_count * method.model.code_bytes,
            **{"mAP" if alone else f"mAP {p.name}": results[p].map for p in protocols},
            "mP@10": results[_main(protocols)].mp[10],
            "seconds": outcome and outcome.seconds,
        }

    return [
        row("global only", evaluate_initial(shortlist, truth, protocols)),
        *(row(outcome.method.name, outcome.results, outcome) for outcome in outcomes),
        row("perfect re-ranking", evaluate_oracle(shortlist, truth, protocols, k)),
    ]


def _main(protocols: Sequence[Protocol]) -> Protocol:
    return MEDIUM if MEDIUM in protocols else protocols[0]


def _notes(test: DemoSet, shortlist: Shortlist, k: int) -> list[str]:
    queries, size = shortlist.ids.shape
    return [
        *test.notes,
        f"{queries} queries, {size} database images; each method re-ranks the first {k} of the same "
        "shortlist. bytes/image: local descriptors as each method stores them; seconds: scoring alone.",
        *left_out(query_counts(test.ground_truth, test.protocols)),
    ]


def _strips(test: DemoSet, shortlist: Shortlist, outcome: Outcome, k: int) -> list[Strip]:
    """Some queries with the first results before and after re-ranking."""
    protocol = _main(test.protocols)
    truth, fusion = test.ground_truth, outcome.method.fusion
    assert isinstance(outcome.scores, np.ndarray), "binary models are pair-wise"
    after = rerank(shortlist, outcome.scores, junk_ids(truth, protocol), num_rerank=k, fusion=fusion)
    before_aps = evaluate_initial(shortlist, truth, [protocol])[protocol].aps
    after_aps = outcome.results[protocol].aps
    chosen = np.unique(np.linspace(0, len(truth.queries) - 1, STRIPS).astype(int))
    strips = []
    for q in chosen:
        similarities = shortlist.similarities[q]
        fused = fusion.fuse(similarities, outcome.scores[q])
        rankings = []
        for name, ranking, scores, aps in (
            ("global", shortlist.ids[q], similarities, before_aps),
            (outcome.method.name, after[q], fused, after_aps),
        ):
            by_id = dict(zip(shortlist.ids[q], scores, strict=True))
            rankings.append((f"{name}: AP {aps[q]:.1f}", _hits(test, protocol, q, ranking, by_id)))
        strips.append(Strip(test.images / truth.qimlist[q], truth.qimlist[q], rankings))
    return strips


def _hits(
    test: DemoSet, protocol: Protocol, q: int, ranking: np.ndarray, score: dict[int, float]
) -> list[Hit]:
    """The first results of a ranking, without the query itself; ``score`` by gallery id."""
    truth = test.ground_truth
    right, junk = ids(truth.queries[q], protocol.positives), ids(truth.queries[q], protocol.junk)
    others = [image for image in ranking[: SHOWN + 1] if truth.imlist[image] != truth.qimlist[q]]
    hits = []
    for image in others[:SHOWN]:
        name = truth.imlist[image]
        label = "junk" if image in junk else "right" if image in right else "wrong"
        hits.append(Hit(test.images / name, label, float(score[image]), name))
    return hits
