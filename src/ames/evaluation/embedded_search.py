"""Global search with the vectors of embedders on a test set, and its evaluation."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ames.datasets.ground_truth import GroundTruth, load_ground_truth
from ames.datasets.layout import DatasetFolder
from ames.datasets.lists import check_all_exist, read_list
from ames.embedders.base import Embedder, FeatureEmbedder, ImageEmbedder
from ames.embedders.features import LOCAL, FeatureSpec, StoredFeatures
from ames.errors import AmesError
from ames.evaluation.class_metrics import evaluate_classes
from ames.evaluation.class_protocol import ClassProtocol
from ames.evaluation.protocols import Protocol, evaluate
from ames.evaluation.sweep import validation_metrics
from ames.extraction.base import ImageRegion
from ames.extraction.embedding import embed_images
from ames.extraction.fusing import fuse
from ames.global_search.exact import search
from ames.io.text import counted

log = logging.getLogger(__name__)

_ROWS = 512  # images whose stored features are fused together
SPLITS = ("query", "gallery")


def feature_files(folder: Path, specs: Sequence[FeatureSpec], split: str = "") -> dict[str, Path]:
    """Return the files of features in a data set's folder, by name: NAME_local or NAME_global is the file
    ``NAME[_<split>]_{local,global}.hdf5`` (or _cls).
    """
    found = {}
    for spec in specs:
        place = DatasetFolder(folder, spec.name.removesuffix(f"_{spec.kind}"))
        found[spec.name] = place.local(split) if spec.kind == LOCAL else place.vectors(split)
    return found


def embed_stored(embedder: FeatureEmbedder, stored: StoredFeatures) -> np.ndarray:
    """Return the vectors float32 [n, dim] of all images of stored features, as ``fuse`` makes them. AmesError
    names an image whose vector is not finite.
    """
    vectors = np.empty((len(stored), embedder.dim), np.float32)
    for start in range(0, len(stored), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(stored)))
        for row, found in zip(rows, fuse(embedder, stored.read(rows)), strict=True):
            if isinstance(found, str):
                raise AmesError(f"{next(iter(stored.paths.values()))}: image {row}: {found}")
            vectors[row] = found
    return vectors


@dataclass(frozen=True, eq=False)
class EmbeddedSearch:
    """A test set that embedders are evaluated on: lists of queries and gallery, and a ground truth.

    folder: of the lists and of stored features. images: the root of the lists' paths. workers: threads that
    read images.
    """

    folder: Path
    images: Path
    names: Mapping[str, Sequence[str]]
    labels: Mapping[str, Sequence[str | None]]
    ground_truth: GroundTruth | None
    protocols: Sequence[Protocol]
    workers: int = 0
    _stored: dict[tuple[str, tuple[str, ...]], StoredFeatures] = field(default_factory=dict, repr=False)
    _said: set[str] = field(default_factory=set, repr=False)  # splits of whose unreadable images the log says

    @classmethod
    def open(
        cls,
        folder: Path,
        protocols: Sequence[Protocol],
        *,
        images: Path | None = None,
        ground_truth: str | None = None,
        workers: int = 0,
    ) -> EmbeddedSearch:
        """Open a folder with test_query.txt and test_gallery.txt.

        ground_truth: a file other than the default. Without one, images of the query's label are relevant;
        where the lists are equal, the query itself is left out, by its number. AmesError where there is none
        and the lists share a part of their images, which would find themselves.
        """
        place = DatasetFolder(folder, "any")
        lists = {split: read_list(place.image_list(split)) for split in SPLITS}
        try:
            path = place.find_ground_truth(ground_truth)
        except AmesError:
            if ground_truth is not None or any(x.label is None for items in lists.values() for x in items):
                raise
            truth = None
        else:
            sizes = {f"{split}_size": len(lists[split]) for split in SPLITS}
            truth = load_ground_truth(path, **sizes)
        names = {split: [x.path for x in items] for split, items in lists.items()}
        if truth is None and names["query"] != names["gallery"]:
            _check_apart(place, names)
        labels = {split: [x.label for x in items] for split, items in lists.items()}
        return cls(folder, images or folder, names, labels, truth, protocols, workers)

    def vectors(self, embedder: Embedder, split: str) -> np.ndarray:
        """Return the vectors float32 [n, dim] of a split: of images (queries cut to their boxes), or of the
        features in the folder. An image that cannot be read has a zero vector, and nothing finds it; the log
        says once how many. AmesError as ``prepare``.
        """
        self.prepare(embedder, split)
        if isinstance(embedder, ImageEmbedder):
            boxes = self.ground_truth.boxes if self.ground_truth is not None and split == "query" else None
            regions = [
                ImageRegion(self.images / name, None if boxes is None else boxes[row])
                for row, name in enumerate(self.names[split])
            ]
            found = embed_images(embedder, regions, device=embedder.device, workers=self.workers)
            if found.unreadable and split not in self._said:
                self._said.add(split)
                row, why = next(iter(found.unreadable.items()))
                said = "%d of %d images of the %s list have no vector; the first: %s: %s"
                log.warning(said, len(found.unreadable), len(regions), split, self.names[split][row], why)
            return found.vectors
        assert isinstance(embedder, FeatureEmbedder)
        return embed_stored(embedder, self._stored[_key(embedder, split)])

    def prepare(self, embedder: Embedder, split: str) -> None:
        """Open what ``vectors`` reads, so that a mistake is found before a training.

        AmesError where no image of the list exists, where a file of features is missing or not of the list's
        images, and where another backbone made it than the embedder learned from.
        """
        if not isinstance(embedder, FeatureEmbedder):
            check_all_exist(self.images, self.names[split])
        elif _key(embedder, split) not in self._stored:
            files = feature_files(self.folder, embedder.features, split)
            stored = StoredFeatures(files, {x.name: x.count for x in embedder.features})
            stored.check_images(self.names[split], DatasetFolder(self.folder, "any").image_list(split))
            stored.check(embedder.features)
            self._stored[_key(embedder, split)] = stored

    def metrics(self, query: Embedder, gallery: Embedder) -> dict[str, float]:
        """As ``measure``, of the search with the two sides' vectors."""
        return self.measure(self.vectors(query, "query"), self.vectors(gallery, "gallery"))

    def measure(self, queries: np.ndarray, gallery: np.ndarray) -> dict[str, float]:
        """Return what training records of a validation, from vectors [Q, dim] and [n, dim].

        With a ground truth, ``validation_metrics``; by labels, ``val_map`` and ``val_recall_1``.
        """
        if self.ground_truth is not None:
            truth, ids = self.ground_truth, search(queries, gallery).ids
            return validation_metrics(
                {protocol: evaluate(ids, truth, protocol) for protocol in self.protocols}
            )
        own, others = (np.array(self.labels[split]) for split in SPLITS)
        same = self.names["query"] == self.names["gallery"]
        protocol = ClassProtocol(
            name="labels", recall_at=(1,), average_precision=("trapezoid",), skip_self=same
        )
        found = evaluate_classes(queries, gallery, own, others, protocol)
        return {"val_map": found.map["trapezoid"], "val_recall_1": found.recall[1]}


def _key(embedder: FeatureEmbedder, split: str) -> tuple[str, tuple[str, ...]]:
    return split, tuple(f"{x.name}:{x.count}" for x in embedder.features)


def _check_apart(place: DatasetFolder, names: Mapping[str, Sequence[str]]) -> None:
    """AmesError where an image is a query and in the gallery, too."""
    both = set(names["query"]).intersection(names["gallery"])
    if both:
        asked, searched = (place.image_list(split) for split in SPLITS)
        raise AmesError(
            f"{asked}: {counted(len(both), 'image')} of {searched.name}, too (first: {min(both)}), which "
            "would find themselves: make the lists equal, or take them out"
        )
