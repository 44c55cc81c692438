"""Local features of a backbone, and the vector that an embedder makes of the image, or of its features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import torch

from ames.backbones import is_backbone
from ames.backbones.base import ImageFeatures
from ames.descriptors.encoding import LocalRows
from ames.descriptors.provenance import Provenance, comparable, of_both
from ames.embedders.base import Embedder, FeatureEmbedder, ImageEmbedder
from ames.embedders.checkpoints import fingerprint, load_pair
from ames.embedders.features import GLOBAL, FeatureSpec
from ames.errors import AmesError
from ames.extraction.base import BaseExtractor, ExtractionResult, ImageRegion
from ames.extraction.config import ExtractionConfig
from ames.extraction.embedding import EmbeddingResult, ImageReader
from ames.extraction.fusing import FUSED, feature_sets, fuse
from ames.features import LocalFeatures

NO_LOCAL = LocalFeatures.from_descriptors(torch.zeros(0, 0))
ADVICE = "extract it by ames extract, and fuse files by ames embed --features"


def vector_record(embedder: Embedder, fused: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what files record of vectors of an embedder. fused: records of the features that it read."""
    made = {"space": embedder.space, "side": embedder.side, "embedder": fingerprint(embedder)}
    return made if fused is None else made | {"fused": {name: comparable(x) for name, x in fused.items()}}


class EmbeddedExtractor(BaseExtractor):
    """What both kinds share. local: whose local features are kept, None: there will be vectors alone.

    Of them ``config.desc_num`` are kept; None: as many as ``local`` gives.
    """

    def __init__(
        self,
        embedder: Embedder,
        config: ExtractionConfig,
        local: BaseExtractor | None,
        fused: Mapping[str, Any] | None = None,
    ) -> None:
        record = vector_record(embedder, fused)
        self.global_dim, self.config = embedder.dim, config
        if local is None:
            self.name, self.local_dim, self.rows, self.packer = (
                type(embedder).__name__,
                0,
                LocalRows(0, 0),
                None,
            )
            self.provenance = Provenance.from_dict(record | {"opencv": cv2.__version__})
            return
        # Of a pair of networks only one may be at work here; the name is the pair's all the same.
        self.name, self.local_dim, self.packer = config.backbone, local.local_dim, local.packer
        count = config.desc_num or local.config.desc_num
        assert count is not None
        self.config = replace(config, desc_num=count)
        self.rows = replace(local.rows, slots=count)
        made = of_both(local.provenance.to_dict(), record) | {"backbone": self.name, "descriptors": count}
        self.provenance = Provenance.from_dict(made)


class ImageEmbedded(EmbeddedExtractor):
    """The vector is of the image: cut to its box, then as the embedder's ``inputs`` say."""

    def __init__(
        self, embedder: ImageEmbedder, config: ExtractionConfig, local: BaseExtractor | None = None
    ) -> None:
        super().__init__(embedder, config, local)
        self._local = local
        self._reader = ImageReader(
            embedder,
            device=config.device,
            batch_size=config.batch_size,
            workers=config.workers,
            max_pixels=config.max_pixels,
        )

    def chunks(
        self, photos: Sequence[ImageRegion], size: int, tick: Callable[[], object] = lambda: None
    ) -> Iterator[list[ExtractionResult]]:
        """As the interface says. An image file is read once for the vector and once for local features."""
        if self._local is None:
            with closing(self._reader.chunks(photos, size, tick)) as vectors:
                for chunk in vectors:
                    yield [_joined(None, vector) for vector in chunk]
            return
        with ExitStack() as opened:
            found = opened.enter_context(closing(self._local.chunks(photos, size, tick)))  # type: ignore[type-var]
            vectors = opened.enter_context(closing(self._reader.chunks(photos, size)))
            for features, chunk in zip(found, vectors, strict=True):
                yield [_joined(*pair) for pair in zip(features, chunk, strict=True)]


class FeatureEmbedded(EmbeddedExtractor):
    """The vector is fused of features that are extracted for it, and not kept.

    extractors: by backbone, of every feature of the embedder (``feature_backbones``). local: of which of them
    local features are kept. AmesError where a backbone does not give a feature as the embedder takes it.
    """

    def __init__(
        self,
        embedder: FeatureEmbedder,
        config: ExtractionConfig,
        extractors: Mapping[str, BaseExtractor],
        local: str | None = None,
    ) -> None:
        for spec in embedder.features:
            _check_width(spec, extractors[str(spec.backbone)])
        fused = {x.name: extractors[str(x.backbone)].provenance.to_dict() for x in embedder.features}
        super().__init__(embedder, config, None if local is None else extractors[local], fused)
        self._embedder, self._extractors, self._kept = embedder.to(config.device), extractors, local

    def chunks(
        self, photos: Sequence[ImageRegion], size: int, tick: Callable[[], object] = lambda: None
    ) -> Iterator[list[ExtractionResult]]:
        """As the interface says. An image file is read once for each backbone."""
        with ExitStack() as opened:
            ticks = [tick] + [lambda: None] * (len(self._extractors) - 1)
            streams: list[Any] = [
                opened.enter_context(closing(one.chunks(photos, size, each)))  # type: ignore[type-var]
                for one, each in zip(self._extractors.values(), ticks, strict=True)
            ]
            for chunks in zip(*streams, strict=True):
                yield self._fused(dict(zip(self._extractors, chunks, strict=True)))

    def _fused(self, found: Mapping[str, Sequence[ExtractionResult]]) -> list[ExtractionResult]:
        """One chunk: what every backbone gave for each image -> local features and the fused vector."""
        images = list(zip(*found.values(), strict=True))
        results: dict[int, ExtractionResult] = {}
        for row, given in enumerate(images):
            if (why := next((x for x in given if isinstance(x, str)), None)) is not None:
                results[row] = why
        good = [row for row in range(len(images)) if row not in results]
        for first in range(0, len(good), FUSED):
            rows = good[first : first + FUSED]
            taken: Any = {name: [chunk[row] for row in rows] for name, chunk in found.items()}
            sets = feature_sets(self._embedder.features, taken, self.config.dtype)
            for place, (row, vector) in enumerate(zip(rows, fuse(self._embedder, sets), strict=True)):
                results[row] = _joined(self._local(taken, place), vector)
        return [results[row] for row in range(len(images))]

    def _local(self, taken: Mapping[str, Sequence[ImageFeatures]], place: int) -> ImageFeatures | None:
        if self._kept is None:
            return None
        found = taken[self._kept][place]
        return replace(found, local=found.local.trim(self.rows.slots))


def feature_backbones(embedder: FeatureEmbedder, source: object) -> dict[str, int | None]:
    """Return the backbones that make an embedder's features, and how many local descriptors of each it reads
    (None: as many as the backbone gives). AmesError for a feature that no backbone makes.
    """
    found: dict[str, int | None] = {}
    for spec in embedder.features:
        if spec.backbone is None or not is_backbone(spec.backbone):
            made = "no known backbone" if spec.backbone is None else f"{spec.backbone!r}, no backbone here"
            raise AmesError(f"{source}: reads the feature {spec.name!r}, made by {made}: {ADVICE}")
        counts = [x for x in (found.get(spec.backbone), spec.count if spec.kind != GLOBAL else None) if x]
        found[spec.backbone] = max(counts, default=None)
    return found


def check_sides(query: Path, gallery: Path) -> None:
    """AmesError unless the sides of two files, or of one, are of one space and make vectors of photos."""
    for one, source in zip(load_pair(query, gallery), (query, gallery), strict=True):
        if isinstance(one, FeatureEmbedder):
            feature_backbones(one, source)


def _check_width(spec: FeatureSpec, extractor: BaseExtractor) -> None:
    width = extractor.global_dim if spec.kind == GLOBAL else extractor.local_dim
    if width is None:
        raise AmesError(f"feature {spec.name!r}: backbone {extractor.name} gives no global vector; {ADVICE}")
    if width != spec.width:
        raise AmesError(
            f"feature {spec.name!r}: backbone {extractor.name} gives {width}-d ones, the embedder takes "
            f"{spec.width}-d; {ADVICE}"
        )


def _joined(features: ExtractionResult | None, vector: EmbeddingResult) -> ExtractionResult:
    """An image's local features with a vector; why there are none goes before why there is no vector."""
    if isinstance(features, str):
        return features
    if isinstance(vector, str):
        return vector
    return ImageFeatures(NO_LOCAL, vector) if features is None else replace(features, vector=vector)
