"""Global search with the sum of an image's local descriptors, and its evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ames.backbones.detector import SpatialAttention, global_descriptor
from ames.datasets.ground_truth import GroundTruth, load_ground_truth
from ames.datasets.layout import DatasetFolder
from ames.descriptors.local import DescriptorFile
from ames.errors import AmesError
from ames.evaluation.protocols import Protocol, Result, evaluate
from ames.evaluation.sweep import validation_metrics
from ames.global_search.exact import search

_IMAGES_AT_ONCE = 64


@torch.no_grad()
def pool(
    file: DescriptorFile,
    detector: SpatialAttention | None = None,
    *,
    uniform: bool = False,
    count: int | None = None,
) -> np.ndarray:
    """Return float32 [images, D], unit length: sums of the ``count`` strongest descriptors (None: all).

    detector: its projected features with its weights, or with equal weights if ``uniform``. None: the
    L2-normalized descriptors of the file with equal weights. AmesError names an image whose sum is
    not finite.
    """
    if file.packed:
        raise AmesError(f"{file.path}: holds packed bits; their sum says nothing, give descriptors")
    device = "cpu" if detector is None else detector.conv1.weight.device
    vectors = np.empty((len(file), file.width), np.float32)
    for start in range(0, len(file), _IMAGES_AT_ONCE):
        rows = np.arange(start, min(start + _IMAGES_AT_ONCE, len(file)))
        local = file.read(rows, count, locations=False).to(device)
        if detector is None:
            features, weights = F.normalize(local.descriptors.float(), dim=-1), local.valid.float()
        else:
            features, weights = detector.locations(local.descriptors, local.valid)
        vectors[rows] = global_descriptor(features, local.valid.float() if uniform else weights).cpu()
        spoiled = ~np.isfinite(vectors[rows]).all(1)
        if spoiled.any():
            raise AmesError(
                f"{file.path}: the sum of the descriptors of image {rows[spoiled][0]} is not finite: extract "
                "it again"
            )
    return vectors


@dataclass(frozen=True, eq=False)
class PooledSearch:
    """A test set that evaluates a detector by the search with its global descriptors."""

    queries: DescriptorFile
    gallery: DescriptorFile
    ground_truth: GroundTruth
    protocols: Sequence[Protocol]
    count: int | None = None

    @classmethod
    def open(
        cls,
        folder: DatasetFolder,
        protocols: Sequence[Protocol],
        *,
        ground_truth: str | None = None,
        count: int | None = None,
    ) -> PooledSearch:
        """Open a prepared folder. ground_truth: a file other than the default; count: descriptors used per
        image. AmesError if files are missing or not of the same images.
        """
        queries, gallery = (DescriptorFile(folder.local(split)) for split in ("query", "gallery"))
        truth = load_ground_truth(
            folder.find_ground_truth(ground_truth), gallery_size=len(gallery), query_size=len(queries)
        )
        return cls(queries, gallery, truth, protocols, count)

    def evaluate(self, detector: SpatialAttention | None, *, uniform: bool = False) -> dict[Protocol, Result]:
        """Return the metrics of the search with the vectors of ``pool``."""
        queries, gallery = (
            pool(file, detector, uniform=uniform, count=self.count) for file in (self.queries, self.gallery)
        )
        ids = search(queries, gallery).ids
        return {protocol: evaluate(ids, self.ground_truth, protocol) for protocol in self.protocols}

    def map(self, detector: SpatialAttention | None, *, uniform: bool = False) -> float:
        """Return the mean mAP over the protocols under which a query has a positive, in percent."""
        return validation_metrics(self.evaluate(detector, uniform=uniform))["val_map"]

    def __call__(self, detector: SpatialAttention) -> dict[str, float]:
        """Return ``validation_metrics`` with the detector's weights, and the mAP with equal ones."""
        uniform = {"val_map_uniform": self.map(detector, uniform=True)}
        return validation_metrics(self.evaluate(detector)) | uniform
